"""Ring 3: the less obvious paths of claiming a stream that was offered."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    NotJoined,
    RedisStreamClient,
    RedisUnavailable,
    StreamGone,
)
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def orphan(server: Server, service: str, stream: str, *watchers: Member) -> list[ExpiredStream]:
    """Announce a stream to a member that leaves; returns what each watcher is offered."""
    async with Member(server.url, service, **FAST) as leaver:
        for watcher in watchers:
            assert watcher.client.leases == {}
        await announce(server.url, service, stream)
        await wait_until(
            lambda: any(lease.stream == stream for m in (leaver, *watchers) for lease in m.leases), "owned"
        )
        for watcher in watchers:
            if stream in watcher.owned:
                await watcher.lease(stream).release()

    async def offer(watcher: Member) -> ExpiredStream:
        return await wait_until(
            lambda: next((p for p in reversed(watcher.expired) if p.stream == stream), None), "it is offered"
        )

    return [await offer(watcher) for watcher in watchers]


def lock_of(service: str, client: RedisStreamClient) -> str:
    return f"{{{service}-input}}:lock:{client.id}"


async def test_a_second_claimer_learns_who_was_first(server: Server, service: str) -> None:
    async with (
        Member(server.url, service, claim=False, **FAST) as one,
        Member(server.url, service, claim=False, **FAST) as two,
    ):
        mine, theirs = await orphan(server, service, "call-1", one, two)
        await one.client.claim(mine)
        with pytest.raises(AlreadyClaimed) as refused:
            await two.client.claim(theirs)
        assert refused.value.owner == one.client.id
        assert refused.value.stream == "call-1"
        assert refused.value.lbs_id == mine.lbs_id
        with pytest.raises(AlreadyClaimed):
            await one.client.claim(mine)


async def test_a_claim_follows_a_stream_that_changed_hands_and_lost_its_owner_again(
    server: Server, service: str
) -> None:
    async with Member(server.url, service, claim=False, **FAST) as one:
        async with Member(server.url, service, claim=False, **FAST) as two:
            mine, theirs = await orphan(server, service, "call-1", one, two)
            await two.client.claim(theirs)
        lease = await one.client.claim(mine)  # what it was offered names an owner of long ago
        assert lease.deliveries == 3


async def test_a_released_stream_whose_next_owner_died_counts_that_death(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, claim=False, **FAST) as one:
        (payload,) = await orphan(server, service, "call-1", one)
        released = replace(payload, previous_owner=None)  # an offer of before that owner had it
        dead = "redis-consumer-gone-0000000f"
        await redis.xclaim(f"{service}-input", f"{service}-group", dead, 0, [payload.lbs_id])
        assert (await one.client.claim(released)).attempts == 2


async def test_a_claim_whose_owner_came_back_is_refused(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, claim=False, **FAST) as one:
        (payload,) = await orphan(server, service, "call-1", one)
        back = payload.previous_owner or "nobody"
        await redis.set(f"{{{service}-input}}:lock:{back}", '{"ttl": 5000}', px=5000)
        with pytest.raises(AlreadyClaimed) as refused:
            await one.client.claim(payload)
        assert refused.value.owner == back


async def test_a_claim_while_the_lock_is_gone_says_so(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=2.0) as one:
        (payload,) = await orphan(server, service, "call-1", one)
        await redis.delete(lock_of(service, one.client))
        with pytest.raises(NotJoined):
            await one.client.claim(payload)
        await wait_until(lambda: one.client.alive, "it has rejoined")
        assert (await one.client.claim(payload)).owned


async def test_a_claim_without_a_group_says_gone(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=2.0) as one:
        (payload,) = await orphan(server, service, "call-1", one)
        await redis.delete(f"{service}-input")
        with pytest.raises((StreamGone, NotJoined)):
            await one.client.claim(payload)


async def test_a_claim_that_gets_no_answer_says_so_and_is_repeated_safely(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with Member(proxy.url, service, claim=False, **FAST) as one:
        (payload,) = await orphan(server, service, "call-1", one)
        proxy.freeze()
        with pytest.raises(RedisUnavailable) as unknown:
            await one.client.claim(payload)
        assert unknown.value.stream == "call-1"
        with pytest.raises(NotJoined):
            await one.client.claim(payload)
        proxy.cut()
        proxy.thaw()
        await wait_until(lambda: one.client.alive, "it is back")
        # The first claim may have been executed: then the stream arrives by itself, and this one is refused.
        with contextlib.suppress(AlreadyClaimed):
            await one.client.claim(payload)
        await wait_until(lambda: len(one.client.leases) == 1, "it is owned, once")
