"""The audit: what is pending for this client, against the leases that it knows of."""

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._consumer.heartbeat import owners_of
from redis_stream_client._consumer.membership import Membership
from redis_stream_client._model.logs import log
from redis_stream_client._ownership.redis_backend import Ownership

PERIOD = 5  # in lock lifetimes
THOROUGH = 8  # every so many audits, each lease is looked up by itself


class Auditor:
    """Says when an audit is due, and does it.

    It runs in the reader, between two reads with none outstanding, and alone behind the gate: otherwise it
    would disown what is just arriving and adopt what was just finished.
    """

    def __init__(self, member: Membership, ownership: Ownership) -> None:
        self._member = member
        self._ownership = ownership
        self._due = clock.now() + PERIOD * member.options.lock_ttl
        self._also_due: float | None = None

    def request(self) -> None:
        """Something was lost: audit before the next read."""
        self._due = min(self._due, clock.now())

    def read_lost(self) -> None:
        """A read was given up: audit now, and when Redis cannot serve it any more."""
        self.request()
        self._also_due = clock.now() + self._member.options.block + 1.0

    @property
    def due(self) -> bool:
        """Whether the reader must audit before it reads."""
        return self.delay <= 0

    @property
    def delay(self) -> float:
        """Seconds until an audit is due."""
        due = self._due if self._also_due is None else min(self._due, self._also_due)
        return due - clock.now()

    async def run(self) -> None:
        """Compare, adopt what never reached us, disown what is gone. Raises `Unanswered`, `GroupMissing`."""
        started = clock.now()
        self._due = float("inf")
        try:
            await self._compare()
        except BaseException:
            self.request()
            raise
        self._member.counters.audits += 1
        # What was requested meanwhile may be about something that came too late for this one.
        self._due = min(self._due, clock.now() + PERIOD * self._member.options.lock_ttl)
        if self._also_due is not None and self._also_due <= started:
            self._also_due = None

    async def _compare(self) -> None:
        epoch, history = self._member.lock_state.epoch, self._member.identity.history
        async with self._member.audit_lock.alone():
            pending = await self._pending()
            # Below zero: some of it was trimmed or deleted, perhaps ours. Now and then all is looked at, since
            # an entry too many elsewhere hides one that is missing.
            census = await self._member.operations.census(self._member.patience)
            self._member.waiting.seen(census.oldest_waiting, clock.now())
            balance = census.balance
            thorough = balance is None or balance < 0 or self._member.counters.audits % THOROUGH == THOROUGH - 1
            table = self._member.table
            suspects = list(table) if thorough else table.disagreeing(pending)
            owners = await owners_of(self._member, [lease.lbs_id for lease in suspects])
            if not self._member.lock_state.believed(epoch):
                return
            found = list(zip(suspects, owners, strict=True))
            self._ownership.lose_to(pair for pair in found if pair[1] != self._member.options.consumer)
            for lease, owner in found:
                if not owner:
                    pending.pop(lease.lbs_id, None)
            await self._take_over(pending, epoch)
            if self._member.lock_state.believed(epoch):
                table.audited(history)

    async def _pending(self) -> dict[str, int]:
        pending: dict[str, int] = {}
        last: str | None = None
        while True:
            page = await self._member.operations.pending(last, self._member.patience)
            pending.update(page.found)
            last = page.last
            if last is None:
                return pending

    async def _take_over(self, pending: dict[str, int], epoch: int) -> None:
        """Entries that are ours without a lease, or under another count than the lease's, become new leases.

        A count that is lower than the lease's means that Redis lost writes in a fail-over and counts anew:
        it is lifted to the fence that was handed out, and adopting it makes it greater.
        """
        table = self._member.table
        self._ownership.lose(table.disagreeing(pending), "claimed")
        for behind in in_chunks(table.behind(pending)):  # side by side: all others wait for the audit
            lift, patience = self._member.operations.lift, self._member.patience
            await gather(*(lift(*lease, patience) for lease in behind), name="redis_stream_client lifting")
            pending.update((lbs_id, handed_out) for lbs_id, _, handed_out in behind)
        if not self._member.lock_state.believed(epoch):
            return
        unknown = list(table.unknown(pending))
        if unknown:
            log.info("%d streams are ours that never reached us", len(unknown))
            await self._ownership.adopt(unknown, epoch)
