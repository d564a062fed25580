"""Suspects: streams whose owners have died, and which of them may start when. Pure state: no I/O, no clock.

A process that dies leaves all its streams behind, and one of them may have killed it. Nobody saw which. Most
deaths have other causes, so `run()` sends no stream here for its first one: see `Rules.spared`. What a second
owner left without progress comes here, in whichever process takes it over:

- Where several come together, the process spreads them: it passes most of them on to its peers, each of them
  once. Should one of them kill again, few others are charged with it.
- Those that stay begin at once, one after the other, those with fewer deaths first.
- The last one, if it has three deaths, rests before for two seconds: it is the likeliest to kill. With five deaths
  each rests, for twice as long as any owner lived with it, or longer: each further death doubles the rest.
- Before one begins, those are cleared that began here before it, and have lived longer than with any owner that
  died. Their deaths are forgotten. So those with slow handlers do not pay for what the one that rested does.
- A process that has lived without a stream twice as long as any owner lived with it, then starts it, and dies:
  that was a trial. Only trials convict. A stream with six deaths and three trials goes to the dead letters if it
  stands out among the other streams of its process, and these get on, or live long enough to be cleared.

A process that dies anyway, as in a bad deploy, does not live long enough to try anybody, or to clear anybody.
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

SPREAD = 100
"""The most suspects that a process spreads among its peers. More than that are no single stream's doing."""

AT_ONCE = 0.3
"""Seconds within which those begin that do not rest. Most are innocent, and must not wait for long."""

IN_LINE = 10.0
"""Seconds within which those begin that have rested."""

CLEARED_AFTER, CLEARLY = 0.1, 1.25
"""A suspect is cleared once it has lived here so many seconds longer than so many times as long as with any owner
that died."""

LAST_RESTS = 3
"""Deaths from which on a suspect rests if it is the last one in line."""

ALL_REST = 5
"""Deaths from which on each suspect rests. Innocent ones seldom get there."""

SHORTEST_REST = 2.0
"""Seconds that a suspect rests at the least: those that began before are cleared meanwhile."""

DOUBLING = 0.5
"""Seconds that each death from the third on doubles: with five it is 4 s."""

ENOUGH = 6
"""Deaths after which a stream that stands out is convicted."""

TRIALS = 3
"""Trials that it takes; one where `max_attempts` leaves no time for more."""

LONGER = 2
"""For a trial, how many times as long as any owner lived with a suspect this process has lived without it."""

FEW = 10
"""A suspect stands out where at most one in so many streams has half as many deaths. With each further trial
one more may: members that were replaced own few streams, and several poisoned ones travel together."""

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
        members: how many members there are, this one included.
    """

    deaths: Collection[int]
    at_rest: bool
    members: int = 1


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
        draw: orders those with as many deaths, each time anew.
        number: orders those that drew alike.
        stream: which stream.
        name: what it is known by when it comes back.
        arrived: when it arrived; earlier, if it has waited here before.
        ready_at: when it has rested, should it have to.
        lived: the longest time in seconds that an owner has lived with it; None if not known.
        trials: how often it was tried.
        failing_since: when its troubles began.
        passed: whether it was passed on before.
        line: the line in which it stands; None while it rests.
    """

    deaths: int
    draw: float
    number: int
    stream: S = field(compare=False)
    name: Hashable = field(compare=False)
    arrived: float = field(compare=False)
    ready_at: float = field(compare=False)
    lived: float | None = field(compare=False)
    trials: int = field(compare=False)
    failing_since: float = field(compare=False)
    passed: bool = field(compare=False)
    line: "Line[S] | None" = field(default=None, compare=False)


