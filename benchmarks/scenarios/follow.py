"""Following many data streams that are mostly idle: `entries()`, against blocking reads that streams share.

An entry carries the time when it was written. Handlers do not checkpoint here.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from benchmarks.measure import Work
from benchmarks.scenario import Chart, Scenario
from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from benchmarks.scenario import Contender, Sample
    from tests.harness.connection import Connection

    Way = Callable[[Connection, str, int], AbstractAsyncContextManager[list[float]]]

SECONDS = 4.0

SETTLING = 7.0
"""Seconds before that. A handler that has waited for some has its attempt taken back, once: that is over then."""

COUNT = 16
"""Entries of each stream that a shared blocking read brings."""


def contender(way: Way) -> Contender:
    """One way to follow them, and how late it is."""

    async def measured(streams: int, **case: int) -> Sample:
        with Server() as server:
            async with Redis.from_url(server.url) as redis, way(redis, server.url, streams) as late:
                return await watch(redis, late, streams, case["entries/s"])

    return measured


async def watch(redis: Connection, late: list[float], streams: int, rate: int) -> Sample:
    """Write entries to streams chosen at random, for some seconds. The writing is not counted as commands."""
    connections = len(await redis.client_list()) - 1
    late.clear()
    before = await Work.of(redis)
    sent, started = 0, time.perf_counter()
    while (gone := time.perf_counter() - started) < SECONDS:
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(int(gone * rate) - sent):
                pipe.xadd(f"call-{random.randrange(streams)}", {"at": time.time()})
                sent += 1
            if len(pipe):
                await pipe.execute()
        await asyncio.sleep(0.005)
    after = await Work.of(redis)
    await wait_until(lambda: len(late) == sent, "all entries arrived", 30)
    seconds = after.at - before.at
    measured = {
        "connections": connections,
        "commands/s": (after.commands - before.commands - sent) / seconds,
        "redis CPU ms/s": 1000 * (after.cpu - before.cpu) / seconds,
    }
    if sent:
        measured["redis us/entry"] = 1e6 * (after.cpu - before.cpu) / sent
        measured["p50 ms"] = 1000 * statistics.median(late)
        measured["p99 ms"] = 1000 * statistics.quantiles(late, n=100, method="inclusive")[-1]
    return measured


@asynccontextmanager
async def leases(redis: Connection, url: str, streams: int) -> AsyncGenerator[list[float]]:
    """`entries()` in `run()`."""
    late: list[float] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            late.append(time.time() - float(entry.fields[b"at"]))  # noqa: PERF401 - it never ends

    async def followed() -> bool:
        return int((await redis.info("stats"))["tracking_total_keys"]) >= streams

    await LoadBalancerStream(redis, "bench").add_many([f"call-{i}" for i in range(streams)])
    async with RedisStreamClient.from_url(url, "bench").running(handle, drain_timeout=0):
        await wait_until(followed, "all are followed", 60)
        await asyncio.sleep(SETTLING)
        yield late


def blocking(shared: int) -> Way:
    """`XREAD` with `BLOCK`, a connection for so many streams."""

    @asynccontextmanager
    async def way(redis: Connection, url: str, streams: int) -> AsyncGenerator[list[float]]:
        late: list[float] = []

        async def lane(names: list[str]) -> None:
            positions: dict[Any, Any] = dict.fromkeys(names, "0")
            async with Redis.from_url(url, socket_timeout=None, decode_responses=True) as connection:
                while True:
                    reply: Any = await connection.xread(positions, count=COUNT, block=5000)
                    for name, entries in reply:
                        positions[name] = entries[-1][0]
                        late.extend(time.time() - float(fields["at"]) for _, fields in entries)

        async def blocked() -> bool:
            return int((await redis.info("clients"))["blocked_clients"]) == len(lanes)

        names = [f"call-{i}" for i in range(streams)]
        lanes = [asyncio.create_task(lane(names[at : at + shared])) for at in range(0, streams, shared)]
        try:
            await wait_until(blocked, "all lanes wait")
            yield late
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    return way


SCENARIO = Scenario(
    name="follow",
    title="data streams that are mostly idle, one process",
    contenders={
        "entries()": contender(leases),
        "blocking, 1,000 each": contender(blocking(1_000)),
        "blocking, 100 each": contender(blocking(100)),
    },
    cases=({"streams": 10_000, "entries/s": 0}, {"streams": 10_000, "entries/s": 1_000}),
    deep=({"streams": 10_000, "entries/s": 200},),
    ratio="redis CPU ms/s",
    charts=(Chart("redis CPU ms/s", over="entries/s"), Chart("p50 ms", over="entries/s")),
    timeout=120,
)
