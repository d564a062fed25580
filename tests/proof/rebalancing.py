"""A fleet in simulated time that shares its streams out anew, by the rule and the schedule of the package itself.

The simulation has a clock, messages and handlers of its own; who asks, who gives how much, and when, is decided by
`BalanceSchedule`, `OnTheirWay` and the functions of `shares`. Released streams are claimed as the sweeper claims
them: each member takes what brings it level, and after a while what others have left. `python -m benchmarks
rebalance` plays all scenes in full size.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from redis_stream_client._consumer.balance_schedule import BalanceSchedule
from redis_stream_client._consumer.on_their_way import UNWILLING, OnTheirWay
from redis_stream_client._ownership.shares import Load, fair_shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PACE = 2.0
"""`Options.pace` of a client with default settings, in seconds."""

ROUND_TRIP = (0.001, 0.004)
HINT = (0.0005, 0.003)
HEARD = (0.001, 0.02)
"""Seconds from a release until a member that hears of it claims."""

REST = PACE / 4
"""Seconds after which a member takes also what others have left; see `Sweeper`."""

PAGE = 250
HELD_BACK = 2.0
"""Seconds for which a member does not take back what it has released."""

IDLE = 0.005
"""Seconds until a handler stops that waits for an entry."""

DRAIN = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What a member is like.

    Attributes:
        weight: see `Load`.
        limit: its `max_streams`.
        told: its peers know its limit.
        balances: it asks and gives; an older version does neither.
        checkpoint: mean seconds between two checkpoints of a handler that is at work.
        idle: the part of its handlers that waits for entries.
    """

    weight: float = 1.0
    limit: int | None = None
    told: bool = True
    balances: bool = True
    checkpoint: float = 0.1
    idle: float = 0.5


SLOW = Kind(checkpoint=60.0, idle=0.0)
OLD = Kind(balances=False)


@dataclass(eq=False)
class Member:
    """One member, and what it owns."""

    name: str
    kind: Kind
    schedule: BalanceSchedule
    leaving: OnTheirWay[int]
    streams: set[int] = field(default_factory=set)
    taken: int = 0
    drains: bool = False
    gone: bool = False
    claims_at: float = math.inf
    rest_at: float | None = None
    wakes_at: float = math.inf

    @property
    def room(self) -> int:
        """How many more streams it can take."""
        limit = self.kind.limit
        return 1 << 30 if limit is None else max(0, limit - len(self.streams))


def level(released: int, mine: int, weight: float, others: list[tuple[int, float]]) -> int:
    """How many of the released streams bring a member level with those that have the fewest, as ``shares.lua``."""
    while True:
        total = mine + released + sum(streams for streams, _ in others)
        weights = math.fsum([weight, *(its_weight for _, its_weight in others)])
        below = [other for other in others if other[0] * weights <= total * other[1]]
        if len(below) == len(others):
            return math.ceil(total * weight / weights - 1e-9) - mine
        others = below


