"""10,000 streams in `run()`: what dead and draining members leave, and who gets it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_stream_client import LoadBalancerStream
from redis_stream_client.keys import Keys
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from benchmarks.measure import Row

STREAMS = 10_000
PEERS = 4
KEYS = Keys("bench")


async def handover() -> AsyncIterator[Row]:
    """The holder is killed while four peer processes run; then one of these is drained by SIGTERM."""
    with Server() as server, contextlib.ExitStack() as members:
        async with Redis.from_url(server.url) as redis:
            holder = members.enter_context(_member(server.url))
            await LoadBalancerStream(redis, "bench").add_many([f"call-{i}" for i in range(STREAMS)])
            await wait_until(lambda: _owned(redis, 1), "held", 60)
            [consumer] = await _owners(redis)
            peers = [members.enter_context(_member(server.url)) for _ in range(PEERS)]
            await wait_until(lambda: _joined(redis, PEERS + 1), "the peers have joined", 60)
            await asyncio.sleep(3.0)  # interpreters start up, and the peers learn of each other
            yield await _recover(redis, "SIGKILL of the holder", holder, consumer)
            await asyncio.sleep(3.0)
            yield await _recover(redis, "SIGTERM of a peer", peers[0], None)


async def _recover(redis: Redis, what: str, member: subprocess.Popen[bytes], consumer: str | None) -> Row:
    before = await _claims(redis)
    owned = sum((await _owners(redis)).values())
    members = len(await _owners(redis))
    member.send_signal(signal.SIGTERM if consumer is None else signal.SIGKILL)
    since = time.time()
    if consumer is not None:
        since += await redis.pttl(KEYS.lock(consumer)) / 1000
    left = members - 1 if consumer is None else PEERS
    await wait_until(lambda: _owned(redis, left, owned), "recovered", 60)
    seconds = time.time() - since
    shares = (await _owners(redis)).values()
    moved = owned if consumer is not None else owned // members
    return {
        "what": what,
        "streams moved": moved,
        "all owned after s": round(seconds, 3),
        "claims/stream": round((await _claims(redis) - before) / moved, 3),
        "most / least": round(max(shares) / min(shares), 2),
    }


async def _claims(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_xclaim", {"calls": 0})["calls"])


async def _owners(redis: Redis) -> dict[str, int]:
    try:
        consumers = await redis.xinfo_consumers(KEYS.lbs, KEYS.group)
    except ResponseError:  # there is no group yet
        return {}
    return {member["name"].decode(): member["pending"] for member in consumers if member["pending"]}


async def _owned(redis: Redis, members: int, streams: int = STREAMS) -> bool:
    """Whether so many members, all of them alive, own all streams."""
    owners = await _owners(redis)
    if len(owners) != members or sum(owners.values()) != streams:
        return False
    return await redis.exists(*map(KEYS.lock, owners)) == members


async def _joined(redis: Redis, members: int) -> bool:
    return len([key async for key in redis.scan_iter(match=KEYS.lock("*"), count=10_000)]) == members


@contextlib.contextmanager
def _member(url: str) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.member", url, "bench"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
