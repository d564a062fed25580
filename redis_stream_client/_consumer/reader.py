"""The reader: takes announcements from the load balancer stream, so that each member gets its fair share."""

import asyncio
import contextlib

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.audit import Auditor
from redis_stream_client._consumer.fairness import FAIR_UP_TO, NUDGE, Backlog, Fairness, Yielding
from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.arrivals import Arrivals
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._protocol.announcements import Announcements
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.replies import Delivered
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog

LARGEST_READ = 1_000


class Reader:
    """Reads only while the lock is held and there is room. What this client cannot take, a peer should get.

    While no announcement waits, it blocks for one at a time, so that Redis serves the blocked consumers in turn.
    After each one it looks whether more wait. Redis would give such a backlog to the first consumer that asks.
    Instead, each client takes what brings it level with its live peers, and then waits a moment for the others to
    do the same. A lone client takes all for which it has room. In a fleet of different weights, a client that has
    its share yields: it does not block, but looks now and then.
    """

    def __init__(
        self,
        *,
        log: Log,
        outage: OutageLog,
        options: Options,
        announcements: Announcements,
        group: Group,
        lock_state: LockState,
        capacity: Capacity,
        orders: Orders,
        audits: AuditSchedule,
        auditor: Auditor,
        peers: Peers,
        oldest_announcement: OldestAnnouncement,
        counters: Counters,
        arrivals: Arrivals,
    ) -> None:
        self._log = log
        self._outage = outage
        self._consumer = options.consumer
        self._patience = options.patience
        self._announcements = announcements
        self._group = group
        self._lock_state = lock_state
        self._capacity = capacity
        self._orders = orders
        self._served_until = float("-inf")  # until when a read that got no answer may still bring a stream
        self._audits = audits
        self._auditor = auditor
        self._peers = peers
        self._oldest_announcement = oldest_announcement
        self._counters = counters
        self._arrivals = arrivals
        self._fairness = Fairness(options.block)
        self._served = False
        self._changed = asyncio.Event()
        self._backlog = Backlog(grace=options.pace / 4)
        self._yielding = Yielding(options.pace / 8, no_more=10 * options.pace)
        self._backoff = Backoff(FIRST_PAUSE, options.longest_pause)
        self._late = options.block + 1.0
        for state in (lock_state, capacity, audits, orders):
            state.changed.add(self._changed.set)

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when Redis refuses for good."""
        while True:
            await self._ready()
            try:
                if self._audits.due:
                    await self._auditor.run()
                    continue  # this does not prove that reading works
                if self._backlog.expected:
                    await self._read_share()
                elif (pause := self._yielding.pause()) is not None:
                    await asyncio.sleep(pause)
                    self._backlog.expect()
                else:
                    await self._read_one()
                self._backoff.reset()
                self._outage.answered()
            except Unanswered as error:
                self._outage.failed(error)
                await asyncio.sleep(self._backoff.pause())
            except GroupMissing as error:
                self._log.warning(
                    "the consumer group is gone, and is made anew: %s", error, extra={"error": str(error)}
                )
                self._lock_state.lapse("missing")
                await asyncio.sleep(self._backoff.pause())

    async def _ready(self) -> None:
        """Wait until the lock is held, and there is room and no pause, or an audit is due."""
        while True:
            self._changed.clear()
            self._lock_state.check()
            delay: float | None = None
            rests = self._rest()
            if self._lock_state.held:
                if self._audits.due or (self._orders.new_streams and self._capacity.to_read > 0):
                    return
                delay = min(self._audits.delay, rests)
            await wait_for(self._changed, delay)

    def _rest(self) -> float:
        """In a pause: no read is under way, so none can bring a new stream, unless it may still be served that
        got no answer. Returns in how many seconds that is over; infinity: look no more."""
        left = self._served_until - clock.now()
        if self._orders.pause is None:
            return float("inf")
        if left <= 0:
            self._orders.rests()
            return float("inf")
        return left

    def _lost(self, error: Unanswered) -> None:
        """A read got no answer."""
        if error.maybe_executed:
            self._served_until = clock.now() + self._late
            self._audits.read_lost()

    async def _read_one(self) -> None:
        if self._fairness.clock_due(clock.now()):
            await self._look_at_clock()
        if self._served and self._keeps_order:
            await asyncio.sleep(self._fairness.settling(clock.now(), self._peers.live))
        self._served = False
        if not self._orders.new_streams:
            return
        epoch = self._lock_state.epoch
        block = self._fairness.block(clock.now())
        nudge = start_task(self._nudge(block), "redis_stream_client nudge")
        try:
            entries = await self._announcements.read(block, block + 1.0)
        except Unanswered as error:
            self._lost(error)
            raise
        finally:
            nudge.cancel()
        if not self._lock_state.believed(epoch):
            self._audits.request()
        elif entries:
            await self._served_one(entries)
        else:
            self._oldest_announcement.seen(None, clock.now())
            if self._keeps_order:
                members = await self._group.members(self._patience)
                await asyncio.sleep(self._fairness.pause(self._consumer, members))

    async def _served_one(self, entries: list[Delivered]) -> None:
        self._served = True
        self._backlog.expect()
        if self._capacity.handled_at_once and not self._capacity.free:  # a take-over was faster
            await self._arrivals.put_back(entries)
            return
        self._counters.streams_added += await self._arrivals.receive(entries)

    async def _look_at_clock(self) -> None:
        """Ask for the server's clock a few times, until an answer comes quickly enough to be precise."""
        for _ in range(5):
            asked = clock.now()
            self._fairness.server_clock(await self._announcements.server_time(1.0), asked, clock.now())
            if self._fairness.certain:
                break

    @property
    def _keeps_order(self) -> bool:
        """Whether there are other members to be fair to, and not too many."""
        return 1 < self._peers.live <= FAIR_UP_TO

    async def _nudge(self, block: float) -> None:
        """Make Redis notice that the blocking reads are due."""
        await asyncio.sleep(block + NUDGE)
        if self._keeps_order:
            with contextlib.suppress(Unanswered, GroupMissing):
                await self._announcements.nudge(1.0)

    async def _read_share(self) -> None:
        if self._backlog.others is None:
            members = await self._group.members(self._patience)
            names = (member.name for member in members)
            self._backlog.others = self._peers.takers(names, without={self._consumer})
            if not self._orders.new_streams:
                return
        epoch = self._lock_state.epoch
        most = min(self._capacity.to_read, LARGEST_READ)
        with self._capacity.expecting(most):
            try:
                share = await self._announcements.share(
                    most, self._backlog.patient, self._backlog.others, self._patience
                )
            except Unanswered as error:
                self._lost(error)
                raise
            if not self._lock_state.believed(epoch):
                self._audits.request()
                return
            if share is None:
                self._lock_state.lapse("missing")
                return
            self._yielding.seen(share, clock.now(), self._backlog.patient)
            self._backlog.seen(share.waiting, clock.now(), bool(share.entries))
            if not share.waiting:
                self._oldest_announcement.seen(None, clock.now())
            if share.entries:
                added = await self._arrivals.receive(share.entries)
                self._counters.streams_added += added
        if share.waiting and not share.entries:
            await asyncio.sleep(min(0.05, 0.002 * share.members))
