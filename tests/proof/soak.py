"""The soak: very many streams through one process of a fleet with churn; whatever they took must come back.

`python -m tests.proof.soak [--streams N]`, or `nox -s soak`, prints a row for each wave of streams and exits
with 1 when something was left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import psutil
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient
from redis_stream_client._model.keys import NOBODY, Keys
from tests.harness.loops import loop_factory
from tests.harness.run_worker import Program
from tests.harness.runs import RunWorker, connections, finished
from tests.harness.servers import Server
from tests.harness.waiting import stop, wait_until
from tests.proof.chaos.watch import oldest_unread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.harness.connection import Connection

SERVICE = "soak"
LOCK_TTL = 0.5
PEERS = 2
PEERS_ROOM = 40
"""`max_streams` of the peers: most streams are for the process that is watched."""
WAVES = 10
SLICE = 500
FAILS = 20
"""Every so many streams, the handler fails at its first attempt."""
LIVELY = 6 * LOCK_TTL
"""Seconds in which an announcement is read, and then finished, or taken by another: a process that is killed, or a
handler that fails, costs about two lifetimes of a lock."""
FRAGMENTS = 6_000_000
"""What the process may grow by whatever it does: the longest backlog so far has left holes."""
BYTES_PER_STREAM = 40
"""What the process may grow by for each stream that went through it: allocators never give all back."""


class Peer(RunWorker):
    """A process of the fleet beside the one that is watched: this module, called with a setup."""

    program = "tests.proof.soak"


class PeerProgram(Program):
    """What such a process runs."""

    async def handle(self, lease: Lease) -> None:
        """Follow the stream as the watched process does, and report nothing."""
        await follow(lease)


async def follow(lease: Lease) -> None:
    """Handle a stream; its end is not checkpointed, so that who takes over from here sees it, too."""
    async for entry in lease.entries():
        if b"end" in entry.fields:
            return
        await lease.checkpoint(entry.id)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one process, and its service on the server, take up while no stream is held."""

    streams: int
    """Streams that went through the process so far."""
    seconds: float
    rss: int
    """Resident bytes of the process."""
    objects: int
    """Objects that the garbage collector knows."""
    tasks: int
    connections: int
    """The server's, of everybody."""
    consumers: int
    """The group's, but for `nobody`."""
    keys: int
    """The server's, once the data streams are deleted and the finished streams' records have expired."""
    undying: int
    """Records of finished streams that would never expire."""
    waited: float
    """Seconds for which an announcement was not read, or was left with its owner, at the most so far."""
    late: float = 0.0
    """Seconds by which whoever looked at that came late itself, at the most so far: the machine was busy."""


async def soak(url: str, streams: int, waves: int = WAVES) -> AsyncIterator[Footprint]:
    """Send at least so many streams through a client in `run()` in this process.

    Entries flow in every stream, and checkpoints out. In each wave one peer process is killed, one is terminated,
    and new ones join; some handlers fail. Yields the process's footprint before the first wave and after each.
    """
    started = time.perf_counter()
    client = RedisStreamClient.from_url(url, SERVICE, lock_ttl=LOCK_TTL)
    through = 0

    async def handle(lease: Lease) -> None:
        nonlocal through
        if lease.deliveries == 1 and int(lease.stream.rpartition("-")[2]) % FAILS == 0:
            raise RuntimeError("fails once")
        await follow(lease)
        through += 1

    async with Redis.from_url(url) as redis, client.running(handle), watching(url) as watch:
        await _announce(redis, ["call-1"])  # connections are opened when they are first needed
        await wait_until(lambda: finished(redis, SERVICE), "the first is finished")
        yield await _footprint(redis, through, started, watch)
        for wave in range(waves):
            number = 0
            async with contextlib.AsyncExitStack() as churn:
                peers = [await churn.enter_async_context(_peer(url)) for _ in range(PEERS)]
                for peer in peers:
                    await peer.joined()
                while through < (wave + 1) * streams / waves:
                    await _announce(redis, [f"call-{wave}-{number + i}" for i in range(SLICE)])
                    number += SLICE
                    if number == 2 * SLICE:
                        peers[0].kill()
                        peers[1].terminate()
                        await churn.enter_async_context(_peer(url))
                    await wait_until(lambda: _backlog(redis), "the backlog is short", 60)
                for peer in peers:
                    peer.kill()
                await wait_until(lambda: finished(redis, SERVICE), "all is finished", 60)
            await _forgotten(redis, client)
            yield await _footprint(redis, through, started, watch)


