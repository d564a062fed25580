"""The balancer: asks peers for streams when this member has clearly fewer than its share, and answers those that
ask.

It lives by what the sweeper sees anyway. Only a member that has found that streams should move, or that is asked
for some, looks for itself. So a fleet that is even sends no command for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.balance_schedule import PACE, BalanceSchedule
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.roll_call import RollCall
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.shares import Load
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.hints import Hints, Wants
from redis_stream_client._protocol.replies import Holder, Member
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog

NAMED = 5
"""The most givers that the log names."""


class Giver(Protocol):
    """Who gives streams away."""

    @property
    def going(self) -> int:
        """How many streams are to go, and still are ours."""
        ...

    def give(self, count: int) -> int:
        """Give up to `count` streams away, each when its holder comes to a checkpoint. Returns how many."""
        ...


@dataclass(slots=True)
class Rebalancing:
    """What came of one series of asks, for the log.

    Attributes:
        began: when this member asked first.
        taken: how many streams it had taken from others before.
        loads: what each member had then.
        came: how many streams have come since.
        came_at: when the last of them had.
    """

    began: float
    taken: int
    loads: Mapping[str, Load]
    came: int = 0
    came_at: float = 0.0

    def saw(self, taken: int) -> None:
        """See how many streams this member has taken from others so far."""
        if taken - self.taken != self.came:
            self.came, self.came_at = taken - self.taken, clock.now()


class Balancer:
    """Has this member ask and answer, from `start` to `stop`."""

    def __init__(
        self,
        *,
        log: Log,
        outage: OutageLog,
        options: Options,
        group: Group,
        hints: Hints,
        lock_state: LockState,
        capacity: Capacity,
        orders: Orders,
        peers: Peers,
        roll_call: RollCall,
        counters: Counters,
    ) -> None:
        self._log = log
        self._outage = outage
        self._consumer = options.consumer
        self._patience = options.patience
        self._group = group
        self._hints = hints
        self._lock_state = lock_state
        self._capacity = capacity
        self._orders = orders
        self._peers = peers
        self._roll_call = roll_call
        self._own = Holder(options.weight, options.max_streams)
        self._counters = counters
        self._schedule: BalanceSchedule | None = None
        self._giver: Giver | None = None
        self._to_ask = 0
        self._last_looks: tuple[Sequence[Member], Mapping[str, bool]] | None = None
        self._members: set[str] | None = None  # that lived at the last look; None: somebody has come or gone since
        self._loads: Mapping[str, Load] = {}
        self._rebalancing: Rebalancing | None = None
        self._wake = asyncio.Event()
        self._backoff = Backoff(0.05, options.pace)
        peers.changed.add(self._membership_changed)
        peers.wants.add(self._wanted)
        peers.looked_at.add(self._looked_at)
        lock_state.changed.add(self._membership_changed)
        capacity.changed.add(self._streams_changed)

    def start(self, settle: float, giver: Giver) -> None:
        """Ask and answer from now on. `settle`: see `Rebalance.settle`."""
        self._schedule = BalanceSchedule(self._consumer, settle)
        self._schedule.changed.add(self._wake.set)
        self._giver = giver
        if self._last_looks is not None:  # before it was known that this client runs
            self._looked_at(*self._last_looks)
        self._wake.set()

    def stop(self) -> None:
        """Neither ask nor answer any more."""
        self._schedule = self._giver = None
        self._to_ask = 0
        self._wake.set()

    # What it hears.

    def _membership_changed(self, drained: bool = False) -> None:
        if self._schedule is not None:
            self._schedule.membership_changed(drained=drained)
            self._members = None
            self._to_ask = 0
            self._say_what_came()

    def _wanted(self, consumer: str, streams: int) -> None:
        if self._schedule is not None:
            self._schedule.wants(consumer, streams)

    def _looked_at(self, members: Sequence[Member], alive: Mapping[str, bool]) -> None:
        """The sweeper has looked at all consumers."""
        if self._schedule is None:
            self._last_looks = members, alive
        else:
            self._saw(self._schedule, *self._read(members, alive))

    def _streams_changed(self) -> None:
        if self._schedule is not None and self._schedule.asking:
            self._wake.set()  # what we wait for may have come

    # The task.

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when Redis refuses for good."""
        while True:
            await self._sleep()
            schedule = self._schedule
            if schedule is None or not self._fit:
                continue
            try:
                if clock.now() >= min(schedule.answer_at, schedule.look_at(self._taken)):
                    await self._look(schedule)
                await self._ask()
                self._backoff.reset()
            except Unanswered as error:
                self._outage.failed(error)
                await asyncio.sleep(self._backoff.pause())
            except GroupMissing:
                self._lock_state.lapse("missing")
                await asyncio.sleep(self._backoff.pause())

    async def _sleep(self) -> None:
        """Sleep until there is something to do, or it may be time for a look."""
        schedule = self._schedule
        due = float("inf") if schedule is None else min(schedule.answer_at, schedule.look_at(self._taken))
        delay = due - clock.now()
        if schedule is not None and not self._fit:
            delay = max(delay, PACE)
        await wait_for(self._wake, delay)
        self._wake.clear()

    @property
    def _fit(self) -> bool:
        """Whether this member is neither in trouble, nor about to leave, nor paused."""
        sound = self._lock_state.held and not self._lock_state.quiet
        return sound and not self._capacity.draining and self._orders.new_streams

    @property
    def _taken(self) -> int:
        return self._counters.claims_won

    async def _look(self, schedule: BalanceSchedule) -> None:
        """Look at the loads of all members; then answer, and see whether to ask."""
        members = await self._group.members(self._patience)
        others = [member.name for member in members if member.name not in (self._consumer, NOBODY)]
        alive = await self._roll_call.alive(others)
        self._outage.answered()
        if schedule is not self._schedule or self._giver is None:
            return  # stopped meanwhile
        loads, released = self._read(members, alive)
        if clock.now() >= schedule.answer_at:
            going = self._giver.going
            self._giver.give(schedule.answer(loads, going=going, released=released))
        self._saw(schedule, loads, released)

    async def _ask(self) -> None:
        streams, self._to_ask = self._to_ask, 0
        if streams:
            self._counters.rebalance_asks += 1
            await self._hints.tell(Wants(self._consumer, streams), self._patience)

    # What a look says.

    def _read(self, members: Sequence[Member], alive: Mapping[str, bool]) -> tuple[Mapping[str, Load] | None, int]:
        """The loads of the members that take streams, and how many streams nobody owns. No loads while the streams
        of a dead member wait for a new owner, or this member is not fit."""
        living = {member.name for member in members if member.name == self._consumer or alive.get(member.name)}
        if self._members is not None and living != self._members:
            self._membership_changed()  # though no hint has come
        self._members = living
        released = sum(member.pending for member in members if member.name == NOBODY)
        orphaned = any(member.pending for member in members if member.name not in living | {NOBODY})
        if orphaned or not self._fit:
            return None, released
        takers = set(self._peers.takers(living, without=()))
        return {member.name: self._load(member) for member in members if member.name in takers}, released

    def _load(self, member: Member) -> Load:
        holder = self._own if member.name == self._consumer else self._peers.holder(member.name)
        return Load(member.pending, holder.weight, holder.max_streams)

    def _saw(self, schedule: BalanceSchedule, loads: Mapping[str, Load] | None, released: int) -> None:
        asked = schedule.saw(loads, room=self._capacity.free, taken=self._taken, released=released)
        self._loads = loads or self._loads
        if asked and self._rebalancing is None:
            self._rebalancing = Rebalancing(clock.now(), self._taken, self._loads)
        if self._rebalancing is not None:
            self._rebalancing.saw(self._taken)
        if not schedule.asking:
            self._say_what_came()
        self._to_ask = asked or self._to_ask
        self._wake.set()

    def _say_what_came(self) -> None:
        """The asks have come to an end, or were interrupted."""
        rebalancing, self._rebalancing = self._rebalancing, None
        if rebalancing is None:
            return
        rebalancing.saw(self._taken)
        came = rebalancing.came
        if not came:
            self._log.debug("asked for streams, and none came in %.1f s", clock.now() - rebalancing.began)
            return
        self._counters.streams_received += came
        gave = {
            name: load.streams - self._loads[name].streams
            for name, load in rebalancing.loads.items()
            if name in self._loads and load.streams > self._loads[name].streams
        }
        givers = sorted(gave, key=lambda name: -gave[name])
        self._log.info(
            "rebalanced: %d streams came in %.1f s, from %s%s",
            came,
            rebalancing.came_at - rebalancing.began,
            ", ".join(f"{name} ({gave[name]})" for name in givers[:NAMED]) or "peers",
            f" and {len(givers) - NAMED} more" if len(givers) > NAMED else "",
            extra={"streams": came},
        )
