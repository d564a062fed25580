"""Take-over: claims many streams of a dead consumer at a time. The sweeper decides when, and from whom."""

from collections.abc import Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.arrivals import Arrivals
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.gains import Gains, Origin
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.replies import Delivered, Refusal, Taken, Won
from redis_stream_client._redis.error_mapping import Unanswered

FIRST_PAGE = 50
"""Streams in the first page of a share, at most: work on them begins while the other pages are taken."""


class Takeover:
    """Takes pages of the streams of a dead owner. They arrive like new ones.

    All methods raise `GroupMissing`. They raise `Unanswered` also if our own lock is not held, or not for long
    enough; then the sweeper looks at this owner again.
    """

    def __init__(
        self,
        *,
        options: Options,
        deliveries: Deliveries,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        audit_lock: SharedLock,
        audits: AuditSchedule,
        capacity: Capacity,
        counters: Counters,
        arrivals: Arrivals,
        gains: Gains,
    ) -> None:
        self._patience = options.patience
        self._deliveries = deliveries
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._audit_lock = audit_lock
        self._audits = audits
        self._capacity = capacity
        self._counters = counters
        self._arrivals = arrivals
        self._gains = gains

    async def take_share(self, owner: str, heirs: Sequence[str], *, asked: bool = False) -> tuple[int, int]:
        """Take our fair share, page by page: as much as brings us level with the heirs. `asked`: this member has
        asked for them. Returns how many the last page had, and how many are left for anybody."""
        origin = _origin(owner, asked=asked)
        most = FIRST_PAGE
        try:
            while True:
                page, left = await self._take_page(owner, heirs, most, origin)
                most = PAGE
                if not ((page.entries or page.more) and left and self._capacity.free):
                    return len(page.entries), left
        finally:
            self._gains.claimed(owner)

    async def take_rest(self, owner: str, most: int, *, asked: bool = False) -> tuple[int, int]:
        """Take up to `most`, even if peers want them. Returns how many were taken, and how many are left, as
        `take_share`."""
        origin = _origin(owner, asked=asked)
        taken = 0
        try:
            while True:
                page, left = await self._take_page(owner, None, most - taken, origin)
                taken += len(page.entries)
                if not (page.more and left and self._capacity.free and taken < most):
                    return taken, left
        finally:
            self._gains.claimed(owner)

    async def _take_page(
        self, owner: str, heirs: Sequence[str] | None, most: int, origin: Origin
    ) -> tuple[Taken, int]:
        """Take a page. Returns the entries, and how many are left, as `take_share`."""
        known = self._event_queue.offered(owner)
        held_back = self._event_queue.held_back(owner, clock.now())
        page = await self._take(owner, heirs, held_back, most, origin)
        if page.left == 0:
            self._event_queue.withdraw_absent(owner, self._table.parting, known)
        return page, max(0, page.left - len(held_back))

    async def _take(
        self, owner: str, others: Sequence[str] | None, but: Sequence[str], most: int, origin: Origin
    ) -> Taken:
        """Claim a page, and make leases of it.

        Args:
            owner: the dead consumer, or `NOBODY`.
            others: the other consumers of the fleet, so that we take only our share; None: take all that is there.
            but: LBS ids to leave alone.
            most: the most streams to take; never more than a page, or than there is room for.
            origin: where they come from.
        """
        most = min(most, PAGE, self._capacity.free)
        with self._capacity.expecting(most):
            async with self._audit_lock.passing():
                lock_state = self._lock_state
                if not lock_state.held or lock_state.quiet:  # since this owner was found dead
                    raise Unanswered("this client's own lock is not held, or only just", maybe_executed=False)
                epoch = lock_state.epoch
                try:
                    reply = await self._deliveries.claim_many(
                        owner, most, self._patience, level_with=others, but=but
                    )
                except Unanswered as error:
                    if error.maybe_executed:
                        self._audits.request()
                    raise
                if not lock_state.believed(epoch):
                    self._audits.request()
                    raise Unanswered("this client's own lock has lapsed", maybe_executed=True)
                if isinstance(reply, Refusal):
                    if reply.why == "lapsed":
                        lock_state.lapse("missing")
                        raise Unanswered("this client's own lock has lapsed", maybe_executed=False)
                    return Taken([], 0)
                won = await self._arrivals.receive(reply.entries, origin)
                self._counters.claims_won += won
        return reply

    async def take_malformed(self, entry: Delivered, owner: str, reason: str) -> None:
        """Claim and bury an orphan that cannot be offered, because it is malformed."""
        async with self._audit_lock.passing():
            reply = await self._deliveries.claim(entry.lbs_id, owner, self._patience)
            if isinstance(reply, Won):
                await self._arrivals.bury_malformed(
                    Delivered(entry.lbs_id, reply.deliveries, reply.fields), reason
                )


def _origin(owner: str, *, asked: bool) -> Origin:
    return Origin("rebalanced" if asked else "claimed", owner)
