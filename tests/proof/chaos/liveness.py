"""Liveness: what is there is worked on, within a bound, by whoever suffers nothing.

| promise | what breaks it |
| --- | --- |
| no announcement unread | the oldest announcement that was delivered to nobody is the same for too long |
| none owned and unhandled | it is pending for a consumer that has no lease of it, or whose handler has ended |
| none without an owner | it is pending for nobody, or for a consumer that is gone |
| no entry unread | a handler that waits is not handed an entry that is there |
| all go on after an outage | what handlers need is back, and a stream that they failed for want of it has none |
| no entry unread in a stream that sleeps | one was written to a session, and the session has no lease |
| well | `health()` says that something has been stuck for so long: it is, or it is a false alarm |

Too long is `LIVELY` lifetimes of a lock in a row in which neither the servers nor whoever is to act suffer
anything; what the histories measured is added as in the checker. One period of an audit is five lifetimes: what
nothing else notices, an audit does. A stream whose handler failed rests for the longest pause at the most, and one
whose owners died starts after others: that is added, too. All of a fleet go on after an outage within the longest
pause, and then `UNDISTURBED` lifetimes of a lock in which nobody suffers anything.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from redis_stream_client._model.entry import order
from tests.proof.chaos.story import FOREVER, Fault, Interval, Lease, Story, Stream, earliest, pace
from tests.proof.chaos.trouble import (
    ASIDE,
    DEPENDENCY_AWAY,
    LONGEST_PAUSE,
    MEASURED_FROM,
    OPERATOR,
    PAUSES,
    Violation,
    away,
    cannot_begin,
    in_line,
    of_member,
    stalls,
    total,
    violation,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.proof.chaos.history import Event

LIVELY = 6.0
"""In units of the fleet's pace. A longer lock adds what it lives longer: so does a dead owner without presence."""
UNDISTURBED = 3.0
"""In the same: so long after each fault, and then for so long, nothing happens to anybody."""


def lively(lock_ttl: float) -> float:
    """Seconds after which something stands still."""
    return LIVELY * pace(lock_ttl) + lock_ttl - pace(lock_ttl)


def liveness(story: Story) -> Iterator[Violation]:
    """Find what stood still."""
    judge = _Judge(story)
    yield from judge.announcements()
    yield from judge.leases()
    yield from judge.health()
    yield from judge.outages()
    for name, stream in story.streams.items():
        yield from judge.entries(name, stream)
        yield from judge.wakes(name, stream)


