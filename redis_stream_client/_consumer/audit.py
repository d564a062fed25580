"""The audit: compares the leases of this client with what is pending for it in Redis."""

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._consumer.comparison import owners_of, pending_for_us
from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.arrivals import Arrivals
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._redis.server import ServerIdentity

THOROUGH = 8  # one audit in so many looks up each lease by itself


class Auditor:
    """Does the audit.

    It runs in the reader, between two reads, and alone under the shared lock. Otherwise it would give up streams
    that are just arriving, and take back streams that were just finished.
    """

    def __init__(
        self,
        *,
        log: Log,
        options: Options,
        pending: Pending,
        deliveries: Deliveries,
        group: Group,
        identity: ServerIdentity,
        lock_state: LockState,
        table: LeaseTable,
        audit_lock: SharedLock,
        audits: AuditSchedule,
        oldest_announcement: OldestAnnouncement,
        counters: Counters,
        losses: Losses,
        arrivals: Arrivals,
    ) -> None:
        self._log = log
        self._consumer = options.consumer
        self._patience = options.patience
        self._pending = pending
        self._deliveries = deliveries
        self._group = group
        self._identity = identity
        self._lock_state = lock_state
        self._table = table
        self._audit_lock = audit_lock
        self._audits = audits
        self._oldest_announcement = oldest_announcement
        self._counters = counters
        self._losses = losses
        self._arrivals = arrivals

    async def run(self) -> None:
        """Compare, adopt entries that never arrived, and end leases that are gone. Raises `Unanswered` and
        `GroupMissing`."""
        with self._audits.under_way():
            await self._compare()
            self._counters.audits += 1

    async def _compare(self) -> None:
        epoch, history = self._lock_state.epoch, self._identity.history
        async with self._audit_lock.alone():
            pending = await pending_for_us(self._pending, self._patience) or {}
            # Below zero, pending entries were trimmed or deleted, perhaps ours. Look up all now and then, because
            # an extra entry elsewhere can hide a missing one.
            census = await self._group.census(self._patience)
            self._oldest_announcement.seen(census.oldest_waiting, clock.now())
            balance = census.balance
            thorough = balance is None or balance < 0 or self._counters.audits % THOROUGH == THOROUGH - 1
            table = self._table
            suspects = list(table) if thorough else table.disagreeing(pending)
            owners = await owners_of(self._pending, [lease.lbs_id for lease in suspects], self._patience)
            if not self._lock_state.believed(epoch):
                return
            found = list(zip(suspects, owners, strict=True))
            self._losses.lose_to(pair for pair in found if pair[1] != self._consumer)
            for lease, owner in found:
                if not owner:
                    pending.pop(lease.lbs_id, None)
            await self._take_over(pending, epoch)
            if self._lock_state.believed(epoch):
                table.audited(history)

    async def _take_over(self, pending: dict[str, int], epoch: int) -> None:
        """Make new leases of entries that are ours without a lease, or with another count than that of the lease.

        If the count is lower than that of the lease, Redis has lost writes in a failover. Then the count is first
        lifted to that of the lease, and the adoption makes it greater.
        """
        table = self._table
        self._losses.lose(table.disagreeing(pending), "claimed")
        for behind in in_chunks(table.behind(pending)):  # together, since everything waits for the audit
            lift, patience = self._deliveries.lift, self._patience
            await gather(*(lift(*lease, patience) for lease in behind), name="redis_stream_client lifting")
            pending.update((lbs_id, handed_out) for lbs_id, _, handed_out in behind)
        if not self._lock_state.believed(epoch):
            return
        unknown = list(table.unknown(pending))
        if unknown:
            self._log.info(
                "%d streams are this client's in Redis, and it did not know it, as after a lost lock or a "
                "lost reply: it takes them up",
                len(unknown),
                extra={"streams": len(unknown)},
            )
            await self._arrivals.adopt(unknown, epoch)
