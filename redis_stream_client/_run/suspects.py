"""Suspects: streams whose owners have died, and which of them may start when. Pure state: no I/O, no clock.

A process that dies leaves all its streams behind, and one of them may have killed it. Nobody saw which. Most
deaths have other causes, so `run()` sends no stream here for its first one: see `Rules.spared`. Where a second
owner has died, the next one starts those that were left without progress one after the other, each on probation
until it gets on. If one of them kills again, the others have got on, or have not begun, and are not charged
with this death.

A stream with several deaths rests first. A process that lives well without it, twice as long as any owner lived
with it, then starts it, and dies: that is a trial. Only trials convict. A process that dies anyway, as in a bad
deploy, does not live long enough to try anybody.
"""

import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from redis_stream_client._model.retry_policy import RetryPolicy

S = TypeVar("S")

Verdict = Literal["start", "trial", "pass", "bury"]
"""What becomes of a suspect: its handler starts; or it starts, and if this process dies, that was a trial; or a
peer gets it; or it goes to the dead letters."""

TOGETHER = 1.5
"""Seconds within which all suspects with one death begin. Most are innocent, and must not wait for long."""

IN_LINE = 10.0
"""Seconds within which those with more deaths begin, once they have rested."""

PROBATION = 1.0
"""The longest time in seconds that others wait for one suspect to get on. Most get on within milliseconds."""

FIRST_REST = 0.5
"""Seconds that a suspect with two deaths rests. Each further death doubles it."""

ENOUGH = 6
"""Deaths after which a stream that stands out is convicted."""

TRIALS = 3
"""Trials that it takes; one where `max_attempts` leaves no time for more."""

LONGER = 2
"""For a trial, how many times as long as any owner lived with a suspect this process has lived without it."""

TRIED_AT = 3
"""Deaths after which a suspect rests long enough for a trial, even if that is longer than the doubling says."""

FEW = 10
"""A suspect stands out where at most one in so many streams has half as many deaths. With each further trial
one more may: members that were replaced own few streams, and several poisoned ones travel together."""

PASSED = 0.75
"""How often a process passes a suspect on to its peers that it can compare with no other stream. A member that was
just replaced may own nothing but what killed the one before. Not always, and not twice: the peers may be no better
off."""

SHARE = 0.75
"""The longest rest, as a share of the policy's `longest_pause`: after a bad deploy all streams go on within the
latter, which includes the time until they are taken over, and the time in line."""

PATIENCE = 600.0
"""The shortest patience in seconds with a suspect that does not stand out among other streams."""

REMEMBERED = 10_000
"""Suspects that left, and may come back."""


class Surroundings(NamedTuple):
    """The streams of this process, the suspect among them.

    Attributes:
        deaths: for each of them, how many owners have died since it last got on.
        at_rest: whether some of them wait for entries with nothing left to do.
        peers: whether there are other members.
    """

    deaths: Collection[int]
    at_rest: bool
    peers: bool = False


class Stay(NamedTuple):
    """How a suspect has waited in this process that left before it began.

    A client whose lock lapses loses all its streams, and gets back those that nobody took. They go on waiting
    where they were. Else a process that lapses every few seconds would never start them.

    Attributes:
        deaths: owners that had died. If this, `lived` or `trials` differ when it comes back, it waits anew.
        lived: the longest time in seconds that an owner had lived with it.
        trials: how often it had been tried.
        waited: for how many seconds it has waited.
        passed: whether it was passed on to the peers. Each process does this once, so that they do not pass it
            round for ever.
    """

    deaths: int
    lived: float | None
    trials: int
    waited: float = 0.0
    passed: bool = False


