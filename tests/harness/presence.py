"""Presence: wait until members have declared it, know who watches, and see that nothing was lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from redis_stream_client._model.keys import Keys
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from redis_stream_client import RedisStreamClient, Statistics
    from tests.harness.connection import Connection
    from tests.harness.fleet import Member

LONG = 10.0
"""A lock's lifetime that no test waits for: what happens sooner happens by presence."""

SOON = 3.0
"""Seconds within which a dead member is replaced: 0.35 s, and what a busy machine adds. Far below `LONG`."""


async def present(redis: Connection, service: str) -> dict[str, bytes]:
    """The declarations that are in Redis, by consumer."""
    found = await redis.hgetall(Keys(service).present)
    return {name.decode(errors="replace"): value for name, value in found.items()}


async def all_present(redis: Connection, service: str, *consumers: str, timeout: float = 10.0) -> None:
    """Wait until exactly these are present, and one of them watches all others."""
    wanted = sorted(consumers)

    async def watched() -> bool:
        return sorted(await present(redis, service)) == wanted and await watcher(redis, service) in wanted

    await wait_until(watched, f"{len(wanted)} are present, and one watches", timeout)


async def watcher(redis: Connection, service: str) -> str:
    """Who watches; "" if nobody does."""
    name = await redis.get(Keys(service).watch)
    return name.decode() if name else ""


async def watches(redis: Connection, service: str, consumer: str) -> None:
    """Have this one watch: note it as the one that does, until it has looked and noted itself."""
    key = Keys(service).watch
    noted = 5_000
    await redis.set(key, consumer, px=noted)

    async def looks() -> bool:
        return await watcher(redis, service) == consumer and 0 < await redis.pttl(key) <= noted / 10

    await wait_until(looks, f"{consumer} watches", timeout=noted / 1000)


async def lock_gone(redis: Connection, service: str, *consumers: str, timeout: float = 10.0) -> float:
    """Wait until none of these has a lock. Returns when that was, as `time.monotonic()`."""

    async def gone() -> bool:
        return not await redis.exists(*(Keys(service).lock(consumer) for consumer in consumers))

    await wait_until(gone, "their locks are gone", timeout)
    return time.monotonic()


def deposed(*members: Member) -> int:
    """How many these members have deposed in all."""
    return sum(statistics.presence.deposed for statistics in _statistics(members))


def _statistics(members: Sequence[Member]) -> list[Statistics]:
    return [member.client.statistics() for member in members]


async def declared(*members: Member, timeout: float = 10.0) -> None:
    """Wait until all of these are present, as they know it themselves."""
    await wait_until(
        lambda: all(each.presence.state == "declared" for each in _statistics(members)), "all are present", timeout
    )


async def withdrawn(*members: Member, times: int = 1) -> None:
    """Wait until all of these have taken their declaration back so often."""
    await wait_until(
        lambda: all(each.presence.withdrawals >= times for each in _statistics(members)), "all have withdrawn"
    )


@contextlib.asynccontextmanager
async def nothing_is_lost(*members: Member) -> AsyncGenerator[None]:
    """See that meanwhile, and until all are present again, nobody is deposed, no lock lapses, and every lease
    stays."""
    before = [(member.client.id, member.owned) for member in members]
    yield
    await declared(*members)
    await wait_until(
        lambda: before == [(member.client.id, member.owned) for member in members], "all have what they had"
    )
    assert deposed(*members) == 0
    assert [statistics.lapses for statistics in _statistics(members)] == [0] * len(members)
    assert [member.disowned for member in members] == [[]] * len(members)


class Belief:
    """Who owned what and when, as the clients said: looked at all the time, for two that believe the same."""

    def __init__(self, one: RedisStreamClient, other: RedisStreamClient) -> None:
        self._clients = (one, other)
        self.both = 0.0
        """For how many seconds, at the most, both believed at once that they own a stream of the same name."""
        self.gap = 0.0
        """The longest time between two looks."""

    def _believed(self, client: RedisStreamClient) -> set[str]:
        return {lease.stream for lease in client.leases.values() if lease.owned}

    async def watch(self) -> None:
        """Until cancelled."""
        looked, since = time.monotonic(), None
        while True:
            now = time.monotonic()
            self.gap, looked = max(self.gap, now - looked), now
            one, other = (self._believed(client) for client in self._clients)
            if one & other:
                since = now if since is None else since
                self.both = max(self.both, now - since)
            else:
                since = None
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def beliefs(one: Member, other: Member) -> AsyncGenerator[Belief]:
    """Look all the time at what both believe to own."""
    belief = Belief(one.client, other.client)
    task = asyncio.create_task(belief.watch(), name="beliefs")
    try:
        yield belief
    finally:
        task.cancel()
        await asyncio.wait((task,))
