"""A fleet in simulated time: processes that die, streams that kill them, and the `Suspects` of each process."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from redis_stream_client import RetryPolicy
from redis_stream_client._run.suspects import Surroundings, Suspects

if TYPE_CHECKING:
    from collections.abc import Callable

FOUND_DEAD = (1.5, 2.1)
"""Seconds until peers take over the streams of a process that died: the shortest and the longest time."""

SPARED = 1
"""Deaths that make no suspect: see `Rules.spared`."""

RESTART = (0.4, 1.0)
"""Seconds until it is replaced."""

PASSING = 0.1
"""Seconds until a peer has a stream that was passed on."""

ACQUITTED = 2.0
"""Seconds after which a stream that has nothing to do is not charged, even if no suspect starts."""

SHORTEST = 0.2
"""Seconds between two entries of a stream."""


@dataclass(eq=False)
class Stream:
    """One stream, and what its record says.

    Attributes:
        name: names it.
        work: seconds of work for each entry; None: it has nothing to do.
        kills: it kills its process so many seconds after its handler has started; None: it does not.
        killed: how many it has killed.
        standstill: the longest time in seconds in which no handler worked on it that was alive.
        idle_since: since when none does; None if one does.
    """

    name: str
    work: float | None = 0.01
    kills: float | None = None
    killed: int = 0
    standstill: float = 0.0
    idle_since: float | None = None
    buried: bool = False
    attempts: int = 0
    began: float | None = None
    trial: bool = False
    lived: float | None = None
    trials: int = 0
    failing_since: float | None = None

    def stood_still(self, now: float) -> float:
        """The longest time without a living handler, up to now."""
        return max(self.standstill, 0.0 if self.idle_since is None else now - self.idle_since)

    def get_on(self) -> None:
        """Its checkpoint advances, or it is cleared."""
        self.attempts, self.began, self.lived, self.trials, self.failing_since = 0, None, None, 0, None


@dataclass(eq=False)
class Process:
    """One member, and the streams that it owns."""

    suspects: Suspects[Stream]
    members: Callable[[], int]
    alive: bool = True
    held: set[Stream] = field(default_factory=set)
    at_rest: set[Stream] = field(default_factory=set)
    look_at: float | None = None

    def look_around(self) -> Surroundings:
        """All its streams."""
        waiting = self.suspects.waiting
        deaths = [each.attempts if each in waiting else max(0, each.attempts - 1) for each in self.held]
        return Surroundings(deaths, bool(self.at_rest), self.members())


class Fleet:
    """The processes and the streams.

    Args:
        streams: all of them.
        members: how many processes there are; one that dies is replaced.
        policy: that of all processes.
        life: for how many seconds a new process lives if no stream kills it; None: for ever.
        seed: of everything that is left to chance.
    """

    def __init__(
        self,
        streams: list[Stream],
        members: int,
        *,
        policy: RetryPolicy | None = None,
        life: Callable[[random.Random], float] | None = None,
        seed: int = 0,
    ) -> None:
        self.now = 0.0
        self.deaths = 0
        self.life = life
        self.streams = streams
        self._policy = policy or RetryPolicy()
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._orphans = list(streams)
        self._processes: list[Process] = []
        for _ in range(members):
            self._join()

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def announce(self, *streams: Stream) -> None:
        """More streams come; from now on the standstills count."""
        for stream in self.streams:
            stream.standstill = 0.0
        self.streams += streams
        self._orphans += streams
        self._take_over()

    def run_until_buried(self, streams: int, timeout: float = 1200.0) -> None:
        """Let time pass until so many are buried, and 10 s more."""
        while len(self.buried) < streams and self.now < timeout:
            self.run(1.0)
        self.run(10.0)

    @property
    def buried(self) -> list[Stream]:
        """The streams in the dead letters."""
        return [stream for stream in self.streams if stream.buried]

    @property
    def longest_standstill(self) -> float:
        """How long a stream that has work and does not kill stood still."""
        innocent = [each for each in self.streams if each.kills is None and each.work is not None]
        return max((each.stood_still(self.now) for each in innocent), default=0.0)

    def deploy(self) -> None:
        """A good version, at last: the new processes live, and work fast."""
        self.life = None
        for process in list(self._processes):
            self._die(process)
        for stream in self.streams:
            stream.work = None if stream.work is None else min(stream.work, 0.1)
            stream.standstill = 0.0
            stream.idle_since = None if stream.idle_since is None else self.now

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    # Processes.

    def _join(self) -> None:
        process = Process(Suspects(self._policy, self._random.random), members=lambda: len(self._processes))
        self._processes.append(process)
        if self.life is not None:
            self._after(self.life(self._random), lambda: self._die(process))
        self._after(0.0, self._take_over)

    def _die(self, process: Process) -> None:
        if not process.alive:
            return
        self.deaths += 1
        process.alive = False
        self._processes.remove(process)

        for stream in process.held - set(process.suspects.waiting):
            stream.idle_since = self.now

        def found_dead() -> None:
            self._orphans += sorted(process.held, key=lambda stream: stream.name)
            self._take_over()

        self._after(self._random.uniform(*FOUND_DEAD), found_dead)
        self._after(self._random.uniform(*RESTART), self._join)

    def _take_over(self) -> None:
        self._random.shuffle(self._orphans)
        while self._orphans and self._processes:
            process = min(self._processes, key=lambda each: len(each.held))
            self._give(process, self._orphans.pop())

    def _give(self, process: Process, stream: Stream) -> None:
        if not process.alive:
            self._orphans.append(stream)
            self._after(2.0, self._take_over)
            return
        process.held.add(stream)
        self._arrive(process, stream)

    # Streams.

    def _arrive(self, process: Process, stream: Stream) -> None:
        if stream.began is not None:
            stream.lived = max(stream.lived or 0.0, self.now - stream.began)
            stream.trials += stream.trial
            stream.began = None
        if stream.attempts <= SPARED:
            self._start(process, stream)
            return
        if stream.failing_since is None:
            stream.failing_since = self.now
        process.suspects.add(
            stream,
            stream.attempts,
            lived=None if stream.lived is None else max(0.0, stream.lived - FOUND_DEAD[0]),
            trials=stream.trials,
            failing_for=self.now - stream.failing_since,
            now=self.now,
        )
        self._look_at(process, self.now)

    def _look_at(self, process: Process, when: float) -> None:
        if process.look_at is None or when < process.look_at:
            process.look_at = when
            self._after(when - self.now, lambda: self._look(process))

    def _look(self, process: Process) -> None:
        if not process.alive or process.look_at is None or self.now < process.look_at:
            return
        process.look_at = None
        while (decision := process.suspects.next(self.now, process.look_around)) is not None:
            stream, verdict = decision
            if verdict == "bury":
                stream.buried = True
                process.held.discard(stream)
            elif verdict == "pass":
                process.held.discard(stream)
                others = [each for each in self._processes if each is not process]
                self._after(PASSING, partial(self._give, self._random.choice(others), stream))
            else:
                self._start(process, stream, trial=verdict == "trial")
        again = process.suspects.look_again_at()
        if again is not None:
            self._look_at(process, max(self.now, again))

    def _start(self, process: Process, stream: Stream, *, trial: bool = False) -> None:
        process.suspects.forget(stream)
        stream.standstill, stream.idle_since = stream.stood_still(self.now), None
        if stream.attempts > SPARED:
            for other in [*process.at_rest, *process.suspects.clear(self.now)]:
                other.get_on()
        stream.attempts += 1
        if stream.attempts > 1:
            stream.began, stream.trial = self.now, trial
        if stream.kills is not None:
            stream.killed += 1
            self._after(stream.kills, lambda: self._die(process))
        elif stream.work is None:
            self._after(0.01, lambda: self._come_to_rest(process, stream))
        else:
            self._after(self._first(stream.work), lambda: self._get_on(process, stream))

    def _first(self, work: float) -> float:
        """The first entry of all may be halfway done: no two streams work in step."""
        return work * self._random.random() if self.deaths == 0 else work

    def _come_to_rest(self, process: Process, stream: Stream) -> None:
        if process.alive:
            process.at_rest.add(stream)
            process.suspects.got_on(stream)
            self._look_at(process, self.now)
            self._after(ACQUITTED, lambda: self._acquit(process, stream))

    def _acquit(self, process: Process, stream: Stream) -> None:
        if process.alive:
            stream.attempts = 0

    def _get_on(self, process: Process, stream: Stream) -> None:
        if process.alive and stream.work is not None:
            stream.get_on()
            process.suspects.progressed(stream, self.now)
            if process.suspects.waiting:
                self._look_at(process, self.now)
            self._after(max(SHORTEST, stream.work), lambda: self._get_on(process, stream))