@dataclass(slots=True, order=True)
class Suspect(Generic[S]):
    """One stream that waits.

    Attributes:
        deaths: owners that died, since it last got on.
        ready_at: when it has rested.
        number: orders those that arrived at the same time.
        stream: which stream.
        name: what it is known by when it comes back.
        arrived: when it arrived; earlier, if it has waited here before.
        rest: for how many seconds it rests.
        lived: the longest time in seconds that an owner has lived with it; None if not known.
        trials: how often it was tried.
        failing_since: when its troubles began.
        passed: whether it was passed on before.
        in_line: whether it has rested.
    """

    deaths: int
    ready_at: float
    number: int
    stream: S = field(compare=False)
    name: Hashable = field(compare=False)
    arrived: float = field(compare=False)
    rest: float = field(compare=False)
    lived: float | None = field(compare=False)
    trials: int = field(compare=False)
    failing_since: float = field(compare=False)
    passed: bool = field(compare=False)
    in_line: bool = field(default=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether there was one death: it needs no rest."""
        return self.deaths <= 1


class Suspects(Generic[S]):
    """The suspects of one process.

    Args:
        policy: says when streams go to the dead letters, and how long they rest at the most.
        chance: a number from 0 to 1.
    """

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._chance = chance
        self._longest_rest = SHARE * policy.longest_pause
        self._numbers = itertools.count()
        self._waiting: dict[S, Suspect[S]] = {}
        self._resting: list[tuple[float, Suspect[S]]] = []  # heaps; who waits no more is left in them
        self._ready: list[Suspect[S]] = []
        self._in_line = [0, 0]  # who waits in `_ready`: those with more deaths, those with one
        self._probation: S | None = None
        self._probation_ends = float("-inf")
        self._progress_at = float("-inf")
        self._stays: OrderedDict[Hashable, Stay] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def waiting(self) -> Collection[S]:
        """Those that wait: a live view."""
        return self._waiting.keys()

    def add(
        self,
        stream: S,
        deaths: int,
        *,
        lived: float | None,
        trials: int,
        failing_for: float,
        now: float,
        name: Hashable = None,
    ) -> float:
        """A stream arrives of which `deaths` owners have died. Returns for how many seconds it rests.

        Args:
            stream: which.
            deaths: at least 1.
            lived: the longest time in seconds that an owner has lived with it; None if not known.
            trials: how often it was tried.
            failing_for: for how many seconds it has been in trouble.
            now: the time.
            name: what it is known by when it comes back; by itself if None.
        """
        name = stream if name is None else name
        rest = self._rest(deaths, lived)
        stay = self._stays.pop(name, None)
        if stay is None or (stay.deaths, stay.lived, stay.trials) != (deaths, lived, trials):
            stay = Stay(deaths, lived, trials)
        arrived = now - stay.waited
        suspect = Suspect(
            deaths=deaths,
            ready_at=arrived + rest,
            number=next(self._numbers),
            stream=stream,
            name=name,
            arrived=arrived,
            rest=rest,
            lived=lived,
            trials=trials,
            failing_since=now - failing_for,
            passed=stay.passed,
        )
        self._waiting[stream] = suspect
        left = max(0.0, rest - stay.waited)
        if left:
            heapq.heappush(self._resting, (suspect.ready_at, suspect))
        else:
            self._enter_line(suspect)
        return left

    def remove(self, stream: S, now: float) -> None:
        """A stream waits no more, or its handler has ended."""
        suspect = self._waiting.pop(stream, None)
        if suspect is not None:
            if suspect.in_line:
                self._in_line[suspect.first] -= 1
            self._remember(suspect, now)
        self.got_on(stream)

    def forget(self, name: Hashable) -> None:
        """A stream has begun: if it comes back, it waits anew."""
        self._stays.pop(name, None)

    def progressed(self, stream: S, now: float) -> None:
        """The checkpoint of any stream has advanced, or its handler has returned."""
        self._progress_at = now
        self.got_on(stream)

    def got_on(self, stream: S) -> None:
        """A stream has progressed, has nothing left to do, or has ended: nobody waits for it."""
        if self._probation == stream:
            self._probation = None

    @property
    def probation(self) -> S | None:
        """Whom the others wait for, now."""
        return self._probation if self._waiting else None

    def next(self, now: float, look_around: Callable[[], Surroundings]) -> tuple[S, Verdict] | None:
        """Decide about one suspect. None: about none, now.

        Args:
            now: the time.
            look_around: tells of the streams that this process owns.
        """
        while self._resting and self._resting[0][0] <= now:
            _, rested = heapq.heappop(self._resting)
            if self._waiting.get(rested.stream) is rested:
                self._enter_line(rested)
        if self._probation is not None and now < self._probation_ends:
            return None
        suspect = self._pop()
        if suspect is None:
            return None
        verdict = self._judge(suspect, now, look_around)
        suspect.passed = suspect.passed or verdict == "pass"
        self._remember(suspect, now)
        if verdict in ("start", "trial"):
            self._probation, self._probation_ends = suspect.stream, now + self._time_for(suspect, now)
        return suspect.stream, verdict

    def look_again_at(self) -> float | None:
        """When to ask `next` again, if nothing happens before; None: never."""
        due = []
        if any(self._in_line):
            due.append(self._probation_ends if self._probation is not None else float("-inf"))
        if self._resting:
            due.append(self._resting[0][0])
        return min(due, default=None)

    # Inside.

    def _rest(self, deaths: int, lived: float | None) -> float:
        if deaths <= 1:
            return 0.0
        rest = FIRST_REST * 2.0 ** min(30, deaths - 2)
        most = self._policy.max_attempts
        if most is not None and lived is not None and deaths >= min(TRIED_AT, most - 1):
            rest = max(rest, LONGER * lived)
        return min(rest, self._longest_rest)

    def _remember(self, suspect: Suspect[S], now: float) -> None:
        if suspect.first:
            return  # it waits for so short a time that it may wait again
        self._stays[suspect.name] = Stay(
            suspect.deaths, suspect.lived, suspect.trials, now - suspect.arrived, suspect.passed
        )
        if len(self._stays) > REMEMBERED:
            self._stays.popitem(last=False)

    def _enter_line(self, suspect: Suspect[S]) -> None:
        heapq.heappush(self._ready, suspect)
        suspect.in_line = True
        self._in_line[suspect.first] += 1

    def _pop(self) -> Suspect[S] | None:
        while self._ready:
            suspect = heapq.heappop(self._ready)
            if self._waiting.get(suspect.stream) is suspect:
                del self._waiting[suspect.stream]
                self._in_line[suspect.first] -= 1
                return suspect
        return None

    def _time_for(self, suspect: Suspect[S], now: float) -> float:
        """How long the others wait for it at the most: so that all of them begin in time."""
        within = TOGETHER if suspect.first else IN_LINE
        share = (suspect.ready_at + within - now) / (self._in_line[suspect.first] + 1)
        return min(PROBATION, max(0.0, share))

    def _judge(self, suspect: Suspect[S], now: float, look_around: Callable[[], Surroundings]) -> Verdict:
        """Decide about one that has rested; this process has lived all the time."""
        is_last = self._is_last(suspect, now, self._policy.patience)
        if suspect.first and not is_last:
            return "start"
        deaths, at_rest, peers = look_around()
        if len(deaths) <= 1:  # there is nothing to compare it with
            if is_last:
                return "bury"
            return "pass" if peers and not suspect.passed and self._chance() < PASSED else "start"
        if suspect.lived is None:
            return "start"
        if not at_rest and self._progress_at < suspect.arrived:
            return "start"  # none of them gets on: should this process die, that may have any cause
        if self._is_convicted(suspect, suspect.lived, deaths, now):
            return "bury"
        enough = min(LONGER * suspect.lived, self._longest_rest)
        return "trial" if suspect.rest >= enough else "start"

    def _is_last(self, suspect: Suspect[S], now: float, patience: float) -> bool:
        most = self._policy.max_attempts
        return most is not None and suspect.deaths >= most and now - suspect.failing_since >= patience

    def _is_convicted(self, suspect: Suspect[S], lived: float, all_deaths: Collection[int], now: float) -> bool:
        most = self._policy.max_attempts
        if most is None:
            return False
        further = suspect.trials - (TRIALS if most >= ENOUGH else 1)
        if further < 0:
            return False
        if suspect.deaths >= min(ENOUGH, most) and LONGER * lived <= self._longest_rest:
            alike = sum(deaths * 2 >= suspect.deaths for deaths in all_deaths)
            if alike <= max(1 + further, len(all_deaths) // FEW):
                return True
        return self._is_last(suspect, now, max(PATIENCE, self._policy.patience))