class _Watch:
    """Looks at the load balancer stream all the time, for how long anything waits."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._keys = Keys(SERVICE)
        self.waited = 0.0
        self.late = 0.0

    async def look(self) -> None:
        """Look once."""
        if id := await oldest_unread(self._redis, self._keys):
            self.waited = max(self.waited, time.time() - int(id.partition("-")[0]) / 1000)
        for entry in await self._redis.xpending_range(self._keys.lbs, self._keys.group, "-", "+", SLICE):
            self.waited = max(self.waited, entry["time_since_delivered"] / 1000)

    async def look_on(self) -> None:
        """Look until cancelled."""
        while True:
            due = time.monotonic() + LOCK_TTL / 2
            await asyncio.sleep(LOCK_TTL / 2)
            self.late = max(self.late, time.monotonic() - due)
            await self.look()


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncGenerator[_Watch]:
    """Look on until the end of the block, over one connection, which is there from the beginning."""
    async with Redis.from_url(url) as redis:
        watch = _Watch(redis)
        await watch.look()
        looking = asyncio.create_task(watch.look_on())
        try:
            yield watch
        finally:
            await stop(looking)
            await asyncio.gather(looking, return_exceptions=True)


def _peer(url: str) -> Peer:
    return Peer(url=url, service=SERVICE, lock_ttl=LOCK_TTL, max_streams=PEERS_ROOM)


async def _backlog(redis: Connection) -> bool:
    return bool(await redis.xlen(Keys(SERVICE).lbs) < SLICE)


async def _announce(redis: Connection, streams: list[str]) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for stream in streams:
            pipe.xadd(stream, {"n": 1})
            pipe.xadd(stream, {"end": 1})
        await pipe.execute()
    await LoadBalancerStream(redis, SERVICE).add_many(streams)


async def _forgotten(redis: Connection, client: RedisStreamClient) -> None:
    """The dead are forgotten after ten lifetimes of a lock."""

    async def alone() -> bool:
        return await _consumers(redis) == {client.id}

    await wait_until(alone, "the dead consumers are forgotten", 60)


async def _consumers(redis: Connection) -> set[str]:
    infos = await redis.xinfo_consumers(Keys(SERVICE).lbs, Keys(SERVICE).group)
    return {info["name"].decode() for info in infos} - {NOBODY}


async def _footprint(redis: Connection, streams: int, started: float, watch: _Watch) -> Footprint:
    seconds = time.perf_counter() - started
    undying = 0
    async for key in redis.scan_iter("call-*", count=1000):
        await redis.unlink(key)
    async for key in redis.scan_iter("{call-*:progress", count=1000):
        undying += await redis.pttl(key) < 0
        await redis.unlink(key)
    await redis.delete(*Keys(SERVICE).turns)  # they come and go
    gc.collect()
    return Footprint(
        streams=streams,
        seconds=round(seconds, 1),
        rss=psutil.Process().memory_info().rss,
        objects=len(gc.get_objects()),
        tasks=len(asyncio.all_tasks()),
        connections=await connections(redis),
        consumers=len(await _consumers(redis)),
        keys=await redis.dbsize(),
        undying=undying,
        waited=round(watch.waited, 2),
        late=round(watch.late, 2),
    )


def left_behind(footprints: list[Footprint]) -> list[str]:
    """What did not come back, in words. The first wave is for caches to fill, so memory is counted from there."""
    empty, warm, last = footprints[0], footprints[1], footprints[-1]
    words = [
        f"{name}: {getattr(empty, name)} at first, {getattr(last, name)} in the end"
        for name in ("tasks", "connections", "consumers")
        if getattr(last, name) > getattr(empty, name)
    ]
    if last.keys > empty.keys + len(Keys(SERVICE).turns):  # they may be there again
        words.append(f"keys: {empty.keys} at first, {last.keys} in the end")
    if undying := sum(footprint.undying for footprint in footprints):
        words.append(f"records that never expire: {undying}")
    if last.waited > LIVELY + 2 * last.late:  # whoever hands over and whoever takes over were as late
        words.append(f"an announcement waited for {last.waited:.1f} s")
    streams = last.streams - warm.streams
    if last.objects - warm.objects > max(500, streams / 100):
        words.append(f"objects: {warm.objects} after the first wave, {last.objects} in the end")
    if last.rss - warm.rss > max(FRAGMENTS, streams * BYTES_PER_STREAM):
        words.append(f"resident bytes: {warm.rss} after the first wave, {last.rss} in the end")
    return words


async def main(streams: int) -> int:
    """Run it and print the table; the exit status."""
    console = Console(width=120)
    footprints: list[Footprint] = []
    with Server() as server:
        async for footprint in soak(server.url, streams):
            footprints.append(footprint)
            console.print(f"[dim]{footprint.streams} streams after {footprint.seconds:.0f} s[/dim]")
    table = Table(title=f"{footprints[-1].streams:,} streams through one process")
    for field in fields(Footprint):
        table.add_column(field.name, justify="right", no_wrap=True)
    for footprint in footprints:
        table.add_row(*(f"{value:,}" for value in asdict(footprint).values()))
    console.print(table)
    words = left_behind(footprints)
    console.print("\n".join(["FAIL, left behind:", *words]) if words else "PASS: all came back")
    return 1 if words else 0


if __name__ == "__main__":
    logging.getLogger("redis_stream_client").setLevel(logging.CRITICAL)
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(PeerProgram(json.loads(sys.argv[1])).main())
        sys.exit()
    parser = argparse.ArgumentParser("python -m tests.proof.soak", description=__doc__)
    parser.add_argument("--streams", type=int, default=100_000, help="how many (default 100,000)")
    sys.exit(asyncio.run(main(parser.parse_args().streams)))