class _Judge:
    """Knows who could have acted when."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.bound = lively(story.lock_ttl)
        self.of_servers = sorted(self._of_servers())
        self.consumers = {
            str(member.joined.args[0]): name for name, member in story.members.items() if member.joined is not None
        }
        self.pauses = [fault.interval for fault in story.faults.values() if fault.kind in PAUSES]
        self.of_members: dict[str, list[Interval]] = {}

    def _of_servers(self) -> Iterator[Interval]:
        yield from stalls(self.story, self.story.run_lags)
        for fault in self.story.faults.values():
            if not fault.member and fault.kind in DEPENDENCY_AWAY:
                yield away(fault)
            elif not fault.member and cannot_begin(fault):
                yield fault.interval
            elif fault.kind in OPERATOR:
                yield Interval(fault.event.time, fault.event.time)

    def due(self, start: float, name: str, bound: float, breaks: Iterable[Interval] = ()) -> float:
        """When this member must have acted on what it could see at `start`."""
        story, member = self.story, self.story.members[name]
        if name not in self.of_members:
            self.of_members[name] = list(of_member(story, name, member))
        start = earliest(start, bound, [*self.of_servers, *self.of_members[name], *breaks])
        if start == FOREVER:
            return FOREVER
        at = start + bound + 2 * MEASURED_FROM
        lags = total(member.lags, start, at) + total(story.run_lags, start, at)
        return at + lags + max(within(story.slow, start, at), default=0.0)

    def due_for_any(self, start: float, breaks: Iterable[Interval] = ()) -> tuple[float, Event | None]:
        """When one of the members must have acted, and which."""
        breaks = list(breaks)
        due: tuple[float, Event | None] = (FOREVER, None)
        for name, member in self.story.members.items():
            if member.joined is not None and member.gone > start:
                when = self.due(start, name, self.bound, breaks)
                due = min(due, (when, member.joined), key=lambda pair: pair[0])
        return due

    # The promises.

    def announcements(self) -> Iterator[Violation]:
        """None is unread for long."""
        first: Event | None = None
        for event in self.story.unread:
            if first is None or event.args[0] != first.args[0]:
                first = event
            elif event.args[0] and event.time - first.time > self.bound:
                due, peer = self.due_for_any(first.time, self.pauses)
                if due < event.time:
                    what = f"announcement {event.args[0]} was read by nobody for {event.time - first.time:.1f} s"
                    yield violation("unread announcement", what, first, peer, event)
                    return  # what lies behind it is unread, too

    def leases(self) -> Iterator[Violation]:
        """What is owned is handled, and what has no owner finds one."""
        leases: dict[str, list[Lease]] = {}
        for name, stream in self.story.streams.items():
            if not name.startswith(ASIDE):
                leases |= {event.args[1]: [] for event in stream.announced if event.args[1] not in leases}
                for lease in stream.leases:
                    leases.setdefault(lease.lbs_id, []).append(lease)
        for id, owners in self.story.owners.items():
            if id not in leases:
                continue  # a decoy, or malformed
            ends = [*(event.time for event in owners[1:]), self.story.closing]
            for owner, end in zip(owners, ends, strict=True):
                if owner.args[1] and end - owner.time > self.bound:
                    yield from self._owned(owner, end, leases[id])

    def _owned(self, owner: Event, end: float, leases: list[Lease]) -> Iterator[Violation]:
        """What became of it while one consumer owned it."""
        id, consumer = owner.args
        name = self.consumers.get(consumer, "")
        gone = self.story.members[name].gone if name else owner.time
        theirs = [lease for lease in leases if lease.source == name]
        for begin, until in _uncovered(owner.time, min(end, gone), theirs):
            waits = leases and self.story.members[name].in_run
            bound = self.bound + (in_line(self.story.streams[leases[0].stream], begin) if waits else 0.0)
            if until - begin > bound and (due := self.due(begin, name, bound)) < until:
                took = f"{until - begin:.1f} s, due {due - begin:.1f} s"
                what = f"{id} was owned by {name} and not handled for {took}"
                last = [lease.lost for lease in theirs if lease.lost is not None and lease.lost.time <= begin]
                yield violation("owned and unhandled", what, owner, *last[-1:])
        for lease in theirs:
            stopped = lease.returned or lease.failed
            if stopped is None:
                continue
            until = min(lease.lost.time if lease.lost else FOREVER, end, gone)
            bound = self.bound + LONGEST_PAUSE
            if until - stopped.time > bound and self.due(stopped.time, name, bound) < until:
                what = f"{id} was kept by {name} for {until - stopped.time:.1f} s after its handler had ended"
                yield violation("owned and unhandled", what, owner, lease.leased, stopped, lease.lost)
        start = max(owner.time, gone)
        if end - start > self.bound:
            due, peer = self.due_for_any(start)
            if due < end:
                what = f"{id} had no owner for {end - start:.1f} s, due {due - start:.1f} s"
                yield violation("without an owner", what, owner, peer)

    def health(self) -> Iterator[Violation]:
        """Nothing is said to be stuck, of one thing for each member."""
        for name, member in self.story.members.items():
            for event in member.stuck:
                what, stream, age = max(event.args[0], key=itemgetter(2))
                if age > self.bound and self.due(event.time - age, name, self.bound) < event.time:
                    said = f"{name} says that {what} {stream or ''} has been stuck for {age:.1f} s"
                    yield violation("stuck", said, member.joined, event)
                    break

    def outages(self) -> Iterator[Violation]:
        """What handlers need is back: all streams that they failed go on."""
        faults = [fault for fault in self.story.faults.values() if not fault.of_writer]
        bound = UNDISTURBED * self.story.pace + self.story.lock_ttl - self.story.pace
        everything = [Interval(fault.interval.begin, fault.interval.end + bound) for fault in faults]
        everything.append(Interval(self.story.closing, FOREVER))
        for lags in (self.story.run_lags, *(member.lags for member in self.story.members.values())):
            everything += stalls(self.story, lags)
        for fault in faults:
            if fault.kind not in DEPENDENCY_AWAY or fault.end == FOREVER:
                continue
            others = [interval for interval in everything if interval.begin != fault.interval.begin]
            due = earliest(fault.end + LONGEST_PAUSE, bound, others) + bound
            for name, stream in self.story.streams.items():
                if not name.startswith(ASIDE):
                    yield from self._goes_on(fault, due, name, stream)

    def _goes_on(self, fault: Fault, due: float, name: str, stream: Stream) -> Iterator[Violation]:
        struck = [lease for lease in stream.leases if _needs(lease) and fault.interval.meets(*_failed(lease))]
        if not struck:
            return
        since = struck[0].leased.time
        due += in_line(stream, due)
        # Whoever owned it at that time, since this one was late or its announcement is older, goes on.
        later = [lease for lease in stream.leases if lease.leased.time > since or _beside(struck[0], lease)]
        on = [lease.leased.time for lease in later if lease.checkpoints or not _needs(lease)]
        if due < min(on, default=self.story.closing):
            what = f"{name} did not go on within {due - fault.end:.1f} s after what its handlers need was back"
            yield violation("outage", what, struck[-1].leased, struck[-1].failed, fault.event)

    def entries(self, name: str, stream: Stream) -> Iterator[Violation]:
        """Each is handed to who waits for it."""
        if stream.entries is None:
            return
        there = [(id, stream.added[id].time) for id in stream.entries if id in stream.added]
        handed: dict[str, float] = {}
        for lease in stream.leases:
            for event in lease.entries:
                handed[event.args[1]] = min(event.time, handed.get(event.args[1], FOREVER))
        for lease in stream.leases:
            member = self.story.members[lease.source]
            end = min(_end(lease), member.gone, self.story.closing)
            for id, added in there:
                start, until = max(added, lease.leased.time), min(end, handed.get(id, FOREVER))
                if until - start <= self.bound:
                    continue
                breaks = [Interval(event.time, event.time) for event in lease.entries]
                if (due := self.due(start, lease.source, self.bound, breaks)) < until:
                    took = f"{until - start:.1f} s, due {due - start:.1f} s"
                    what = f"{name} {id} was not handed to {lease.source} for {took}"
                    last = lease.entries[-1:]
                    yield violation("unread entry", what, lease.leased, stream.added[id], *last, lease.lost)
                    break

    def wakes(self, name: str, stream: Stream) -> Iterator[Violation]:
        """Each that is written to a session finds an owner."""
        handed: dict[str, float] = {}
        for lease in stream.leases:
            for event in lease.entries:
                handed[event.args[1]] = min(event.time, handed.get(event.args[1], FOREVER))
        if not stream.attempts:
            return
        for id in stream.entries or ():
            added = self.story.added_at(stream, id)
            read = min(handed.get(id, FOREVER), self.story.closing)
            if read - added <= self.bound:
                continue
            for begin, end in _uncovered(added, read, stream.leases):
                bound = LONGEST_PAUSE + in_line(stream, begin)
                if end - begin <= self.bound + bound:
                    continue
                due, peer = self.due_for_any(begin + bound, self.pauses)
                if due < end:
                    took = f"{end - begin:.1f} s, due {due - begin:.1f} s"
                    what = f"{name} {id} was not read, and nobody owned the session, for {took}"
                    before = [lease.lost for lease in stream.leases if lease.leased.time <= begin and lease.lost]
                    yield violation("unread in sleep", what, stream.added.get(id), *before[-1:], peer)
                    return


def _end(lease: Lease) -> float:
    """When its handler ended, or its lease."""
    ends = (lease.returned, lease.failed, lease.lost)
    return min((event.time for event in ends if event is not None), default=FOREVER)


def _beside(lease: Lease, other: Lease) -> bool:
    """Whether the other one was held when this one began, by a newer announcement, or by a newer owner while this
    one's process stood still."""
    began = lease.leased.time
    newer = (order(other.lbs_id), other.fence) > (order(lease.lbs_id), lease.fence)
    return newer and other.leased.time <= began and (other.lost is None or other.lost.time > began)


def _needs(lease: Lease) -> bool:
    """Whether its handler failed for want of what it needs."""
    return lease.failed is not None and str(lease.failed.args[1]).startswith("Away")


def _failed(lease: Lease) -> Interval:
    assert lease.failed is not None
    return Interval(lease.failed.time, lease.failed.time)


def _uncovered(begin: float, end: float, leases: Iterable[Lease]) -> Iterator[tuple[float, float]]:
    """The parts of this time in which none of the leases was there."""
    for lease in sorted(leases, key=lambda lease: lease.leased.time):
        if lease.leased.time > begin:
            yield begin, min(end, lease.leased.time)
        begin = max(begin, lease.lost.time if lease.lost else FOREVER)
    yield begin, end
