"""Assigning and finishing streams, a task for each, in one process: what ownership costs where there is no work.

Each contender drains a backlog of announcements in a fresh process. The bare loop is the bound: it owns nothing,
and acknowledges in bulk.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection

from benchmarks.apart import contender
from benchmarks.measure import Work
from benchmarks.scenario import Chart, Scenario
from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamAdded
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from benchmarks.scenario import Sample
    from redis_stream_client import Lease
    from tests.harness.connection import Connection

SERVICE = "bench"
LBS, GROUP = "bench-input", "bench-group"
COUNT = 32
"""Entries that the hand-written loops read at once."""

AT_ONCE = 256
"""Tasks that the hand-written loops have at work at most."""

CONNECTIONS = 32
"""Connections of their pools."""

DONE = """
for i = 2, #ARGV do redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]); redis.call('XDEL', KEYS[1], ARGV[i]) end
"""


async def drain(way: str, streams: int, *, again: bool = False) -> Sample:
    """Announce, then have one of the `WAYS` take and finish all. Connecting and joining are part of it.

    With `again`, by plain `XADD`, so that nothing of this library knows what is announced.
    """
    with Server() as server:
        async with Redis.from_url(server.url) as redis:
            await prepare(redis, server.url, way, streams, again=again)
            before, sent = await Work.of(redis), count_sent()
            cpu, started = time.process_time(), time.perf_counter()
            async with WAYS[way](redis, server.url, streams):
                seconds, cpu, [commands] = time.perf_counter() - started, time.process_time() - cpu, sent
                after = await Work.of(redis)
                left = sum([await redis.xlen(key) async for key in redis.scan_iter(_type="stream")])
    return {
        "streams/s": streams / seconds,
        "client us/stream": 1e6 * cpu / streams,
        "redis us/stream": 1e6 * (after.cpu - before.cpu) / streams,
        **({} if way == "streaq" else {"sent/stream": commands / streams}),  # it has another way to the wire
        "executed/stream": (after.commands - before.commands) / streams,
        "left": left,
    }


def count_sent() -> list[int]:
    """A count of the commands that this process sends from now on, by what packs them: redis-py's way and ours."""
    count = [0]

    def counted(pack: Callable[..., Any]) -> Callable[..., Any]:
        def packed(*arguments: Any) -> Any:
            count[0] += 1
            return pack(*arguments)

        return packed

    AbstractConnection.pack_command = counted(AbstractConnection.pack_command)  # type: ignore[method-assign]
    hiredis.pack_command = counted(hiredis.pack_command)
    return count


async def prepare(redis: Connection, url: str, way: str, streams: int, *, again: bool) -> None:
    """The backlog, as the contender's own producers write it."""
    if way == "streaq":
        from streaq import Worker  # imported by its own contender only

        worker = Worker[None](url)
        trivial = worker.task(name="trivial")(_trivial)
        async with worker:
            await worker.enqueue_many([trivial.enqueue(f"call-{i}") for i in range(streams)])
        return
    await LoadBalancerStream(redis, SERVICE).add_many([f"call-{i}" for i in range(streams)], again=again)
    if way not in ("run", "events"):
        await redis.xgroup_create(LBS, GROUP, "0")
    if way == "take over":
        await redis.xreadgroup(GROUP, "dead", {LBS: ">"}, count=streams)


async def _trivial(_stream: str) -> None:
    pass


# This library.


