"""Clients that `run()` in this process, and what their handlers were given and did."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import Redis

from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient, RedisStreamClientError
from redis_stream_client._model.keys import Keys
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from redis_stream_client._run.handler import Handler
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

RULES = (
    "drain_timeout", "retry", "max_attempts", "progress_timeout", "handle_signals", "on_done", "trim", "rebalance",
    "health_file", "health_port", "health_host",
)  # fmt: skip
"""The parameters of `run()`; all others are the client's."""

END = b"end"
"""The field of a data stream's last entry."""


class Ledger:
    """What handlers were handed and what was accepted of them, whichever client they run in."""

    def __init__(self) -> None:
        self.handed: defaultdict[str, list[str]] = defaultdict(list)
        """The entries' ids by stream, in the order in which they were handed over."""
        self.accepted: defaultdict[str, list[str]] = defaultdict(list)
        """The same of the checkpoints."""

    async def follow(self, lease: Lease) -> None:
        """Handle a stream: checkpoint every entry, and end after the one that says so."""
        async for entry in lease.entries():
            self.handed[lease.stream].append(entry.id)
            await lease.checkpoint(entry.id)
            self.accepted[lease.stream].append(entry.id)
            if END in entry.fields:
                return

    async def follow_in_batches(self, lease: Lease) -> None:
        """The same, with a checkpoint for each batch."""
        async for batch in lease.batches():
            ids = [entry.id for entry in batch]
            self.handed[lease.stream] += ids
            await lease.checkpoint(ids[-1])
            self.accepted[lease.stream] += ids
            if END in batch[-1].fields:
                return

    async def reached(self, entries: Mapping[str, int], *, timeout: float = 10.0) -> None:
        """Wait until of each stream at least so many entries were accepted."""
        await wait_until(
            lambda: all(len(self.accepted[stream]) >= count for stream, count in entries.items()),
            "so many entries are accepted",
            timeout,
        )


@contextlib.asynccontextmanager
async def at_the_end(let_go: Callable[[], object]) -> AsyncGenerator[None]:
    """Let a handler go that would not end by itself, also when the test has failed."""
    try:
        yield
    finally:
        let_go()


async def idle(lease: Lease) -> None:
    """Handle a stream: wait for entries that never come."""
    async for _ in lease.entries():
        pass


class Running:
    """A client in `run()`, in a task of its own; `async with` joins, and closes without a drain.

    The keywords named in `RULES` are arguments of `run()`, all others of `RedisStreamClient`.
    """

    def __init__(self, redis: str | Connection, service: str, handler: Handler = idle, **options: Any) -> None:
        self._rules = {name: options.pop(name) for name in RULES if name in options}
        self.client = (
            RedisStreamClient.from_url(redis, service, **options)
            if isinstance(redis, str)
            else RedisStreamClient(redis, service, **options)
        )
        self._handler = handler
        self.leases: list[Lease] = []
        """Every lease that a handler was called with, in order."""
        self.working: list[str] = []
        """The streams that handlers work on now."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.client.run(self._handle, **self._rules), name="run")
        await wait_until(lambda: self.client.alive or self.task.done(), "it has joined")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.aclose()
        with contextlib.suppress(RedisStreamClientError, asyncio.CancelledError):
            await self.task

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that `run()` runs in."""
        assert self._task is not None, "not started"
        return self._task

    async def _handle(self, lease: Lease) -> None:
        self.leases.append(lease)
        self.working.append(lease.stream)
        try:
            await self._handler(lease)
        finally:
            self.working.remove(lease.stream)

    @property
    def owned(self) -> list[str]:
        """The streams that it owns now, sorted."""
        return sorted(lease.stream for lease in self.client.leases.values())

    async def handles(self, *streams: str, timeout: float = 10.0) -> Self:
        """Wait until handlers work on exactly these streams."""
        wanted = sorted(streams)
        await wait_until(
            lambda: sorted(self.working) == wanted == self.owned, f"{self.client.id} handles {wanted}", timeout
        )
        return self

    async def lease(self, stream: str, *, nth: int = 1) -> Lease:
        """Wait for its handlers' `nth` lease of a stream."""

        def find() -> Lease | None:
            leases = [lease for lease in self.leases if lease.stream == stream]
            return leases[nth - 1] if len(leases) >= nth else None

        return await wait_until(find, f"a handler is called with {stream!r}, for the {nth}. time")


class RunWorker(Worker):
    """A process whose client is in `run()`: the program `run_worker.py` beside this.

    Its events are joined, handling (detail: attempts and position), handed (detail: an entry's id), accepted
    (likewise), refused (likewise), failed (detail: what the handler raised), returned and left.
    """

    program = "tests.harness.run_worker"


