"""The heartbeat: renews the consumer lock, and takes it back after a lapse."""

import asyncio

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.comparison import owners_of, pending_for_us
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.lock_state import LockState, State
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._protocol.announcements import Announcements
from redis_stream_client._protocol.lock import Lock, Standing
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog


class LockRenewal:
    """Sends a beat: for the heartbeat, or for the sweeper, which asks for the sweep turn with it. Now and then it
    asks for the orders of operators, too."""

    def __init__(
        self,
        *,
        lock: Lock,
        lock_state: LockState,
        orders: Orders,
        outage: OutageLog,
        counters: Counters,
        patience: float,
    ) -> None:
        self._lock = lock
        self._lock_state = lock_state
        self._orders = orders
        self._outage = outage
        self._counters = counters
        self._patience = patience

    async def beat(self, turn: float | None = None) -> bool:
        """Renew the lock. With `turn`, also ask for the sweep turn for `turn` seconds.

        Returns whether we have the turn, and hold the lock. Raises what `Lock.renew` raises.
        """
        epoch = self._lock_state.epoch
        sent = clock.now()
        self._lock_state.beating(sent)
        reads = self._orders.reading()
        try:
            renewal = await self._lock.renew(self._patience, turn=turn, orders=reads)
        except BaseException:
            if reads:
                self._orders.unread()
            raise
        self._outage.answered()
        if not self._lock_state.believed(epoch):
            return False
        if not renewal.held:
            self._lock_state.lapse("missing")
            return False
        self._obey(renewal.orders)
        self._lock_state.renewed(sent, epoch)
        self._counters.beats += 1
        return renewal.turn

    def _obey(self, orders: Standing | Unanswered | RedisRejected | None) -> None:
        match orders:
            case Standing(pause, drain):
                self._orders.read(pause, drain=drain)
            case RedisRejected():
                self._orders.refused(orders)
            case Unanswered():
                self._orders.unread()


class Heartbeat:
    """Sends one ``PEXPIRE`` at least every `heartbeat_interval`, however many streams the client holds."""

    def __init__(
        self,
        *,
        log: Log,
        options: Options,
        lock: Lock,
        pending: Pending,
        announcements: Announcements,
        renewal: LockRenewal,
        lock_state: LockState,
        orders: Orders,
        table: LeaseTable,
        outage: OutageLog,
        lapse: OutageLog,
        audits: AuditSchedule,
        sweeps: SweepSchedule,
        losses: Losses,
    ) -> None:
        self._log = log
        self._interval = options.heartbeat_interval
        self._beat_patience = options.beat_patience
        self._patience = options.patience
        self._lock = lock
        self._pending = pending
        self._announcements = announcements
        self._renewal = renewal
        self._lock_state = lock_state
        self._orders = orders
        self._table = table
        self._outage = outage
        self._lapse = lapse
        self._audits = audits
        self._sweeps = sweeps
        self._losses = losses
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(FIRST_PAUSE, options.longest_pause)
        lock_state.changed.add(self._changed)
        lock_state.questioned.add(self._wake.set)
        orders.pressing.add(self._wake.set)

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when Redis refuses for good."""
        self._watch_deadline()
        try:
            while True:
                try:
                    if self._lock_state.state is State.HELD:
                        await self._beat()
                    else:
                        await self._resume()
                    self._backoff.reset()
                except (Unanswered, GroupMissing) as error:
                    self._outage.failed(error)
                    await asyncio.sleep(self._backoff.pause())
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _changed(self) -> None:
        """The lock has lapsed: take it back, and set the timer for the new deadline."""
        if self._lock_state.state is not State.HELD:
            self._orders.forget()
            self._wake.set()
        if self._timer is not None:
            self._rearm()

    async def _beat(self) -> None:
        self._wake.clear()
        await self._renewal.beat()
        said = await self._say()
        while (pause := self._until_due()) > 0:
            if await wait_for(self._wake, pause) or not said:
                return

    async def _say(self) -> bool:
        """Have the lock say what operators should know. Returns whether it does; nothing else depends on it."""
        try:
            await self._lock.say(self._orders.says, self._beat_patience)
        except (Unanswered, GroupMissing, RedisRejected) as error:
            self._log.debug("could not write the lock: %s", error)
            return False
        return True

    def _until_due(self) -> float:
        """Seconds until the next beat, which may be for the orders alone. A beat of the sweeper counts, too."""
        beat_at = self._lock_state.beat_at
        due = float("-inf") if beat_at is None else min(beat_at + self._interval, self._orders.overdue_at)
        return max(0.0, due - clock.now())

    async def _resume(self) -> None:
        """Take the lock back. Then find out which leases no peer has taken meanwhile."""
        sent = clock.now()
        newest = self._announcements.newest
        await self._lock.join(self._beat_patience, begin=newest)
        self._outage.answered()
        self._lock_state.answered(sent)

        async def still_held() -> bool:
            nonlocal sent
            again = clock.now()
            if not await self._lock.beat(self._beat_patience):
                return False
            sent = again
            self._lock_state.answered(sent)
            return True

        pending = await pending_for_us(self._pending, self._patience, between=still_held)
        if pending is None:
            return
        disagreeing = self._table.disagreeing(pending)
        owners = await owners_of(self._pending, [lease.lbs_id for lease in disagreeing], self._patience)
        if not self._lock_state.held_since(sent):
            return
        self._losses.lose_to(zip(disagreeing, owners, strict=True))
        self._lapse.ended(also="; %(streams)d streams kept")
        self._watch_deadline()
        self._audits.request()
        self._sweeps.tidy_now()

    def _watch_deadline(self) -> None:
        """Set the timer that notices a lapse by itself."""
        self._lock_state.check()
        self._rearm()

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._lock_state.deadline - clock.now()
        if self._lock_state.state not in (State.HELD, State.SUSPECT):
            delay = self._interval
        self._timer = asyncio.get_running_loop().call_later(max(0.001, delay), self._watch_deadline)