class Fleet:
    """Members, their streams, and what happened to these.

    Args:
        kinds: of the members that are there at first; they share the streams evenly.
        streams: how many streams.
        settle: `Rebalance.settle`, in seconds; None: nothing is shared out anew.
        lost: the part of the hints that are lost.

    Attributes:
        moves: streams that came to another owner than before.
        given: streams that were given up for a peer.
        asks: requests that members made.
        looks: looks at the loads that members made for the balance alone.
        most_given: the most streams of the fleet that were being given up at a time.
        last_move: when the last stream moved.
        gaps: for each stream that was given up, the seconds for which nobody owned it.
    """

    def __init__(
        self,
        kinds: Iterable[Kind],
        streams: int,
        *,
        settle: float | None = 10.0,
        lost: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.now = 0.0
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        self._settle = settle
        self._lost = lost
        self.members: dict[str, Member] = {}
        self.released: dict[int, tuple[Member, float]] = {}
        self.owner: dict[int, Member] = {}
        self.moves = self.given = self.asks = self.looks = self.most_given = self.ended = 0
        self.last_move = 0.0
        self.gaps: list[float] = []
        self._stream_ids = itertools.count()
        for kind in kinds:
            self._new(kind)
        fair = fair_shares(self.loads(), released=streams)
        for member in self.members.values():
            for stream in itertools.islice(self._stream_ids, fair[member.name]):
                member.streams.add(stream)
                self.owner[stream] = member

    # The clock.

    def after(self, delay: float, what: Callable[[], None]) -> None:
        """Do this after so many seconds."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), what))

    def soon(self, span: tuple[float, float], what: Callable[[], None]) -> None:
        """Do this after some time of that span."""
        self.after(self._random.uniform(*span), what)

    def tell(self, what: Callable[[], None]) -> None:
        """A hint arrives, or is lost."""
        if self._random.random() >= self._lost:
            self.soon(HINT, what)

    def play(self, seconds: float) -> None:
        """Let so many seconds pass."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    # What all can see.

    @property
    def total(self) -> int:
        """How many streams there are."""
        return sum(len(member.streams) for member in self.members.values()) + len(self.released)

    def loads(self) -> dict[str, Load]:
        """What a look finds."""
        return {
            member.name: Load(
                len(member.streams), member.kind.weight, member.kind.limit if member.kind.told else None
            )
            for member in self.members.values()
            if not member.drains
        }

    @property
    def heights(self) -> list[int]:
        """How many streams each of the members has."""
        return [load.streams for load in self.loads().values()]

    @property
    def off(self) -> int:
        """How many streams are where they should not be."""
        true = {m.name: Load(len(m.streams), m.kind.weight, m.kind.limit) for m in self.members.values()}
        fair = fair_shares(true)
        return sum(max(0, load.streams - fair[name]) for name, load in true.items())

    # Membership.

    def join(self, kind: Kind | None = None) -> Member:
        """A member joins."""
        member = self._new(kind or Kind())
        self._membership_changed(member)
        return member

    def _new(self, kind: Kind) -> Member:
        name = f"m{next(self._names):03d}"
        schedule = BalanceSchedule(name, self._settle or 0.0, lambda: self.now)
        member = Member(name, kind, schedule, OnTheirWay(lambda: self.now))
        self.members[name] = member
        self.after(self._random.uniform(0, 2 * PACE), lambda: self._sweep(member))
        return member

    def leave(self, member: Member) -> None:
        """A member drains: it releases each stream at its next checkpoint, and leaves."""
        member.drains = True
        self._membership_changed(member)
        for stream in list(member.streams):
            self.after(min(DRAIN, self._until_checkpoint(member)), partial(self._release, member, stream))
        self._leave_when_empty(member)

    def _leave_when_empty(self, member: Member) -> None:
        if member.streams:
            self.after(0.01, lambda: self._leave_when_empty(member))
            return
        self._remove(member)

    def die(self, member: Member) -> None:
        """A member dies, and its peers notice."""
        for stream in member.streams:
            self.released[stream] = (member, self.now)
        member.streams.clear()
        self._remove(member)
        self._tell_of_release()

    def _remove(self, member: Member) -> None:
        member.gone = True
        del self.members[member.name]
        self._membership_changed(member)

    def _membership_changed(self, about: Member) -> None:
        for member in self.members.values():
            if member is not about:
                self.tell(partial(member.schedule.membership_changed, drained=about.drains))

    # Balance.

    def _sweep(self, member: Member) -> None:
        """What the sweeper learns, for its own reasons."""
        if member.gone:
            return
        if self._balances(member):
            self._saw(member)
        period = 2 * PACE * max(1.0, len(self.members) / 16)
        self.after(period * self._random.uniform(0.5, 1.0), lambda: self._sweep(member))

    def _balances(self, member: Member) -> bool:
        return self._settle is not None and member.kind.balances and not member.drains and not member.gone

    def _wake(self, member: Member) -> None:
        """Sleep until something is due."""
        if not self._balances(member):
            return
        schedule = member.schedule
        due = max(self.now, min(schedule.look_at(member.taken), schedule.answer_at, member.leaving.next_overdue))
        if due < member.wakes_at:
            member.wakes_at = due
            self.after(due - self.now, lambda: self._woken(member, due))

    def _woken(self, member: Member, due: float) -> None:
        if due != member.wakes_at:
            return
        member.wakes_at = math.inf
        if not self._balances(member):
            return
        member.leaving.overdue()
        if member.schedule.answer_at <= self.now:
            member.wakes_at = 0.0  # busy until the reply is here
            self.looks += 1
            self.soon(ROUND_TRIP, lambda: self._answer(member))
        elif member.schedule.look_at(member.taken) <= self.now:
            member.wakes_at = 0.0
            self.looks += 1
            self.soon(ROUND_TRIP, lambda: self._look(member))
        else:
            self._wake(member)

    def _look(self, member: Member) -> None:
        member.wakes_at = math.inf
        if self._balances(member):
            self._saw(member)

    def _saw(self, member: Member) -> None:
        wanted = member.schedule.saw(
            self.loads(), room=member.room, taken=member.taken, released=len(self.released)
        )
        if wanted:
            self.asks += 1
            member.rest_at = None
            for peer in self.members.values():
                if peer is not member and self._balances(peer):
                    self.tell(partial(self._hear, peer, member.name, wanted))
        self._wake(member)

    def _hear(self, peer: Member, who: str, wanted: int) -> None:
        peer.schedule.wants(who, wanted)
        peer.rest_at = None  # what is released now is for those that ask
        self._wake(peer)

    def _answer(self, member: Member) -> None:
        member.wakes_at = math.inf
        if not self._balances(member):
            return
        going = len(member.leaving)
        gives = member.schedule.answer(self.loads(), going=going, released=len(self.released))
        able = [stream for stream in member.streams if member.leaving.able(stream)]
        for stream in self._random.sample(able, min(gives, len(able))):
            member.leaving.begin(stream)
            delay = self._until_checkpoint(member)
            if delay < UNWILLING:
                self.after(delay, partial(self._give, member, stream))
        on_their_way = sum(len(member.leaving) for member in self.members.values())
        self.most_given = max(self.most_given, on_their_way)
        self._wake(member)

    def _until_checkpoint(self, member: Member) -> float:
        if self._random.random() < member.kind.idle:
            return IDLE
        return self._random.expovariate(1 / member.kind.checkpoint)

    def _give(self, member: Member, stream: int) -> None:
        if stream in member.leaving and not member.drains:
            self.given += stream in member.streams
            self._release(member, stream)

    # Owners.

    def _release(self, member: Member, stream: int) -> None:
        if stream in member.streams:
            member.streams.discard(stream)
            member.leaving.ended(stream)
            self.released[stream] = (member, self.now)
            self._tell_of_release()
            self._wake(member)

    def _tell_of_release(self) -> None:
        for member in self.members.values():
            if not member.drains:
                self._claim_at(member, self.now + self._random.uniform(*HEARD))

    def _claim_at(self, member: Member, at: float) -> None:
        """Claim at that time, or earlier."""
        if at < member.claims_at:
            member.claims_at = at
            self.after(at - self.now, partial(self._claim, member, at))

    def _claim(self, member: Member, at: float) -> None:
        """As the sweeper: our share at first, and after a while what others have left."""
        if at != member.claims_at:
            return
        member.claims_at = math.inf
        if member.gone or member.drains:
            return
        if not self.released:
            member.rest_at = None
            return
        if member.rest_at is None:
            member.rest_at = self.now + REST
        if self.now < member.rest_at:
            heirs = [
                (len(peer.streams), peer.kind.weight)
                for peer in self.members.values()
                if peer is not member and not peer.drains and (peer.room or not peer.kind.told)
            ]
            most = level(len(self.released), len(member.streams), member.kind.weight, heirs)
            again = member.rest_at
        else:
            most = math.ceil(len(self.released) / len(self.members))
            again = self.now + REST / 8
        self._take(member, min(most, member.room, PAGE))
        if self.released and member.room:
            self._claim_at(member, again if most < PAGE else self.now + ROUND_TRIP[0])

    def _take(self, member: Member, most: int) -> None:
        takes = [
            stream
            for stream, (giver, at) in self.released.items()
            if giver is not member or self.now - at > HELD_BACK
        ]
        for stream in takes[: max(0, most)]:
            giver, at = self.released.pop(stream)
            member.streams.add(stream)
            member.taken += 1
            if self.owner[stream] is not member:
                self.moves += 1
                self.last_move = self.now
            self.owner[stream] = member
            if not giver.drains and not giver.gone:
                self.gaps.append(self.now - at)
        self._wake(member)

    # Streams that come and end.

    def drift(self, life: float) -> None:
        """From now on streams come and end at random; each lasts `life` seconds on average."""
        members = list(self.members.values())
        rate = self.total / life

        def arrive() -> None:
            stream, member = next(self._stream_ids), self._random.choice(members)
            member.streams.add(stream)
            self.owner[stream] = member
            self.after(self._random.expovariate(1 / life), lambda: self._end(stream))
            self.after(self._random.expovariate(rate), arrive)

        for stream in self.owner:
            self.after(self._random.expovariate(1 / life), partial(self._end, stream))
        arrive()

    def _end(self, stream: int) -> None:
        self.ended += 1
        owner = self.owner.pop(stream)
        owner.streams.discard(stream)
        owner.leaving.ended(stream)
        self.released.pop(stream, None)


# Scenes.

LONG = 900.0
"""Seconds that a fleet has to become even."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scene came to.

    Attributes:
        fleet: the fleet at the end.
        least: how few streams had to move.
        since: when the membership changed last.
    """

    fleet: Fleet
    least: int
    since: float

    @property
    def even_after(self) -> float:
        """Seconds from the last change of membership to the last move."""
        return max(0.0, self.fleet.last_move - self.since)


def scale(
    before: Iterable[Kind],
    joining: Iterable[Kind],
    streams: int,
    *,
    settle: float | None = 10.0,
    lost: float = 0.0,
    lasting: float = LONG,
    seed: int = 1,
) -> Outcome:
    """Members join a fleet that is even, and `lasting` seconds pass."""
    fleet = Fleet(before, streams, settle=settle, lost=lost, seed=seed)
    fleet.play(60)
    assert (fleet.moves, fleet.asks, fleet.looks) == (0, 0, 0), "an even fleet says nothing"
    for kind in joining:
        fleet.join(kind)
    least, since = fleet.off, fleet.now
    fleet.play(lasting)
    return Outcome(fleet, least, since)


def rolling(
    members: int,
    streams: int,
    gap: float,
    *,
    new_first: bool,
    settle: float | None = 10.0,
    between: float = 1.0,
    lasting: float = LONG,
    seed: int = 1,
) -> Outcome:
    """All members are replaced, one after the other, `gap` seconds apart.

    The least are those streams that the restarts move anyway, and then as few as make even what these leave
    behind.

    Args:
        between: seconds between the two halves of a replacement.
    """

    def play(settle: float | None) -> tuple[Fleet, float]:
        fleet = Fleet([Kind()] * members, streams, settle=settle, seed=seed)
        fleet.play(60)
        since = fleet.now
        for member in list(fleet.members.values()):
            if new_first:
                fleet.join()
                fleet.play(between)
                fleet.leave(member)
            else:
                fleet.leave(member)
                fleet.play(between)
                fleet.join()
            since = fleet.now
            fleet.play(max(0.0, gap - between))
        fleet.play(lasting)
        return fleet, since

    without, since = play(None)
    least = without.moves + without.off
    fleet, since = (without, since) if settle is None else play(settle)
    return Outcome(fleet, least, since)


def random_ends(
    members: int, average: int, life: float, hours: float, *, settle: float | None = 10.0, seed: int = 3
) -> Fleet:
    """Streams come and end at random. In a real fleet they come in turn, which makes less of a difference."""
    fleet = Fleet([Kind()] * members, members * average, settle=settle, seed=seed)
    fleet.drift(life)
    fleet.play(hours * 3600)
    return fleet
