"""Data streams that flow: written all the time, and followed by clients in `run()`, while faults strike."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.harness.runs import END, Running, add, finished
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.workers import Worker

PAUSE = 0.02
"""Seconds between two entries of a stream."""


@contextlib.asynccontextmanager
async def lateness(redis: Connection | None = None) -> AsyncGenerator[Callable[[], float]]:
    """Measure how late this event loop is at worst, in seconds: what a bound must allow a busy machine. With
    `redis`, the longest that this server takes for an answer is added: it has to wait for a core, too."""
    worst = slowest = 0.0
    over = False  # instead of a cancellation, which redis-py may swallow while it connects

    async def watch() -> None:
        nonlocal worst
        while not over:
            due = time.monotonic() + PAUSE
            await asyncio.sleep(PAUSE)
            worst = max(worst, time.monotonic() - due)

    async def ask(redis: Connection) -> None:
        nonlocal slowest
        while not over:
            asked = time.monotonic()
            await redis.ping()
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        if redis is not None:
            tasks.create_task(ask(redis))
        try:
            yield lambda: worst + slowest
        finally:
            over = True


@dataclass
class Shift:
    """What one owner did with one stream."""

    fence: str
    position: str | None
    """Id of the entry after which it began."""
    began: float
    """`time.time()` when its handler was called."""
    handed: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


class Flow:
    """The streams, who wrote, and who followed.

    Redis may be away while it is written to: what is in the streams in the end is what counts.
    """

    def __init__(self, url: str, service: str, streams: int) -> None:
        self.restarted = False
        """Whether Redis was restarted: what had no checkpoint then comes again, to the same owner, too."""
        self.streams = [f"call-{i:02}" for i in range(streams)]
        self.clients: list[Running] = []
        self._url = url
        self._service = service
        self._writing: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._shifts: defaultdict[str, list[Shift]] = defaultdict(list)

    async def follow(self, lease: Lease) -> None:
        """Handle a stream: checkpoint every entry, and end with the last one."""
        shift = Shift(str(lease.fence), lease.position, time.time())
        self._shifts[lease.stream].append(shift)
        async for entry in lease.entries():
            if not shift.handed:  # known for certain from now on
                shift.position = lease.position
            shift.handed.append(entry.id)
            await lease.checkpoint(entry.id)
            shift.accepted.append(entry.id)
            if END in entry.fields:
                return

    def hear(self, worker: Worker) -> None:
        """Add what a worker process, a `RunWorker`, has reported."""
        shifts: dict[tuple[str, str], Shift] = {}
        for event in worker.events:
            key = (event.stream, event.fence)
            match event.event:
                case "handling":
                    position = event.detail.split()[1]
                    after = None if position == "None" else position
                    shifts[key] = Shift(event.fence, after, event.time)
                case "handed":
                    shifts[key].handed.append(event.detail)
                case "accepted":
                    shifts[key].accepted.append(event.detail)
                case _:
                    pass
        for (stream, _), shift in shifts.items():
            self._shifts[stream].append(shift)

    def shifts(self, stream: str) -> list[Shift]:
        """What the owners of a stream did so far, in order."""
        return sorted(self._shifts[stream], key=lambda shift: shift.fence)

    async def goes_on(self, *, entries: int = 5, timeout: float = 15.0) -> None:
        """Wait until so many more entries of every stream are accepted by the clients of this process."""
        wanted = {stream: self._accepted(stream) + entries for stream in self.streams}
        await wait_until(
            lambda: all(self._accepted(stream) >= n for stream, n in wanted.items()), "all streams flow", timeout
        )

    def _accepted(self, stream: str) -> int:
        return sum(len(shift.accepted) for shift in self._shifts[stream])

    @contextlib.asynccontextmanager
    async def written(self) -> AsyncGenerator[None]:
        """Write to all streams meanwhile, until `end` at most."""
        self._ended.clear()
        self._writing = asyncio.create_task(self._write(), name="writing")
        try:
            yield
        finally:
            await self._stop_writing()

    async def _stop_writing(self) -> None:
        self._ended.set()
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        """Until told to end, whatever happens to Redis. A cancellation might be lost: with a time-out, redis-py
        writes under `asyncio.wait_for`, which on Python 3.11 swallows some."""
        async with Redis.from_url(self._url, socket_timeout=1.0) as redis:
            while not self._ended.is_set():
                with contextlib.suppress(RedisError, OSError):
                    async with redis.pipeline(transaction=False) as pipe:
                        for stream in self.streams:
                            pipe.xadd(stream, {"n": 1})
                        await pipe.execute(raise_on_error=False)
                await asyncio.sleep(PAUSE)

    async def end(self, timeout: float = 15.0) -> None:
        """Write the last entries, and wait until all streams are finished."""
        await self._stop_writing()
        async with Redis.from_url(self._url) as redis:
            for stream in self.streams:
                await redis.xadd(stream, {END: ""})
            await wait_until(lambda: finished(redis, self._service), "all streams are finished", timeout)

    async def check(self) -> None:
        """Of each stream every entry was accepted, once and in order.

        So each owner was handed what follows the last entry that was accepted; or what follows the one after, if
        the owner before was handed that and was overtaken before it heard of its checkpoint.
        """
        redis: Connection
        async with Redis.from_url(self._url) as redis:
            for stream in self.streams:
                ids = [id.decode() for id, _ in await redis.xrange(stream)]
                self._check(stream, ids)

    def _check(self, stream: str, ids: list[str]) -> None:
        places = {id: place for place, id in enumerate(ids, 1)}
        reached = {0}  # how many entries may be accepted by now
        fences: list[str] = []
        for shift in self.shifts(stream):
            fences.append(shift.fence)
            if not shift.handed:
                continue
            start = places[shift.position] if shift.position else 0
            where = f"{stream}, fence {shift.fence}"
            assert start in reached, f"{where} begins after entry {start} of which {reached} were accepted"
            handed = list(dict.fromkeys(shift.handed)) if self.restarted else shift.handed
            assert handed == ids[start : start + len(handed)], f"{where} was not handed what follows"
            done, given = len(shift.accepted), len(handed)
            assert shift.accepted == handed[:done], f"{where}: accepted in another order than handed"
            assert given - done <= 1, f"{where} was handed entries before the one before was accepted"
            reached = {start + done, start + given}
        assert fences == sorted(set(fences)), f"{stream}: two owners had the same fence"
        assert len(ids) in reached, f"{stream} has {len(ids)} entries, of which {reached} were accepted"


@contextlib.asynccontextmanager
async def flowing(url: str, service: str, *urls: str, streams: int = 4, **options: Any) -> AsyncGenerator[Flow]:
    """Clients in `run()`, one for each of `urls`, and the streams that they follow; at the end all is looked at.

    What is written goes to `url`; theirs may lead there through a proxy. Further `options` are those of `Running`.
    """
    flow = Flow(url, service, streams)
    async with contextlib.AsyncExitStack() as stack:
        for theirs in urls:
            client = Running(theirs, service, flow.follow, **options)
            flow.clients.append(await stack.enter_async_context(client))
        async with Redis.from_url(url) as redis:
            await add(redis, service, flow.streams)
        async with flow.written():
            await flow.goes_on()
            yield flow
            await flow.goes_on()
            await flow.end()
        await flow.check()