class Line(Generic[S]):
    """Suspects that begin one after the other, those with fewer deaths first.

    Args:
        within: seconds in which all begin.

    Attributes:
        awaited: who began last, while the next one waits for it; None if it has got on.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._heap: list[tuple[Suspect[S], float]] = []  # who waits no more is left in it
        self._length = 0
        self.awaited: S | None = None
        self._awaited_until = float("-inf")

    def __len__(self) -> int:
        return self._length

    def enter(self, suspect: Suspect[S], now: float) -> None:
        """It waits here."""
        suspect.line = self
        heapq.heappush(self._heap, (suspect, now + self._within))
        self._length += 1

    def leave(self, suspect: Suspect[S]) -> None:
        """It waits no more."""
        suspect.line = None
        self._length -= 1
        if not self._length:
            self._heap.clear()

    def next_at(self) -> float | None:
        """When the first one may begin; None if there is none."""
        if not self._length:
            return None
        return float("-inf") if self.awaited is None else self._awaited_until

    def pop(self, now: float) -> Suspect[S] | None:
        """The one that may begin now, if there is one. The others wait for it until it is cleared, or until it is
        time for the next one."""
        at = self.next_at()
        if at is None or now < at:
            return None
        while (top := heapq.heappop(self._heap))[0].line is not self:
            pass
        suspect, until = top
        self.leave(suspect)
        share = max(0.0, until - now) / (self._length + 1)
        self.awaited, self._awaited_until = suspect.stream, now + min(share, _clearing(suspect.lived or 0.0))
        return suspect


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
        before_last = ENOUGH if policy.max_attempts is None else policy.max_attempts - 1
        self._last_rests, self._all_rest = min(LAST_RESTS, before_last), min(ALL_REST, before_last)
        self._numbers = itertools.count()
        self._waiting: dict[S, Suspect[S]] = {}
        self._resting: list[tuple[float, Suspect[S]]] = []  # a heap; who rests no more is left in it
        self._last: Suspect[S] | None = None  # the one of `_resting` that rests for being the last one
        self._at_once: Line[S] = Line(AT_ONCE)
        self._rested: Line[S] = Line(IN_LINE)
        self._begun: dict[S, tuple[float, float]] = {}  # when, and how long owners lived, until it gets on
        self._progress_at = float("-inf")
        self._stays: OrderedDict[Hashable, Stay] = OrderedDict()

    @property
    def waiting(self) -> Collection[S]:
        """Those that wait: a live view."""
        return self._waiting.keys()

    @property
    def awaited(self) -> list[S]:
        """Those that others wait for."""
        lines = (self._at_once, self._rested)
        return [line.awaited for line in lines if line.awaited is not None and line]

    def __bool__(self) -> bool:
        """Whether what becomes of streams is of interest here."""
        return bool(self._waiting or self._begun)

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
    ) -> None:
        """A stream arrives of which `deaths` owners have died.

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
        stay = self._stays.pop(name, None)
        if stay is None or (stay.deaths, stay.lived, stay.trials) != (deaths, lived, trials):
            stay = Stay(deaths, lived, trials)
        arrived = now - stay.waited
        suspect = self._waiting[stream] = Suspect(
            deaths=deaths,
            draw=self._chance(),
            number=next(self._numbers),
            stream=stream,
            name=name,
            arrived=arrived,
            ready_at=arrived + self._rest(deaths, lived),
            lived=lived,
            trials=trials,
            failing_since=now - failing_for,
            passed=stay.passed,
        )
        last = self._last
        if last is not None and last.deaths <= deaths:
            self._last = None
            self._at_once.enter(last, now)
        self._at_once.enter(suspect, now)

    def remove(self, stream: S, now: float) -> None:
        """A stream waits no more, or its handler has ended."""
        suspect = self._waiting.pop(stream, None)
        if suspect is not None:
            if suspect.line is not None:
                suspect.line.leave(suspect)
            if self._last is suspect:
                self._last = None
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
        self._begun.pop(stream, None)
        for line in (self._at_once, self._rested):
            if line.awaited == stream:
                line.awaited = None

    def clear(self, now: float) -> list[S]:
        """A suspect begins: those that began before it, and have lived longer here than with any owner that died.
        They are to be cleared, so that they are not charged with what it does."""
        cleared = [each for each in self._begun if self._lives(each, now)]
        for stream in cleared:
            self.progressed(stream, now)
        return cleared

    def next(self, now: float, look_around: Callable[[], Surroundings]) -> tuple[S, Verdict] | None:
        """Decide about one suspect. None: about none, now.

        Args:
            now: the time.
            look_around: tells of the streams that this process owns.
        """
        while True:
            self._line_up(now)
            suspect = self._at_once.pop(now)
            verdict: Verdict | None = None
            if suspect is not None:
                if self._passes_on(suspect, look_around()):
                    verdict = "pass"
                elif self._has_to_rest(suspect, now):
                    self._let_rest(suspect)
                    continue
            elif not self._at_once:
                suspect = self._rested.pop(now)
            if suspect is None:
                return None
            verdict = verdict or self._judge(suspect, now, look_around)
            if verdict is not None:
                self._decided(suspect, verdict, now)
                return suspect.stream, verdict
            suspect.ready_at = min(now + SHORTEST_REST, suspect.arrived + self._longest_rest)
            self._let_rest(suspect)

    def look_again_at(self) -> float | None:
        """When to ask `next` again, if nothing happens before; None: never."""
        due = [self._at_once.next_at() if self._at_once else self._rested.next_at()]
        while self._resting and not self._rests(self._resting[0][1]):
            heapq.heappop(self._resting)
        if self._resting:
            due.append(self._resting[0][0])
        return min((each for each in due if each is not None), default=None)

    # Inside.

    def _line_up(self, now: float) -> None:
        """Those that have rested get in line."""
        while self._resting and self._resting[0][0] <= now:
            _, rested = heapq.heappop(self._resting)
            if self._rests(rested):
                if self._last is rested:
                    self._last = None
                self._rested.enter(rested, now)

    def _has_to_rest(self, suspect: Suspect[S], now: float) -> bool:
        if now >= suspect.ready_at:
            return False
        if len(self._waiting) == 1:
            self._last = suspect
            return True
        return suspect.deaths >= self._all_rest

    def _decided(self, suspect: Suspect[S], verdict: Verdict, now: float) -> None:
        del self._waiting[suspect.stream]
        suspect.passed = suspect.passed or verdict == "pass"
        self._remember(suspect, now)
        if verdict not in ("start", "trial"):
            self.got_on(suspect.stream)
        elif suspect.lived is not None:
            self._begun[suspect.stream] = now, suspect.lived

    def _let_rest(self, suspect: Suspect[S]) -> None:
        self.got_on(suspect.stream)  # nobody waits for it
        heapq.heappush(self._resting, (suspect.ready_at, suspect))

    def _rests(self, suspect: Suspect[S]) -> bool:
        return suspect.line is None and self._waiting.get(suspect.stream) is suspect

    def _rest(self, deaths: int, lived: float | None) -> float:
        if deaths <= 1 or deaths < self._last_rests:
            return 0.0
        if deaths < self._all_rest:
            return min(SHORTEST_REST, self._longest_rest)
        doubled = DOUBLING * 2.0 ** min(30, deaths - 2)
        return min(max(SHORTEST_REST, doubled, LONGER * (lived or 0.0)), self._longest_rest)

    def _lives(self, stream: S, now: float) -> bool:
        began, lived = self._begun[stream]
        return now - began >= _clearing(lived)

    def _remember(self, suspect: Suspect[S], now: float) -> None:
        self._stays[suspect.name] = Stay(
            suspect.deaths, suspect.lived, suspect.trials, now - suspect.arrived, suspect.passed
        )
        if len(self._stays) > REMEMBERED:
            self._stays.popitem(last=False)

    def _passes_on(self, suspect: Suspect[S], around: Surroundings) -> bool:
        """Whether a peer is to have one that has just arrived."""
        if suspect.passed or around.members < 2 or suspect.deaths < 2:
            return False
        if 1 < len(self._waiting) <= SPREAD and self._chance() > 1 / around.members:
            return True
        alike = sum(deaths * 2 >= suspect.deaths for deaths in around.deaths)
        return len(around.deaths) == alike <= FEW  # there is nothing to compare it with

    def _judge(self, suspect: Suspect[S], now: float, look_around: Callable[[], Surroundings]) -> Verdict | None:
        """Decide about one whose turn it is. None: it rests for longer."""
        is_last = self._is_last(suspect, now, self._policy.patience)
        if suspect.deaths <= 1 and not is_last:
            return "start"
        deaths, at_rest, _ = look_around()
        if len(deaths) <= 1:  # there is nothing to compare it with
            return "bury" if is_last else "start"
        if suspect.lived is None or now < suspect.ready_at:
            return "start"
        if self._is_convicted(suspect, suspect.lived, deaths, now):
            get_on = at_rest or self._progress_at >= suspect.arrived
            if get_on or any(self._lives(each, now) for each in self._begun):
                return "bury"
            if now < suspect.arrived + self._longest_rest:
                return None  # it is not known yet whether the others get on
        enough = min(LONGER * suspect.lived, self._longest_rest)
        tried = suspect.deaths >= self._last_rests and now >= suspect.arrived + enough
        return "trial" if tried else "start"

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


def _clearing(lived: float) -> float:
    """For how many seconds one lives here that is cleared."""
    return CLEARED_AFTER + CLEARLY * lived
