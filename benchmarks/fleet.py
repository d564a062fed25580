"""Fleets of real processes, and what they said of their streams."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import psutil
from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream
from tests.harness.processes import die_with_parent
from tests.harness.waiting import wait_until
from tests.harness.workers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from benchmarks.member import Programs

LAST_WORDS = 2_000
"""Characters of what a process said that are kept."""


@dataclass(slots=True)
class Span:
    """One member's time with one stream, on the clock of `time.monotonic()`; `end` is infinite while it lasts."""

    stream: str
    member: str
    start: float
    end: float = float("inf")
    finished: bool = False


@dataclass(eq=False)
class Process:
    """A member process of one contender; `async with` starts it, waits until it takes part, and kills it."""

    contender: str
    url: str
    service: str
    program: Programs = "consume"
    consumers: int = 1
    """Members in this process."""
    options: Mapping[str, object] = field(default_factory=dict)
    """What the contender's program is called with besides; JSON."""
    spans: list[Span] = field(default_factory=list)
    entries: list[tuple[str, float]] = field(default_factory=list)
    """The entries that it has processed, as `<stream>@<id>`, and when."""
    ready: int = 0
    ready_at: float = float("inf")
    """When its last member took part."""
    owned: dict[str, Span] = field(default_factory=dict)
    """By the data stream's name: its newest owner of this process."""
    _held: dict[tuple[str, str], Span] = field(default_factory=dict)
    last_words: str = ""
    """The end of what it wrote to standard error."""
    _process: asyncio.subprocess.Process | None = None
    _readers: Sequence[asyncio.Task[None]] = ()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.member"),
            *(self.contender, self.url, self.service, self.program, str(self.consumers), json.dumps(self.options)),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        self._readers = [
            asyncio.create_task(read, name=f"reports of {self.contender}")
            for read in (self._read(), self._read_errors())
        ]
        try:
            await wait_until(lambda: self.ready == self.consumers, f"{self.contender} takes part", 60)
        except AssertionError as error:
            await self.kill()
            raise AssertionError(f"{error}; it said: {self.last_words}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process itself."""
        assert self._process is not None, "not started"
        return self._process

    def cpu(self) -> float:
        """The CPU seconds that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """The bytes of memory that are its own."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> float:
        """Kill it as a crash would; returns when. What it owned, it owns no more."""
        at = time.monotonic()
        self.signal(signal.SIGKILL)
        await self.ended()
        for span in self._held.values():
            span.end = min(span.end, at)
        self._held.clear()
        self.owned.clear()
        return at

    async def ended(self, timeout: float = 30.0) -> None:
        """Wait for its end, and for the last of its reports."""
        async with asyncio.timeout(timeout):
            await self.process.wait()
            await asyncio.gather(*self._readers)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            what, stream, at, member = line.decode().split()
            if what == "ready":
                self.ready += 1
                self.ready_at = float(at)
            elif what == "entry":
                self.entries.append((stream, float(at)))
            elif what == "own":
                span = Span(stream, f"{self.contender} {self.process.pid} {member}", float(at))
                self.spans.append(span)
                self.owned[stream] = self._held[member, stream] = span
            elif (last := self._held.pop((member, stream), None)) is not None:
                last.end, last.finished = float(at), what == "finish"
                if self.owned.get(stream) is last:  # else another member of this process has it
                    del self.owned[stream]

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while said := await self.process.stderr.read(LAST_WORDS):
            self.last_words = (self.last_words + said.decode(errors="replace"))[-LAST_WORDS:]


async def announce(contender: str, url: str, service: str, streams: Sequence[str]) -> None:
    """Announce data streams, as the contender's producers would."""
    if contender == "streaq_queue":
        from benchmarks.contenders import streaq_queue  # the budgets are checked without it

        await streaq_queue.announce(url, service, streams)
        return
    async with Redis.from_url(url) as redis:
        await LoadBalancerStream(redis, service).add_many(streams)


async def patiently(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until it holds, but no longer than that."""
    with contextlib.suppress(AssertionError):
        await wait_until(condition, "it holds", timeout)


def owned(processes: Iterable[Process]) -> set[str]:
    """The streams that these own now, by what they said."""
    return {stream for process in processes for stream in process.owned}


def owned_twice(spans: Iterable[Span]) -> int:
    """How many streams had two members at work on them at one time."""
    by_stream: dict[str, list[Span]] = {}
    for span in spans:
        by_stream.setdefault(span.stream, []).append(span)
    return sum(
        any(later.start < earlier.end for earlier, later in itertools.pairwise(ordered))
        for of_stream in by_stream.values()
        if (ordered := sorted(of_stream, key=lambda span: span.start))
    )


def unevenness(processes: Iterable[Process]) -> float:
    """The streams of the most loaded, divided by those of the least loaded."""
    shares = [len(process.owned) for process in processes]
    return max(shares) / max(1, min(shares))


def repeated(spans: Iterable[Span]) -> int:
    """How many streams were begun more than once."""
    return sum(count > 1 for count in Counter(span.stream for span in spans).values())
