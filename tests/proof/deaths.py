"""Deaths: real processes that die, of a stream that kills them, or of a bad deploy; what becomes of the streams.

`python -m tests.proof.deaths poison` and `python -m tests.proof.deaths deploy` play the two scenes at full length,
on a server of their own, print what they saw, and exit with 1 when a stream was wronged. `--help` says what can
vary.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import Redis

from redis_stream_client import DeadLetters, Lease, LoadBalancerStream, RedisStreamClient, RetryPolicy
from redis_stream_client._model.keys import Keys
from tests.harness.processes import die_with_parent
from tests.harness.servers import Server
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from tests.harness.connection import Connection

SERVICE = "deaths"
STARTS = "starts"
"""A stream that says which process has started the handler of which stream."""
FROZEN = 3.0
"""Seconds after which a process that has stopped itself is killed and replaced, as by a watchdog."""
MOST_DEATHS = 8
STANDSTILL = 5.0


@dataclass(frozen=True)
class Setup:
    """What the processes do.

    Attributes:
        url: of the server.
        life: seconds after which a process dies, whatever it does; None: it lives.
        progress: whether handlers checkpoint entries; those of a stream named poison-… never do.
        work: seconds that a handler works on one entry.
        kills: seconds from the start of the handler of such a stream until it kills its process.
        freezes: it stops its process, and does not kill it.
        retry: arguments of `RetryPolicy`.
    """

    url: str
    life: float | None = None
    progress: bool = True
    work: float = 0.0
    kills: float = 0.0
    freezes: bool = False
    retry: dict[str, Any] = field(default_factory=dict)


# A process.


async def member(setup: Setup) -> None:
    """Be one member of the fleet, until death."""

    async def handle(lease: Lease) -> None:
        if lease.stream.startswith("poison"):
            await asyncio.sleep(setup.kills)
            os.kill(os.getpid(), signal.SIGSTOP if setup.freezes else signal.SIGKILL)
        await redis.xadd(STARTS, {"stream": lease.stream, "pid": os.getpid()})
        async for entry in lease.entries():
            await asyncio.sleep(setup.work)
            if setup.progress:
                await lease.checkpoint(entry.id)

    client = RedisStreamClient.from_url(setup.url, SERVICE)
    redis = Redis.from_url(setup.url)
    async with redis, client.running(handle, retry=RetryPolicy(**setup.retry)):
        if setup.life is not None:
            await asyncio.sleep(setup.life)
            os._exit(1)
        await asyncio.get_running_loop().create_future()


class Members:
    """So many processes; each that dies is replaced at once.

    Attributes:
        setup: what processes do that start from now on.
        died: the process ids of those that have died, and when.
    """

    def __init__(self, setup: Setup, members: int) -> None:
        self.setup = setup
        self.died: dict[int, float] = {}
        self._members = members
        self._processes: set[asyncio.subprocess.Process] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep_alive()) for _ in range(self._members)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_alive(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.proof.deaths", "member", json.dumps(asdict(self.setup)),
                stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent(),
            )  # fmt: skip
            self._processes.add(process)
            try:
                await self._death(process)
                self.died[process.pid] = time.time()
            finally:
                self._processes.discard(process)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _death(self, process: asyncio.subprocess.Process) -> None:
        frozen = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await process.wait()
                    return
            frozen = frozen + 0.2 if self.setup.freezes and _is_stopped(process.pid) else 0.0
            if frozen >= FROZEN:
                return

    @property
    def deaths(self) -> int:
        """How many have died."""
        return len(self.died)

    def kill(self) -> None:
        """Kill all of them, for a deploy."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"
    return False


# What is seen of the streams.