async def write(url: str, stream: str, entries: int, *, end: bool = False) -> list[str]:
    """Add entries to a data stream, the last one with the end marker if `end`; returns their ids."""
    ids: list[str] = []
    async with Redis.from_url(url) as redis, redis.pipeline(transaction=False) as pipe:
        for start in range(0, entries, 500):
            for i in range(start, min(entries, start + 500)):
                pipe.xadd(stream, {"n": i, **({END: ""} if end and i == entries - 1 else {})})
            ids += [id.decode() for id in await pipe.execute()]
    return ids


async def record(redis: Connection, service: str, stream: str) -> dict[str, str]:
    """The record of a stream's progress, but for the number of entries that were added to the stream."""
    fields = await redis.hgetall(Keys(service).progress(stream))
    return {name.decode(): value.decode() for name, value in fields.items() if name != b"added"}


async def owners(redis: Connection, service: str) -> dict[str, str]:
    """Who owns which announcement, by Redis."""
    keys = Keys(service)
    entries = await redis.xpending_range(keys.lbs, keys.group, "-", "+", 10_000)
    return {entry["message_id"].decode(): entry["consumer"].decode() for entry in entries}


async def finished(redis: Connection, service: str) -> bool:
    """Whether every announcement is finished."""
    return not await redis.xlen(Keys(service).lbs)


async def dead_letters(redis: Connection, service: str) -> list[dict[str, str]]:
    """The fields of the dead letters, in order."""
    letters = await redis.xrange(Keys(service).dead)
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in letters]


async def add(redis: Connection, service: str, streams: Iterable[str], *, again: bool = False) -> list[str]:
    """Announce streams; returns the announcements' ids."""
    return await LoadBalancerStream(redis, service).add_many(list(streams), again=again)


def loads(runs: Iterable[Running]) -> list[int]:
    """How many streams each of these clients owns."""
    return [len(run.owned) for run in runs]


def even(runs: Iterable[Running], streams: int) -> bool:
    """Whether they own so many streams between them, and none has two more than another."""
    counts = loads(runs)
    return sum(counts) == streams and max(counts) - min(counts) <= 1


async def shared_out(redis: Connection, service: str, runs: Sequence[Running], streams: Sequence[str]) -> None:
    """Announce streams, and wait until these clients own them."""
    await add(redis, service, streams)
    await wait_until(lambda: sum(len(run.working) for run in runs) == len(streams), "all are handled")


class RunningFleet:
    """Clients in `run()` that come and go, with the same handler."""

    def __init__(self, server: Server, service: str, handler: Any = idle, **options: Any) -> None:
        self._client = partial(Running, server.url, service, handler)
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self.all: list[Running] = []
        self.now: list[Running] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def join(self, members: int = 1, **options: Any) -> Sequence[Running]:
        """So many more join, at the same time."""
        joined = [self._client(**{**self._options, **options}) for _ in range(members)]
        await asyncio.gather(*map(self._stack.enter_async_context, joined))
        self.all += joined
        self.now += joined
        return joined

    async def leave(self, run: Running) -> None:
        """One drains."""
        self.now.remove(run)
        run.client.drain()
        await run.task

    def total(self, name: str) -> int:
        """The sum of a figure of all statistics."""
        return sum(getattr(run.client.statistics(), name) for run in self.all)

    @property
    def moves(self) -> int:
        """How often a handler was called."""
        return sum(len(run.leases) for run in self.all)

    async def even(self, streams: int, timeout: float = 30.0) -> None:
        """Wait until the load is even, and every stream has its handler."""
        await wait_until(
            lambda: even(self.now, streams) and sum(len(run.working) for run in self.now) == streams,
            "the load is even",
            timeout,
        )


async def fail_alone(run: Running, redis: Connection, service: str, streams: Iterable[str]) -> None:
    """Announce streams whose handlers fail for good, each while another one progresses: all at once they would
    look like an outage. The handler must return at once from those that are called healthy."""
    for count, stream in enumerate(streams, 1):
        await add(redis, service, [stream])
        await wait_until(lambda: run.client.statistics().dead_letters == count, f"{stream} is buried")  # noqa: B023
        await add(redis, service, [f"healthy-{count}"])
        await wait_until(lambda: run.client.statistics().streams_done == count, "another one progresses")  # noqa: B023


async def calls(redis: Connection, *commands: str) -> int:
    """How often the server has executed these commands, also inside scripts; all but INFO if none is named."""
    stats = await redis.info("commandstats")
    wanted = {f"cmdstat_{command}" for command in commands} or stats.keys() - {"cmdstat_info"}
    return sum(stats[name]["calls"] for name in wanted & stats.keys())


async def all_watched(redis: Connection, streams: int) -> bool:
    """Whether handlers wait for entries of so many streams: these were read, and the server tells of changes."""
    return int((await redis.info("stats"))["tracking_total_keys"]) >= streams


async def connections(redis: Connection) -> int:
    """How many connections the server has, but for the one that asks."""
    return len(await redis.client_list()) - 1
