"""Who was troubled when, and so cannot be held to a promise; and what is said of one that was broken."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis_stream_client._run.suspects import AT_ONCE, IN_LINE, SHARE
from tests.proof.chaos.story import FOREVER, Fault, Interval, Member, Story, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.proof.chaos.history import Event

DECOY = "decoy-"
"""How the names of streams begin that are deleted while they are pending."""
POISON, POISON_KNOWN = "poison-", "poison-known-"
"""How the names of streams begin that no handler can process, and of those of which handlers say so."""
ASIDE = (DECOY, POISON)
"""Streams that have no effects."""
BY_HOLDER = frozenset({"done", "released", "closed", "superseded", "dead"})
"""Why a lease ends that was not taken away."""
PASSED_ON = 2.0
"""Seconds in which members have passed on a stream whose owners have died, each of them once."""
LONGEST_PAUSE = 2.0
"""Seconds that a stream rests at the most after a failure, and that a member pauses between two probes."""

MEASURED_FROM = 0.02
"""Lags and round trips of fewer seconds are not in the histories."""
JUST = 0.05
"""Seconds between what a process does and its line about it, when no lag was measured."""

SERVER_AWAY = frozenset(
    {"pause", "freeze the server", "restart", "outage", "fail over", "forgetful failover", "kill connections"}
    | {"freeze a node", "restart a node", "kill a node", "fail over a node", "move a slot"}
)
"""Faults of the server that make every clock of recovery start anew at their end. A node that has nothing but data
streams is away for their handlers alone."""
CANNOT_BEGIN = frozenset({"full"})
"""The same for a peer in `run()`, which calls no handler before it has written that it begins."""
OPERATOR = frozenset({"destroy the group", "delete the consumer", "acknowledge"})
"""What an operator does is mended within a few sweeps."""
FEW_SWEEPS = 6.0
"""In lifetimes of a lock: the fleet tidies up every other one, and must come to it three times."""
STALL = 0.25
"""Units of the fleet's pace from which on a lag of the proxies is an outage, and one of a member its own fault."""
LONGEST = 10.0
"""Seconds that a lag takes at the most."""
DEPENDENCY_AWAY = frozenset({"ledger away", "member's dependency away"})
"""What handlers need is away: they fail, and the member tries one at a time. It pauses once more after the end."""
HARMLESS = frozenset({"raise", "acknowledge", "suicide", "block", "delete the consumer"})
"""Faults after which a member can take over as well as before, or whose own lines say from when on it can not."""
LEAVES = frozenset({"terminate", "bad deploy"})
"""The process leaves. After a bad deploy those that follow it in its place die soon, and say so."""
LISTENERS_CUT = frozenset({"kill pubsub", "storm"})
"""No listener is spared. Who cannot withdraw its presence within half a grace because it is late loses all."""
PAUSES = frozenset({"operator pauses"})
"""Nobody takes what is announced meanwhile; all else is as ever."""
HALF_A_GRACE = 0.075
"""The least, in seconds."""
DRAINED = frozenset({"operator drains"})
"""The process leaves as soon as it hears of it, which may take as long as its network is away."""
FOR_EVER = frozenset({"kill"}) | LEAVES | DRAINED
KILLS = frozenset({"kill", "kill a writer"})


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which, what happened, and the shortest part of the histories that shows it."""

    promise: str
    what: str
    evidence: tuple[Event, ...]

    @property
    def time(self) -> float:
        """When it was complete."""
        return self.evidence[-1].time if self.evidence else FOREVER


def is_away(fault: Fault) -> bool:
    """Whether the load balancer stream is away in the meantime."""
    return fault.kind in SERVER_AWAY and fault.detail != "data"


def cannot_begin(fault: Fault) -> bool:
    """Whether handlers may be unable to begin, or to go on."""
    return fault.kind in SERVER_AWAY | CANNOT_BEGIN


def away(fault: Fault) -> Interval:
    """From when on handlers fail for want of what they need, until all go on."""
    return Interval(fault.interval.begin, fault.interval.end + LONGEST_PAUSE)


def in_line(stream: Stream, time: float) -> float:
    """Seconds for which a stream may wait in a member in run() that has taken it over: its owners have died, so it
    is passed on, rests, and starts after others."""
    deaths = 0
    for lease in reversed(stream.leases):
        if lease.leased.time <= time:
            if lease.checkpoints:
                break
            deaths += lease.lost is None or lease.lost.args[1] not in BY_HOLDER
    if deaths < 2:
        return deaths * (PASSED_ON + AT_ONCE)
    return PASSED_ON + SHARE * LONGEST_PAUSE + IN_LINE


def violation(promise: str, what: str, *evidence: Event | None) -> Violation:
    """A violation with its evidence in order of time."""
    there = {id(event): event for event in evidence if event is not None}
    return Violation(promise, what, tuple(sorted(there.values(), key=lambda event: event.time)))


def of_member(story: Story, name: str, member: Member) -> Iterator[Interval]:
    """When a member cannot be counted on."""
    assert member.joined is not None
    yield Interval(-FOREVER, member.joined.time)
    yield Interval(story.closing, FOREVER)
    yield Interval(member.gone, FOREVER)
    yield from stalls(story, member.lags)
    for event, end in member.blocked:
        yield Interval(event.time, end)
    for fault in story.faults_of(name):
        if fault.kind in FOR_EVER:
            yield Interval(fault.interval.begin, FOREVER)
        elif fault.kind in DEPENDENCY_AWAY:
            yield away(fault)
        elif fault.kind not in HARMLESS:
            yield fault.interval


def within(lags: Sequence[Event], begin: float, end: float) -> Iterator[float]:
    """How long the lags were that overlap this time; the line about one is written when it is over."""
    for i in range(bisect_left(lags, begin, key=lambda lag: lag.time), len(lags)):
        if lags[i].time > end + LONGEST:
            break
        if lags[i].time - lags[i].args[0] <= end:
            yield lags[i].args[0]


def total(lags: Sequence[Event], begin: float, end: float) -> float:
    """How long all these lags were together."""
    return float(sum(within(lags, begin, end)))


def stalls(story: Story, lags: Iterable[Event]) -> Iterator[Interval]:
    """When something stood still for so long that it is like a fault: a member misses a beat by it."""
    for lag in lags:
        if lag.args[0] >= STALL * story.pace:
            yield Interval(lag.time - lag.args[0], lag.time)