@asynccontextmanager
async def run(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """A handler that returns at once."""

    async def handle(_lease: Lease) -> None:
        pass

    client = RedisStreamClient.from_url(url, SERVICE)
    async with client.running(handle):
        await wait_until(lambda: client.statistics().streams_done == streams, "all are done", 120)
        yield


@asynccontextmanager
async def events(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """The events interface, a task for each stream."""
    async with RedisStreamClient.from_url(url, SERVICE, prefetch=256) as client:
        tasks: list[asyncio.Task[None]] = []
        async for event in client.events():
            assert isinstance(event, StreamAdded)
            tasks.append(asyncio.create_task(event.payload.done()))
            if len(tasks) == streams:
                break
        await asyncio.gather(*tasks)
        yield


@asynccontextmanager
async def take_over(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """All are pending for a consumer that is dead already. Nothing is finished: the handlers wait."""
    begun = 0

    async def handle(_lease: Lease) -> None:
        nonlocal begun
        begun += 1
        await asyncio.get_running_loop().create_future()

    async with RedisStreamClient.from_url(url, SERVICE).running(handle):
        await wait_until(lambda: begun == streams, "all are taken", 60)
        yield


# Peers.


@asynccontextmanager
async def bare(redis: Connection, _url: str, streams: int) -> AsyncGenerator[None]:
    """`XREADGROUP`, a task for each stream, and many acknowledgements in one script call. Nobody owns anything."""
    script = redis.register_script(DONE)
    finished: list[bytes] = []

    async def handle(entry_id: bytes) -> None:
        finished.append(entry_id)

    async with Redis(connection_pool=redis.connection_pool, single_connection_client=True) as single:
        got = 0
        while got < streams:
            reply: Any = await single.xreadgroup(GROUP, "me", {LBS: ">"}, count=COUNT)
            entries = reply[0][1]
            got += len(entries)
            await asyncio.gather(*(asyncio.create_task(handle(entry_id)) for entry_id, _ in entries))
            if len(finished) >= AT_ONCE - COUNT or got == streams:
                await script(keys=[LBS], args=[GROUP, *finished], client=single)
                finished.clear()
        yield


@asynccontextmanager
async def polling(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """The usual hand-written consumer: `XREADGROUP`, a task for each entry, `XACK` and `XDEL` in a pipeline.

    As redis-py's documentation has it. Its other half, `XAUTOCLAIM` of what was idle for a second, is asked once a
    second, and finds nothing here.
    """
    left, room = streams, asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)

    async with Redis.from_pool(pool) as redis:

        async def handle(entry_id: bytes, fields: dict[bytes, bytes]) -> None:
            nonlocal left
            try:
                assert json.loads(fields[b"lbs-input"])["DataStreamName"]
                async with redis.pipeline(transaction=False) as pipe:
                    pipe.xack(LBS, GROUP, entry_id)
                    pipe.xdel(LBS, entry_id)
                    await pipe.execute()
                left -= 1
            finally:
                room.release()

        async def claim() -> None:
            while True:
                await asyncio.sleep(1)
                await redis.xautoclaim(LBS, GROUP, "me", min_idle_time=1000, count=COUNT)

        claiming = asyncio.create_task(claim())
        while left:
            reply: Any = await redis.xreadgroup(GROUP, "me", {LBS: ">"}, count=COUNT, block=1 if tasks else 1000)
            for entry_id, fields in reply[0][1] if reply else ():
                await room.acquire()
                task = asyncio.create_task(handle(entry_id, fields))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        claiming.cancel()
        yield


@asynccontextmanager
async def locks(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """A redis-py `Lock` for each stream, extended by a task of its own, as `redis-stream-client-go` has it.

    As redis-py's documentation of `Lock` has it: a lifetime, no waiting, `extend` at a third of the lifetime.
    """
    left, room = streams, asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)

    async with Redis.from_pool(pool) as redis:

        async def extend(lock: Any) -> None:
            while True:
                await asyncio.sleep(0.6)
                await lock.extend(2.0, replace_ttl=True)

        async def handle(entry_id: bytes, fields: dict[bytes, bytes]) -> None:
            nonlocal left
            try:
                stream = json.loads(fields[b"lbs-input"])["DataStreamName"]
                lock = redis.lock(f"lock:{stream}", timeout=2.0, blocking=False, thread_local=False)
                assert await lock.acquire()
                extending = asyncio.create_task(extend(lock))
                try:
                    await redis.xack(LBS, GROUP, entry_id)
                    await redis.xdel(LBS, entry_id)
                finally:
                    extending.cancel()
                    await lock.release()
                left -= 1
            finally:
                room.release()

        while left:
            reply: Any = await redis.xreadgroup(GROUP, "me", {LBS: ">"}, count=COUNT, block=1 if tasks else 1000)
            for entry_id, fields in reply[0][1] if reply else ():
                await room.acquire()
                task = asyncio.create_task(handle(entry_id, fields))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        yield


@asynccontextmanager
async def streaq(_redis: Connection, url: str, streams: int) -> AsyncGenerator[None]:
    """The worker of streaq with a task that does nothing, at the concurrency of its own benchmarks, 32."""
    from streaq import Worker

    worker = Worker[None](url, concurrency=32, handle_signals=False)
    worker.task(name="trivial")(_trivial)
    working = asyncio.create_task(worker.run_async())
    await wait_until(lambda: worker.counters["completed"] == streams or working.done(), "all are completed", 240)
    yield
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


WAYS = {
    "run": run,
    "events": events,
    "take over": take_over,
    "bare": bare,
    "polling": polling,
    "locks": locks,
    "streaq": streaq,
}

SCENARIO = Scenario(
    name="throughput",
    title="assign and finish, a task per stream, one process",
    contenders={
        "run()": contender(drain, way="run"),
        "run(), uvloop": contender(drain, "uvloop", way="run"),
        "events()": contender(drain, way="events"),
        "bare loop": contender(drain, way="bare"),
        "bare loop, uvloop": contender(drain, "uvloop", way="bare"),
        "XAUTOCLAIM": contender(drain, way="polling"),
        "lock per stream": contender(drain, way="locks"),
        "streaq": contender(drain, way="streaq"),
    },
    cases=({"streams": 20_000},),
    ratio="streams/s",
    charts=(Chart("streams/s", over="streams", log=False),),
)
