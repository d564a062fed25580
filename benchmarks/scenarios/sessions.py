"""What N sessions cost that sleep, but for one in a hundred; beside the same number that are kept awake.

Each session has one entry, which was processed. What Redis holds for a session is counted beyond its data stream.
Some begin at a time, and where they sleep, one in a hundred is woken for good in the end. Then commands are
counted while nothing comes. The first sessions are not counted: a client remembers as many ended leases.

`tracked` are data streams of which Redis remembers, until they change, that somebody has read them.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.apart import contender
from benchmarks.measure import Work
from benchmarks.scenario import Chart, Scenario
from benchmarks.scenarios.throughput import count_sent
from redis_stream_client import LoadBalancerStream, RedisStreamClient
from redis_stream_client._leases.table import REMEMBERED as FIRST
from redis_stream_client._model.keys import Keys
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenario import Sample
    from redis_stream_client import Lease
    from redis_stream_client._model.retention import OnDone
    from tests.harness.connection import Connection

SERVICE = "bench"
KEYS = Keys(SERVICE)
LOCK_TTL = 30.0
"""A member that lapses on a busy machine would process an entry again, and nothing else here depends on it."""

SECONDS = 4.0
SETTLING = 10.0
"""Seconds before something is counted: a handler that has waited for some has its attempt taken back, once."""

IDLE = 0.1
AWAKE = 3600.0
"""Seconds without an entry after which a session sleeps, where it does and where it does not."""

PART = 100
"""One session of so many is awake in the end."""

PATIENCE = 300.0

TOGETHER = 1_000
"""So many begin at a time."""

CYCLES = 20
"""Sessions that are woken one after the other, to count what that takes."""


class Member:
    """One member, what its sessions have processed, and its producer."""

    def __init__(self, redis: Connection, url: str) -> None:
        self.client = RedisStreamClient.from_url(url, SERVICE, lock_ttl=LOCK_TTL)
        self.processed = 0
        self._lbs = LoadBalancerStream(redis, SERVICE)

    async def handle(self, lease: Lease) -> None:
        """The program of a session."""
        assert lease.info is not None
        async for entry in lease.entries(idle=lease.info["idle"]):
            await lease.checkpoint(entry.id)
            self.processed += 1

    async def announce(self, names: Sequence[str], idle: float) -> None:
        """Their entries are there: wait until they are processed."""
        expected = self.processed + len(names)
        await self._lbs.add_many([(name, {"idle": idle}) for name in names])
        await wait_until(lambda: self.processed == expected, "all have processed it", PATIENCE)

    async def write(self, names: Sequence[str], idle: float) -> None:
        """Wake them."""
        expected = self.processed + len(names)
        await self._lbs.write_many([(name, {"n": 2}, {"idle": idle}) for name in names])
        await wait_until(lambda: self.processed == expected, "all are awake", PATIENCE)

    async def asleep(self) -> None:
        """Wait until all are."""
        await wait_until(lambda: not self.client.leases, "all are asleep", PATIENCE)


async def process(streams: int, *, sleep: bool, on_done: OnDone = "keep") -> Sample:
    """Have every session process one entry, and look at what is left."""
    with Server() as server:
        async with Redis.from_url(server.url) as redis:
            tracemalloc.start()
            member = Member(redis, server.url)
            async with member.client.running(member.handle, drain_timeout=0, on_done=on_done):
                if sleep:
                    await begin(redis, member, [f"first-{i}" for i in range(FIRST)], sleep=True)
                names = [f"session-{i:06d}" for i in range(streams)]
                sample = await begin(redis, member, names, sleep=sleep)
                tracemalloc.stop()
                if sleep:
                    sample |= await cycles(member, names)
                    await member.write(names[::PART], AWAKE)
                await asyncio.sleep(SETTLING)
                return sample | await at_rest(redis)


async def begin(redis: Connection, member: Member, names: Sequence[str], *, sleep: bool) -> dict[str, float]:
    """Have them begin, some at a time, and say what they take."""
    await add_entries(redis, names)
    keys, empty, stream = await redis.dbsize(), (await Work.of(redis)).memory, await redis.memory_usage(names[-1])
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for start in range(0, len(names), TOGETHER):
        await member.announce(names[start : start + TOGETHER], IDLE if sleep else AWAKE)
        if sleep:
            await member.asleep()
    await asyncio.sleep(SETTLING)
    gc.collect()
    here, _ = tracemalloc.get_traced_memory()
    used = (await Work.of(redis)).memory - empty
    grown = await redis.memory_usage(names[-1]) - stream  # it may have been trimmed
    return {
        "Redis B/session": used / len(names) - grown,
        "its record": await redis.memory_usage(KEYS.progress(names[-1])),
        "client B/session": (here - before) / len(names),
        "keys/session": (await redis.dbsize() - keys) / len(names),
    }


async def cycles(member: Member, names: Sequence[str]) -> dict[str, float]:
    """What it takes to write, wake, process, checkpoint and sleep, without what a member sends anyway."""
    sent, started = count_sent(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    each_second = sent[0] / (time.perf_counter() - started)
    found = {}
    for what, times in ((f"sent/cycle, {len(names) // PART} at once", 1), ("one by one", CYCLES)):
        some = names[::PART] if times == 1 else names[:1]
        before, started = sent[0], time.perf_counter()
        for _ in range(times):
            await member.write(some, IDLE)
            await member.asleep()
        more = sent[0] - before - each_second * (time.perf_counter() - started)
        found[what] = more / times / len(some)
    return found


async def at_rest(redis: Connection) -> dict[str, float]:
    """What is announced, pending and followed while nothing comes, and how many commands are sent."""
    before = await Work.of(redis)
    await asyncio.sleep(SECONDS)
    after = await Work.of(redis)
    pending = await redis.xpending(KEYS.lbs, KEYS.group)
    return {
        "announced": await redis.xlen(KEYS.lbs),
        "pending": pending["pending"],
        "in the hash": await redis.hlen(KEYS.announced),
        "tracked": (await redis.info("stats"))["tracking_total_keys"],
        "commands/s": (after.commands - before.commands) / (after.at - before.at),
        "Redis CPU %": 100 * (after.cpu - before.cpu) / (after.at - before.at),
    }


async def add_entries(redis: Connection, names: Sequence[str]) -> None:
    """The data streams, which are not counted."""
    for start in range(0, len(names), 1_000):
        async with redis.pipeline(transaction=False) as pipe:
            for name in names[start : start + 1_000]:
                pipe.xadd(name, {"n": 1})
            await pipe.execute()


SCENARIO = Scenario(
    name="sessions",
    title="sessions of which one in a hundred is awake, and the same number of which all are, one process",
    contenders={
        "1 % awake": contender(process, sleep=True),
        "1 % awake, trim": contender(process, sleep=True, on_done="trim"),
        "all awake": contender(process, sleep=False),
    },
    cases=({"streams": 10_000},),
    deep=({"streams": 100_000},),
    ratio="Redis B/session",
    charts=(Chart("Redis B/session", over="streams"), Chart("client B/session", over="streams")),
    timeout=3600,
)