class Streams:
    """Writes to some streams all the time, and sees how they get on.

    Attributes:
        standstill: for each, the longest time in seconds without progress, up to now.
    """

    def __init__(self, redis: Connection, busy: list[str], every: float = 0.25) -> None:
        self._redis = redis
        self._busy = busy
        self._every = every
        self._seen: dict[str, bytes | None] = {}
        self._moved: dict[str, float] = {}
        self.standstill: dict[str, float] = {}
        self.forget()

    def forget(self) -> None:
        """Measure anew from now on."""
        self._moved = dict.fromkeys(self._busy, time.monotonic())
        self.standstill = dict.fromkeys(self._busy, 0.0)

    def all_moved_since(self, start: float) -> bool:
        """Whether each has got on since then."""
        return all(moved > start for moved in self._moved.values())

    @property
    def longest(self) -> tuple[float, str]:
        """The longest standstill, and whose."""
        return max(((seconds, stream) for stream, seconds in self.standstill.items()), default=(0.0, ""))

    async def go_on(self) -> None:
        """Write and look, until cancelled."""
        keys = Keys(SERVICE)
        while True:
            due = time.monotonic() + self._every
            async with self._redis.pipeline(transaction=False) as pipeline:
                for stream in self._busy:
                    pipeline.xadd(stream, {"k": "v"}, maxlen=1000)
                    pipeline.hget(keys.progress(stream), "checkpoint")
                answers = await pipeline.execute()
            now = time.monotonic()
            for stream, position in zip(self._busy, answers[1::2], strict=True):
                if position != self._seen.get(stream):
                    self._seen[stream], self._moved[stream] = position, now
                self.standstill[stream] = max(self.standstill[stream], now - self._moved[stream])
            await asyncio.sleep(max(0.0, due - now))


@dataclass(frozen=True)
class Result:
    """What became of the streams.

    Attributes:
        deaths: how many processes died.
        letters: the streams in the dead letters, and why.
        standstill: the longest one of a stream with work that does not kill, in seconds: without progress, or
            where handlers are slow, without a living process that works on it.
        stream: whose it was.
        took: seconds until all was over: the burial, or until all had got on after the good deploy.
    """

    deaths: int
    letters: dict[str, str]
    standstill: float
    stream: str
    took: float


async def unattended(redis: Connection, fleet: Members, busy: list[str], since: float) -> tuple[float, str]:
    """The longest time in seconds since then in which no living process worked on a stream, and whose it was."""
    handled: dict[str, list[tuple[float, int]]] = {stream: [] for stream in busy}
    for id, fields in await redis.xrange(STARTS):
        if (stream := fields[b"stream"].decode()) in handled:
            handled[stream].append((int(id.split(b"-")[0]) / 1000, int(fields[b"pid"])))
    longest, now = (0.0, ""), time.time()
    for stream, starts in handled.items():
        for (began, pid), (again, _) in itertools.pairwise([*starts, (now, 0)]):
            ended = max(fleet.died.get(pid, again), began)
            if again > since:
                longest = max(longest, (again - max(ended, since), stream))
    return longest


async def _letters(redis: Connection) -> dict[str, str]:
    return {str(letter.stream): letter.reason async for letter in DeadLetters(redis, SERVICE)}


async def _joined(redis: Connection, members: int) -> bool:
    return len(await redis.keys(Keys(SERVICE).lock("*"))) >= members


async def _buried(redis: Connection, streams: int) -> bool:
    return await DeadLetters(redis, SERVICE).count() >= streams


@contextlib.asynccontextmanager
async def _flowing(redis: Connection, busy: list[str]) -> AsyncGenerator[Streams]:
    streams = Streams(redis, busy)
    task = asyncio.create_task(streams.go_on())
    try:
        yield streams
    finally:
        await stop(task)


