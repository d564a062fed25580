"""Ring 3: what trouble costs, in commands and connections and in other members' time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamAdded
from redis_stream_client._protocol import group
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.pending import Pending
from tests.harness.fleet import Member, announce
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


def count_calls(monkeypatch: pytest.MonkeyPatch, stubs: type[Any], name: str) -> list[float]:
    """When a stub is called from now on, by any client."""
    calls: list[float] = []
    original = getattr(stubs, name)

    async def counted(self: Any, *arguments: Any) -> Any:
        calls.append(time.monotonic())
        return await original(self, *arguments)

    monkeypatch.setattr(stubs, name, counted)
    return calls


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Do something in the background, until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await stop(task)
        if not task.cancelled():
            task.result()


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


async def test_a_member_that_joins_causes_few_sweeps(server: Server, service: str) -> None:
    members, window = 20, 1.0
    options: dict[str, Any] = {"lock_ttl": 8.0, "connect_timeout": 20.0}
    async with contextlib.AsyncExitStack() as fleet:
        clients = [RedisStreamClient.from_url(server.url, service, **options) for _ in range(members)]
        await asyncio.gather(*map(fleet.enter_async_context, clients))

        def sweeps() -> int:
            return sum(client.statistics().sweeps for client in clients)

        await wait_until(lambda: all(client.statistics().sweeps for client in clients), "all have looked round")
        await asyncio.sleep(0.5)  # what the others' joining causes is over
        before = sweeps()
        newcomer = RedisStreamClient.from_url(server.url, service, **options)
        await fleet.enter_async_context(newcomer)
        await wait_until(lambda: newcomer.statistics().sweeps, "the newcomer has looked round")
        await asyncio.sleep(window)  # time itself is measured
        assert sweeps() - before <= 4  # the fleet's turns in this time among them
        assert newcomer.statistics().live_members == members + 1
        await asyncio.gather(*(client.aclose() for client in clients))


async def test_orphans_that_nobody_claims_are_looked_at_seldom(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offers come due again one after the other, and each look lists all: two looks in a lock's lifetime do."""
    streams, ttl, window = 1_000, 0.4, 2.0
    lbs, group = f"{service}-input", f"{service}-group"
    await LoadBalancerStream(redis, service).add_many([f"call-{i}" for i in range(streams)])
    await redis.xgroup_create(lbs, group, id="0")
    await redis.xreadgroup(group, "dead", {lbs: ">"}, count=streams)
    read: set[str] = set()

    async def read_slowly(client: RedisStreamClient) -> None:
        async for event in client.events():
            read.add(event.payload.stream)
            await asyncio.sleep(0.0003)

    async with (
        RedisStreamClient.from_url(server.url, service, lock_ttl=ttl) as client,
        meanwhile(read_slowly(client)),
    ):
        await wait_until(lambda: len(read) == streams, "all were offered")
        pages = count_calls(monkeypatch, Pending, "orphans")
        await asyncio.sleep(window)  # time itself is measured
        looks = len(pages) / (streams / PAGE)
        assert looks <= 3 * window / ttl + 2  # two are meant
        assert client.alive


async def test_a_long_backlog_is_searched_for_the_lost_seldom(
    server: Server, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More wait than a census counts, so whether any is pending for nobody can only be found by looking at all."""
    held, ttl = 300, 0.4
    monkeypatch.setattr(group, "WAITING_COUNTED", 100)
    async with Member(server.url, service, lock_ttl=ttl, max_streams=held) as full:
        await announce(server.url, service, *[f"call-{i}" for i in range(held + 150)])
        await wait_until(lambda: len(full.owned) == held, "it is full")
        searches = count_calls(monkeypatch, Group, "rescue")
        censuses = count_calls(monkeypatch, Group, "census")
        await wait_until(lambda: len(censuses) >= 4, "it has tidied up")
        pages = -(-held // PAGE)
        assert len(searches) <= pages
