"""From announcement to handler, when there is one consumer and nothing else to do.

The consumer is a process of its own, the producer another. The announcement carries the time when it was written.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from benchmarks.apart import apart
from benchmarks.scenario import Chart, Scenario
from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamAdded
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.scenario import Contender, Sample
    from redis_stream_client import Lease
    from tests.harness.connection import Connection

SERVICE = "bench"
LBS, GROUP = "bench-input", "bench-group"
PAUSES = (0.002, 0.04)
"""Seconds between two announcements, from the least to the most."""

SETTLING = 1.0
"""Seconds that a consumer has after it began to wait, before the first announcement."""


def contender(way: str) -> Contender:
    """One of the `WAYS` in a process of its own, and a producer here."""

    async def measured(samples: int) -> Sample:
        with Server() as server:
            async with Redis.from_url(server.url) as redis:
                consumer = asyncio.create_task(apart(consume, way=way, url=server.url, samples=samples))
                try:
                    await wait_until(lambda: _waits(redis, consumer), "the consumer waits", 30)
                    await asyncio.sleep(SETTLING)
                    await PRODUCERS.get(way, announce)(redis, server.url, samples)
                    return await consumer
                finally:
                    consumer.cancel()
                    await asyncio.gather(consumer, return_exceptions=True)

    return measured


async def _waits(redis: Connection, consumer: asyncio.Task[Sample]) -> bool:
    return consumer.done() or bool((await redis.info("clients"))["blocked_clients"])


class Arrivals:
    """How late the handlers began."""

    def __init__(self, samples: int) -> None:
        self.late_ms: list[float] = []
        self.all = asyncio.Event()
        self._samples = samples

    def began(self, announced: float) -> None:
        """A handler begins to work on a stream that was announced then."""
        self.late_ms.append(1000 * (time.time() - announced))
        if len(self.late_ms) == self._samples:
            self.all.set()


async def consume(way: str, url: str, samples: int) -> Sample:
    """Handle so many streams."""
    arrivals = Arrivals(samples)
    await WAYS[way](url, arrivals)
    return {
        "p50 ms": statistics.median(arrivals.late_ms),
        "p99 ms": statistics.quantiles(arrivals.late_ms, n=100, method="inclusive")[-1],
        "most ms": max(arrivals.late_ms),
    }


# Producers.


async def announce(redis: Connection, _url: str, samples: int) -> None:
    """One stream at a time."""
    lbs = LoadBalancerStream(redis, SERVICE)
    for i in range(samples):
        await asyncio.sleep(random.uniform(*PAUSES))
        await lbs.add(f"call-{i}", {"at": time.time()})


async def enqueue(_redis: Connection, url: str, samples: int) -> None:
    """The same with streaq."""
    from streaq import Worker

    worker = Worker[None](url)
    trivial = worker.task(name="trivial")(_never)
    async with worker:
        for _ in range(samples):
            await asyncio.sleep(random.uniform(*PAUSES))
            await trivial.enqueue(time.time())


async def _never(_at: float) -> None:
    """What the producer calls the task; it runs in the consumer."""


PRODUCERS: dict[str, Callable[[Connection, str, int], Awaitable[None]]] = {"streaq": enqueue}

# Consumers.


async def run(url: str, arrivals: Arrivals) -> None:
    """This library as most use it."""

    async def handle(lease: Lease) -> None:
        assert lease.info is not None
        arrivals.began(lease.info["at"])

    async with RedisStreamClient.from_url(url, SERVICE).running(handle):
        await arrivals.all.wait()


async def events(url: str, arrivals: Arrivals) -> None:
    """This library's events, a task for each stream."""

    async def handle(lease: Lease) -> None:
        assert lease.info is not None
        arrivals.began(lease.info["at"])
        await lease.done()

    async with RedisStreamClient.from_url(url, SERVICE) as client, asyncio.TaskGroup() as tasks:
        while not arrivals.all.is_set():
            event = await anext(client.events())
            assert isinstance(event, StreamAdded)
            await asyncio.wait((tasks.create_task(handle(event.payload)),))


async def bare(url: str, arrivals: Arrivals) -> None:
    """`XREADGROUP` with `BLOCK`, a task for each entry, `XACK` and `XDEL` in a pipeline."""
    async with Redis.from_url(url) as redis, asyncio.TaskGroup() as tasks:

        async def handle(entry_id: bytes, fields: dict[bytes, bytes]) -> None:
            arrivals.began(json.loads(fields[b"lbs-input"])["Info"]["at"])
            async with redis.pipeline(transaction=False) as pipe:
                pipe.xack(LBS, GROUP, entry_id)
                pipe.xdel(LBS, entry_id)
                await pipe.execute()

        await redis.xgroup_create(LBS, GROUP, "0", mkstream=True)
        while not arrivals.all.is_set():
            reply: Any = await redis.xreadgroup(GROUP, "me", {LBS: ">"}, count=32, block=1000)
            for entry_id, fields in reply[0][1] if reply else ():
                tasks.create_task(handle(entry_id, fields))


async def streaq(url: str, arrivals: Arrivals) -> None:
    """The worker of streaq with its default settings."""
    from streaq import Worker

    async def trivial(at: float) -> None:
        arrivals.began(at)

    worker = Worker[None](url, handle_signals=False)
    worker.task(name="trivial")(trivial)
    working = asyncio.create_task(worker.run_async())
    await arrivals.all.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


WAYS: dict[str, Callable[[str, Arrivals], Awaitable[None]]] = {
    "run": run,
    "events": events,
    "bare": bare,
    "streaq": streaq,
}

SCENARIO = Scenario(
    name="latency",
    title="a lone consumer: from announcement to handler",
    contenders={
        "run()": contender("run"),
        "events()": contender("events"),
        "bare XREADGROUP BLOCK": contender("bare"),
        "streaq": contender("streaq"),
    },
    cases=({"samples": 300},),
    ratio="p50 ms",
    charts=(Chart("p50 ms", over="samples", log=False), Chart("p99 ms", over="samples", log=False)),
    timeout=90,
)
