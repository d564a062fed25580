"""Following many data streams that are mostly idle: `entries()`, against blocking reads that streams share."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from benchmarks.measure import Row, Work
from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

STREAMS = 10_000
SECONDS = 6.0
RATES = (0, 200, 1_000)
"""Entries a second, each to a stream chosen at random."""


async def follow() -> AsyncIterator[Row]:
    """Redis's own work, and the time from an entry's writing to its arrival. Handlers do not checkpoint here."""
    for rate in RATES:
        for shared in (None, 1_000, 100):
            with Server() as server:
                async with Redis.from_url(server.url) as redis:
                    way = _leases(redis, server.url) if shared is None else _blocking(redis, shared)
                    async with way as late:
                        yield {
                            "way": f"blocking, {shared} each" if shared else "entries()",
                            **await _watch(redis, late, rate),
                        }


async def _watch(redis: Redis, late: list[float], rate: int) -> Row:
    connections = len(await redis.client_list()) - 1
    late.clear()
    before = await Work.of(redis)
    sent, started = 0, time.perf_counter()
    while (gone := time.perf_counter() - started) < SECONDS:
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(int(gone * rate) - sent):
                pipe.xadd(f"call-{random.randrange(STREAMS)}", {"at": time.time()})
                sent += 1
            if pipe.command_stack:
                await pipe.execute()
        await asyncio.sleep(0.005)
    after = await Work.of(redis)
    await wait_until(lambda: len(late) == sent, "all entries arrived")
    seconds = after.at - before.at
    return {
        "entries/s": rate,
        "connections": connections,
        "commands/s": round((after.commands - before.commands - sent) / seconds, 1),
        "redis CPU ms/s": round(1000 * (after.cpu - before.cpu) / seconds, 1),
        "redis CPU us/entry": round(1e6 * (after.cpu - before.cpu) / sent) if sent else "",
        "p50 ms": round(1000 * statistics.median(late), 2) if late else "",
        "p99 ms": round(1000 * statistics.quantiles(late, n=100)[-1], 2) if late else "",
    }


@asynccontextmanager
async def _leases(redis: Redis, url: str) -> AsyncGenerator[list[float]]:
    late: list[float] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            late.append(time.time() - float(entry.fields[b"at"]))  # noqa: PERF401 - it never ends

    await LoadBalancerStream(redis, "bench").add_many([f"call-{i}" for i in range(STREAMS)])
    async with RedisStreamClient.from_url(url, "bench").running(handle, drain_timeout=0):
        await wait_until(lambda: _waiting(redis), "all are followed", 60)
        yield late


async def _waiting(redis: Redis) -> bool:
    return int((await redis.info("stats"))["tracking_total_keys"]) >= STREAMS


@asynccontextmanager
async def _blocking(redis: Redis, shared: int) -> AsyncGenerator[list[float]]:
    late: list[float] = []

    async def lane(names: list[str]) -> None:
        positions = dict.fromkeys(names, "0")
        async with Redis.from_url(_url(redis), socket_timeout=None, decode_responses=True) as connection:
            while True:
                reply: Any = await connection.xread(positions, count=16, block=5000)  # type: ignore[arg-type]
                for name, entries in reply:
                    positions[name] = entries[-1][0]
                    late.extend(time.time() - float(fields["at"]) for _, fields in entries)

    names = [f"call-{i}" for i in range(STREAMS)]
    lanes = [asyncio.create_task(lane(names[at : at + shared])) for at in range(0, STREAMS, shared)]
    try:
        await wait_until(lambda: _blocked(redis, len(lanes)), "all lanes wait")
        yield late
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


async def _blocked(redis: Redis, lanes: int) -> bool:
    return int((await redis.info("clients"))["blocked_clients"]) == lanes


def _url(redis: Redis) -> str:
    settings = redis.connection_pool.connection_kwargs
    return f"redis://{settings['host']}:{settings['port']}"
