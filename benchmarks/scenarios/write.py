"""Writing entries to 100 data streams from one process: one at a time, and many together.

`write()` makes sure that each stream is announced; a bare ``XADD`` does not. By hand that is an ``XADD`` and then
`add()`, which finds the stream announced. "Alone" is the time of one call after the other; "together" the
entries/s of 10,000 entries, for `XADD` in pipelines of 250 commands. Nobody finishes a stream meanwhile.
"""

from __future__ import annotations

import functools
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis, RedisCluster

from benchmarks.apart import apart
from benchmarks.measure import Work
from benchmarks.scenario import Scenario
from redis_stream_client import LoadBalancerStream
from tests.harness.cluster import start_cluster
from tests.harness.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenario import Sample
    from tests.harness.connection import Connection

SERVICE = "bench"
STREAMS = 100
ALONE = 2_000
TOGETHER = 10_000
PIPELINE = 250
FIELDS: dict[str, Any] = {"n": 1, "text": "some forty bytes of a small entry's text"}


class Write:
    """This library."""

    def __init__(self, redis: Connection) -> None:
        self.redis = redis
        self.lbs = LoadBalancerStream(redis, SERVICE)

    async def one(self, stream: str) -> None:
        """An entry."""
        await self.lbs.write(stream, FIELDS)

    async def many(self, streams: list[str]) -> None:
        """An entry for each."""
        await self.lbs.write_many([(stream, FIELDS) for stream in streams])


class Bare(Write):
    """An entry that wakes nobody."""

    async def one(self, stream: str) -> None:
        """An entry."""
        await self.redis.xadd(stream, FIELDS)

    async def many(self, streams: list[str]) -> None:
        """An entry for each."""
        for start in range(0, len(streams), PIPELINE):
            async with self.redis.pipeline(transaction=False) as pipe:
                for stream in streams[start : start + PIPELINE]:
                    pipe.xadd(stream, FIELDS)
                await pipe.execute()


class ByHand(Bare):
    """An entry, and then the look whether its stream is announced."""

    async def one(self, stream: str) -> None:
        """An entry."""
        await super().one(stream)
        await self.lbs.add(stream)

    async def many(self, streams: list[str]) -> None:
        """An entry for each."""
        await super().many(streams)
        await self.lbs.add_many(streams)


WAYS: dict[str, Callable[[Connection], Write]] = {"write": Write, "bare": Bare, "by hand": ByHand}


async def measure(way: str, servers: str) -> Sample:
    """Write in one of the `WAYS`, on one server or in a cluster of three."""
    with ExitStack() as stack:
        redis: Connection
        if servers == "one":
            redis = Redis.from_url(stack.enter_context(Server()).url)
        else:
            redis = RedisCluster.from_url(stack.enter_context(start_cluster()).url)
        async with redis:
            writer = WAYS[way](redis)
            names = [f"call-{i}" for i in range(STREAMS)]
            for name in names:
                await writer.one(name)
            before = await Work.of(redis) if servers == "one" else None
            took: list[float] = []
            for i in range(ALONE):
                began = time.perf_counter()
                await writer.one(names[i % STREAMS])
                took.append(1e6 * (time.perf_counter() - began))
            after = await Work.of(redis) if servers == "one" else None
            many = [names[i % STREAMS] for i in range(TOGETHER)]
            began = time.perf_counter()
            await writer.many(many)
            seconds = time.perf_counter() - began
    sample = {
        "alone p50 us": statistics.median(took),
        "alone p99 us": statistics.quantiles(took, n=100)[98],
        "together entries/s": TOGETHER / seconds,
    }
    if before is not None and after is not None:
        sample["alone redis us"] = 1e6 * (after.cpu - before.cpu) / ALONE
    return sample


def contender(way: str) -> Callable[..., Any]:
    """One of the `WAYS`, in a process of its own."""
    return functools.partial(apart, measure, way=way)


SCENARIO = Scenario(
    name="write",
    title="entries that are written, and their streams announced",
    contenders={
        "write()": contender("write"),
        "XADD + add()": contender("by hand"),
        "XADD alone": contender("bare"),
    },
    cases=({"servers": "one"}, {"servers": "cluster"}),
    ratio="alone p50 us",
    timeout=120,
)
