"""Reading the entries of data streams and storing after each how far one has got, in one process.

The entries are there when the reading begins. The checkpoints of this library are fenced, and a script decides on
each; those of the hand-written loops are not. Each contender waits for each of its checkpoints before it goes on:
"XREAD + HSET" stores as many as "run()" does, and "XREAD + HSET a read" as many as "run(), batches".
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.apart import contender
from benchmarks.measure import Work
from benchmarks.scenario import Chart, Scenario
from redis_stream_client import LoadBalancerStream, RedisStreamClient
from tests.harness.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.scenario import Sample
    from redis_stream_client import Lease
    from tests.harness.connection import Connection

SERVICE = "bench"
GROUP = "bench-group"
COUNT = 100
"""Entries that the hand-written loops read at once, and that a batch has at most."""

CONNECTIONS = 100
"""Connections of their pool: as many as redis-py's own has at most, but they wait for one instead of failing."""

SHARED = 10
"""Entries between two checkpoints, for those that do not store each."""


async def process(way: str, streams: int, each: int) -> Sample:
    """Have one of the `WAYS` go through all entries."""
    names = [f"call-{i}" for i in range(streams)]
    with Server() as server:
        async with Redis.from_url(server.url) as redis:
            await write(redis, names, each)
            before = await Work.of(redis)
            cpu, started = time.process_time(), time.perf_counter()
            handed = await WAYS[way](server.url, names, each)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            after = await Work.of(redis)
            connections = (await redis.info("stats"))["total_connections_received"]
    entries = streams * each
    return {
        "entries/s": entries / seconds,
        "client us/entry": 1e6 * cpu / entries,
        "redis us/entry": 1e6 * (after.cpu - before.cpu) / entries,
        "executed/entry": (after.commands - before.commands) / entries,
        "connections": connections,
        "lost": entries - handed,
    }


async def write(redis: Connection, names: list[str], each: int) -> None:
    """Small entries, in every stream the same number."""
    for name in names:
        for start in range(0, each, 1_000):
            async with redis.pipeline(transaction=False) as pipe:
                for i in range(start, min(each, start + 1_000)):
                    pipe.xadd(name, {"n": i, "text": "some forty bytes of a small entry's text"})
                await pipe.execute()


# This library.


async def checkpoint_each(url: str, names: list[str], each: int) -> int:
    """A checkpoint after every entry."""
    return await _follow(url, names, each, every=1)


async def checkpoint_some(url: str, names: list[str], each: int) -> int:
    """A checkpoint after some."""
    return await _follow(url, names, each, every=SHARED)


async def batches(url: str, names: list[str], each: int) -> int:
    """A checkpoint after each batch."""

    async def follow(lease: Lease) -> int:
        got = 0
        async for batch in lease.batches(max_entries=COUNT):
            for _ in batch:
                got += 1
            await lease.checkpoint(batch[-1].id)
            if got == each:
                break
        return got

    return await _run(url, names, each, follow)


async def _follow(url: str, names: list[str], each: int, every: int) -> int:
    async def follow(lease: Lease) -> int:
        got = 0
        async for entry in lease.entries():
            got += 1
            if got % every == 0:
                await lease.checkpoint(entry.id)
            if got == each:
                break
        return got

    return await _run(url, names, each, follow)


async def _run(url: str, names: list[str], each: int, follow: Callable[[Lease], Awaitable[int]]) -> int:
    handed = left = len(names) * each
    all_done = asyncio.Event()

    async def handle(lease: Lease) -> None:
        nonlocal left
        got = await follow(lease)
        left -= got
        if not left:
            all_done.set()

    async with Redis.from_url(url) as redis:
        await LoadBalancerStream(redis, SERVICE).add_many(names)
    async with RedisStreamClient.from_url(url, SERVICE).running(handle):
        await all_done.wait()
    return handed - left


# Peers: a loop for each stream, and one redis-py client for all of them.


async def read_and_store(url: str, names: list[str], each: int) -> int:
    """`XREAD`, and a plain `HSET` of the position after every entry, which nothing fences."""
    return await _each(url, names, functools.partial(_read_and_store, each=each, every_entry=True))


async def read_and_store_once(url: str, names: list[str], each: int) -> int:
    """`XREAD`, and the `HSET` after all that it brought."""
    return await _each(url, names, functools.partial(_read_and_store, each=each, every_entry=False))


async def _read_and_store(redis: Connection, name: str, *, each: int, every_entry: bool) -> int:
    position, got = "0", 0
    while got < each:
        reply: Any = await redis.xread({name: position}, count=COUNT, block=1000)
        for entry_id, _ in [entry for _, entries in reply for entry in entries]:
            got += 1
            position = entry_id
            if every_entry:
                await redis.hset(f"position:{name}", "id", entry_id)
        if not every_entry:
            await redis.hset(f"position:{name}", "id", position)
    return got


async def acknowledge(url: str, names: list[str], each: int) -> int:
    """`XREADGROUP`, and `XACK` after every entry."""

    async def follow(redis: Connection, name: str) -> int:
        got = 0
        await redis.xgroup_create(name, GROUP, "0")
        while got < each:
            reply: Any = await redis.xreadgroup(GROUP, "me", {name: ">"}, count=COUNT, block=1000)
            for entry_id, _ in [entry for _, entries in reply for entry in entries]:
                got += 1
                await redis.xack(name, GROUP, entry_id)
        return got

    return await _each(url, names, follow)


async def _each(url: str, names: list[str], follow: Callable[[Connection, str], Awaitable[int]]) -> int:
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)
    async with Redis.from_pool(pool) as redis:
        return sum(await asyncio.gather(*(follow(redis, name) for name in names)))


WAYS: dict[str, Callable[[str, list[str], int], Awaitable[int]]] = {
    "checkpoint each": checkpoint_each,
    "checkpoint some": checkpoint_some,
    "batches": batches,
    "read and store": read_and_store,
    "read and store once": read_and_store_once,
    "acknowledge": acknowledge,
}

SCENARIO = Scenario(
    name="entries",
    title="entries read and checkpointed, one process",
    contenders={
        "run()": contender(process, way="checkpoint each"),
        "run(), uvloop": contender(process, "uvloop", way="checkpoint each"),
        f"run(), every {SHARED}th": contender(process, way="checkpoint some"),
        "run(), batches": contender(process, way="batches"),
        "XREAD + HSET": contender(process, way="read and store"),
        "XREAD + HSET a read": contender(process, way="read and store once"),
        "XREADGROUP + XACK": contender(process, way="acknowledge"),
    },
    cases=({"streams": 1, "each": 20_000}, {"streams": 1_000, "each": 50}),
    ratio="entries/s",
    charts=(Chart("entries/s", over="streams"),),
    timeout=120,
)
