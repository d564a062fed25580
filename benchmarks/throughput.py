"""Assigning and finishing streams, one task each, against a bare loop without any ownership."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from benchmarks.measure import Row, Work
from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient, StreamAdded
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STREAMS = 20_000
WAYS = {"_bare": "bare loop", "_leases": "events()", "_run": "run()"}
DONE = """
for i = 2, #ARGV do redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]); redis.call('XDEL', KEYS[1], ARGV[i]) end
"""


async def throughput() -> AsyncIterator[Row]:
    """Both drain the same backlog, by turns, on one server."""
    with Server() as server:
        async with Redis.from_url(server.url) as redis:
            for way in (_bare, _leases, _run):
                await LoadBalancerStream(redis, way.__name__).add_many([f"call-{i}" for i in range(STREAMS)])
                before, cpu = await Work.of(redis), time.process_time()
                started = time.perf_counter()
                await way(redis, server.url)
                seconds = time.perf_counter() - started
                after, cpu = await Work.of(redis), time.process_time() - cpu
                yield {
                    "way": WAYS[way.__name__],
                    "streams/s": round(STREAMS / seconds),
                    "client CPU us/stream": round(1e6 * cpu / STREAMS, 1),
                    "redis CPU us/stream": round(1e6 * (after.cpu - before.cpu) / STREAMS, 1),
                }


async def _leases(redis: Redis, url: str) -> None:
    async with RedisStreamClient.from_url(url, "_leases", prefetch=256) as client:
        tasks: list[asyncio.Task[None]] = []
        async for event in client.events():
            assert isinstance(event, StreamAdded)
            tasks.append(asyncio.create_task(event.payload.done()))
            if len(tasks) == STREAMS:
                break
        await asyncio.gather(*tasks)


async def _run(redis: Redis, url: str) -> None:
    left = STREAMS

    async def handle(lease: Lease) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            client.drain()

    client = RedisStreamClient.from_url(url, "_run")
    await client.run(handle)


async def _bare(redis: Redis, url: str) -> None:
    """`XREADGROUP` with `COUNT 32`, a task for each stream, and many acknowledgements in one script call."""
    await redis.xgroup_create("_bare-input", "_bare-group", "0")
    script = redis.register_script(DONE)
    finished: list[bytes] = []

    async def handle(entry_id: bytes) -> None:
        finished.append(entry_id)

    got = 0
    while got < STREAMS:
        reply: Any = await redis.xreadgroup("_bare-group", "me", {"_bare-input": ">"}, count=32)
        entries = reply[0][1]
        got += len(entries)
        await asyncio.gather(*(asyncio.create_task(handle(entry_id)) for entry_id, _ in entries))
        if len(finished) >= 224 or got == STREAMS:
            await script(keys=["_bare-input"], args=["_bare-group", *finished])
            finished.clear()
