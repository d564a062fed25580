"""The sweeper: who died is found, and the group's end noticed; how seldom that takes a look."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamExpired
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import group
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.pending import Pending
from tests.harness.fleet import Member, announce
from tests.harness.flow import lateness
from tests.harness.parts import in_doubt, joined, next_event
from tests.harness.runs import Running
from tests.harness.scenes import die_with
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_a_full_member_learns_soon_that_the_group_was_destroyed(
    server: Server, redis: Connection, service: str
) -> None:
    ttl = 1.0
    async with Member(server.url, service, lock_ttl=ttl, max_streams=1) as full:
        await announce(server.url, service, "call-1")
        await full.owns("call-1")
        old = full.lease("call-1")
        async with Member(server.url, service, lock_ttl=ttl) as peer:
            await wait_until(lambda: peer.client.statistics().live_members == 2, "the peer has looked round")
            await redis.xgroup_destroy(f"{service}-input", f"{service}-group")
            await wait_until(lambda: peer.owned or not old.owned, "one of them has noticed")
            await wait_until(lambda: not old.owned, "two owners for lock_ttl / 2 at most", 2 * ttl)
            await wait_until(lambda: full.owned + peer.owned == ["call-1"], "it has one owner")


async def test_a_full_member_that_was_removed_from_the_group_learns_it_soon(
    server: Server, redis: Connection, service: str
) -> None:
    ttl = 0.6
    async with Member(server.url, service, claim=False, lock_ttl=ttl, max_streams=1) as full:
        await announce(server.url, service, "call-1")
        await full.owns("call-1")
        old = full.lease("call-1")
        async with Member(server.url, service, lock_ttl=ttl) as peer:
            await wait_until(lambda: peer.client.statistics().live_members == 2, "the peer has looked round")
            async with lateness(redis) as slowest:
                await redis.xgroup_delconsumer(f"{service}-input", f"{service}-group", full.client.id)
                removed = time.monotonic()
                await wait_until(lambda: old in full.disowned, "the loss is told")
                told = time.monotonic() - removed
            assert told < 2 * ttl + 2 * slowest(), f"told after {told:.2f} s; the loop, {slowest():.2f} s late"
            await peer.owns("call-1")
            assert peer.lease("call-1").fence > old.fence


def count_calls(monkeypatch: pytest.MonkeyPatch, stubs: type[Any], name: str) -> list[float]:
    """When a stub is called from now on, by any client."""
    calls: list[float] = []
    original = getattr(stubs, name)

    async def counted(self: Any, *arguments: Any) -> Any:
        calls.append(time.monotonic())
        return await original(self, *arguments)

    monkeypatch.setattr(stubs, name, counted)
    return calls


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


async def test_in_doubt_nothing_is_taken_over_and_at_its_end_everything_at_once(
    server: Server, redis: Connection, service: str
) -> None:
    async with joined(server.url, service, lock_ttl=4.0, presence=False) as parts:
        parts.capacity.handled_at_once = True  # as in run()
        with in_doubt(parts):
            await die_with(redis, service, "call-1", lock_ttl=0.1)
            looked = parts.counters.sweeps
            parts.sweeps.sweep_now()
            began = time.monotonic()
            await wait_until(lambda: time.monotonic() > began + 1.0, "a sweep would have been due")
            assert (len(parts.table), parts.counters.sweeps) == (0, looked)
        await wait_until(lambda: len(parts.table) == 1, "it is taken over", 0.5)


async def test_what_was_found_dead_before_a_doubt_is_offered(
    server: Server, redis: Connection, service: str
) -> None:
    """A claim is checked in Redis."""
    async with joined(server.url, service, lock_ttl=1.0, presence=False) as parts:
        await die_with(redis, service, "call-1", lock_ttl=0.1)
        event = await next_event(parts)
        assert isinstance(event, StreamExpired)
        with in_doubt(parts):
            lease = await parts.claims.claim(event.payload)
            assert not lease.owned
        assert lease.owned


async def test_what_is_released_while_a_peer_asks_is_left_to_it_for_a_moment(
    server: Server, redis: Connection, service: str
) -> None:
    """An eighth of a second, a quarter of the pace; then whoever has fewer takes it, if the peer has not."""
    async with Member(server.url, service, claim=False) as giver:
        await announce(server.url, service, "call-1")
        await giver.owns("call-1")
        async with Running(server.url, service) as other:
            await redis.publish(Keys(service).control, "wants somebody-else 1")
            released = time.monotonic()
            await giver.lease("call-1").release()
            await other.handles("call-1")
            assert time.monotonic() - released >= 0.12