async def play_poison(
    url: str, *, members: int, innocent: int, poisoned: int = 1, idle: int = 0, timeout: float = 300.0, **how: Any
) -> Result:
    """Some streams kill each process that touches them, beside others; until they are buried, and 5 s longer."""
    busy, quiet = [f"busy-{i}" for i in range(innocent - idle)], [f"idle-{i}" for i in range(idle)]
    poison = [f"poison-{i}" for i in range(poisoned)]
    async with Redis.from_url(url) as redis:
        announce = LoadBalancerStream(redis, SERVICE)
        async with Members(Setup(url, **how), members) as fleet, _flowing(redis, busy) as streams:
            await wait_until(lambda: _joined(redis, members), "all have joined", 60.0)
            await announce.add_many([*busy, *quiet])
            began = time.monotonic()

            await wait_until(lambda: streams.all_moved_since(began), "all are at work", 60.0)
            streams.forget()
            began, since = time.monotonic(), time.time()
            await announce.add_many(poison)
            with contextlib.suppress(AssertionError):
                await wait_until(lambda: _buried(redis, poisoned), "they are buried", timeout)
            took = time.monotonic() - began
            deaths = fleet.deaths
            await asyncio.sleep(5.0 if took > 30 else 1.0)
            slow = fleet.setup.work > 0
            seconds, stream = await unattended(redis, fleet, busy, since) if slow else streams.longest
            return Result(deaths, await _letters(redis), seconds, stream, took)


async def play_deploy(
    url: str, *, members: int, streams: int, lasting: float, deaths: int = 0, timeout: float = 60.0, **how: Any
) -> Result:
    """For some time, and until so many deaths, all processes die young; then come good ones, until all streams get
    on."""
    busy = [f"busy-{i}" for i in range(streams)]
    async with Redis.from_url(url) as redis:
        setup = Setup(url, **how)
        async with Members(setup, members) as fleet, _flowing(redis, busy) as flow:
            await LoadBalancerStream(redis, SERVICE).add_many(busy)
            await asyncio.sleep(lasting)
            await wait_until(lambda: fleet.deaths >= deaths, "enough have died", timeout)
            fleet.setup = Setup(url, retry=setup.retry)
            fleet.kill()
            flow.forget()
            began = time.monotonic()
            died = fleet.deaths

            with contextlib.suppress(AssertionError):
                await wait_until(lambda: flow.all_moved_since(began), "all go on", timeout)
            took = time.monotonic() - began
            seconds, stream = flow.longest
            return Result(died, await _letters(redis), seconds, stream, took)


def main() -> int:
    """Play one scene."""
    parser = argparse.ArgumentParser(prog="tests.proof.deaths", description=__doc__)
    parser.add_argument("scene", choices=["poison", "deploy"])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--streams", type=int, help="that do not kill (poison: 99, deploy: 40)")
    parser.add_argument("--poisoned", type=int, default=1, help="streams that kill")
    parser.add_argument("--idle", type=int, default=0, help="so many of the others have nothing to do")
    parser.add_argument("--work", type=float, default=0.0, help="seconds for each entry of those that do not kill")
    parser.add_argument("--kills", type=float, default=0.0, help="after so many seconds of work")
    parser.add_argument("--freezes", action="store_true", help="they stop their process instead of killing it")
    parser.add_argument("--seconds", type=float, default=600.0, help="for which the bad deploy lasts")
    parser.add_argument("--life", type=float, default=2.0, help="of a process of the bad deploy")
    parser.add_argument("--stuck", action="store_true", help="its handlers do not get on before it dies")
    args = parser.parse_args()
    with Server() as server:
        if args.scene == "poison":
            innocent = 99 if args.streams is None else args.streams
            scene = play_poison(
                server.url, members=args.members, innocent=innocent, poisoned=args.poisoned, idle=args.idle,
                work=args.work, kills=args.kills, freezes=args.freezes, timeout=1500.0,
            )  # fmt: skip
        else:
            scene = play_deploy(
                server.url, members=args.members, streams=40 if args.streams is None else args.streams,
                lasting=args.seconds, life=args.life, progress=not args.stuck,
            )  # fmt: skip
        result = asyncio.run(scene)
    print(f"load {os.getloadavg()[0]:.1f}")
    for name, value in asdict(result).items():
        print(f"{name}: {value}")
    if args.scene == "deploy":
        return int(bool(result.letters) or result.took > RetryPolicy().longest_pause)
    wanted = {f"poison-{i}" for i in range(args.poisoned)}
    wronged = set(result.letters) != wanted or result.standstill > STANDSTILL
    return int(wronged or result.deaths > MOST_DEATHS * args.poisoned)


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        asyncio.run(member(Setup(**json.loads(sys.argv[2]))))
    else:
        sys.exit(main())
