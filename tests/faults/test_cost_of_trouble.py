"""Ring 3: what trouble costs, in commands and connections and in other members' time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from redis_stream_client import RedisStreamClient, StreamAdded
from tests.harness.fleet import Member, announce
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.servers import Server


async def test_a_client_that_cannot_connect_does_not_hammer(
    own_server: Callable[..., Server], service: str
) -> None:
    """Its heart beats on, but there is no connection left for its reads."""
    window = 2.0
    server = own_server()
    async with (
        Redis.from_url(server.url) as admin,
        Member(server.url, service, lock_ttl=2.0) as member,
    ):

        async def reading() -> list[str]:
            clients: list[dict[str, str]] = await admin.client_list()
            return [client["id"] for client in clients if client["cmd"].startswith("xreadgroup")]

        async def rejected() -> int:
            return int((await admin.info("stats"))["rejected_connections"])

        (reader,) = await wait_until(reading, "it reads")
        await admin.config_set("maxclients", len(await admin.client_list()) - 1)
        try:
            await admin.client_kill_filter(_id=reader)
            await wait_until(rejected, "it tries to connect")
            before = await rejected()
            await asyncio.sleep(window)  # time itself is measured
            assert 0 < await rejected() - before < 15 * window
            assert member.client.alive
        finally:
            await admin.config_set("maxclients", 1000)
        await announce(server.url, service, "call-1")
        await member.owns("call-1")


async def test_a_slow_member_does_not_hold_up_a_backlog(server: Server, service: str) -> None:
    """The others leave it its share of a burst for one lifetime of the lock, though it takes some all the time."""
    ttl, held, burst, pace = 1.0, 100, 50, 0.15
    arrived: set[str] = set()

    async def work_slowly(client: RedisStreamClient) -> None:
        async for event in client.events():
            if isinstance(event, StreamAdded):
                arrived.add(event.payload.stream)
                await asyncio.sleep(pace)
                await event.payload.done()

    async with Member(server.url, service, lock_ttl=ttl) as busy:
        await announce(server.url, service, *[f"old-{i}" for i in range(held)])
        await wait_until(lambda: len(busy.owned) == held, "one holds much")
        async with (
            RedisStreamClient.from_url(server.url, service, lock_ttl=ttl, max_streams=1) as slow,
            meanwhile(work_slowly(slow)),
        ):
            await wait_until(lambda: busy.client.statistics().live_members == 2, "they know of each other")
            new = {f"new-{i}" for i in range(burst)}
            await announce(server.url, service, *new)
            # Left to the slow one it would take burst * pace = 7.5 s; the promise is `lock_ttl`.
            await wait_until(lambda: new <= arrived | set(busy.owned), "all have arrived", 3.0)
            assert arrived
