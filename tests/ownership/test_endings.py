"""Ring 3: the less obvious paths of ending a lease: no answer, no group, another owner, and repeated calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from redis_stream_client import NotOwner, RedisUnavailable, StreamAdded
from redis_stream_client._model.keys import Keys
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.fleet import Member, announce
from tests.harness.parts import joined, next_event
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

FAST: dict[str, Any] = {"lock_ttl": 0.4}


async def test_done_and_release_that_get_no_answer_say_so(server: Server, proxy: TcpProxy, service: str) -> None:
    async with Member(proxy.url, service, **FAST) as one:
        await announce(server.url, service, "call-1", "call-2")
        await one.owns("call-1", "call-2")
        first, second = one.lease("call-1"), one.lease("call-2")
        proxy.freeze()
        results = await asyncio.gather(first.done(), second.release(), return_exceptions=True)
        assert [type(result) for result in results] == [RedisUnavailable, RedisUnavailable]
        proxy.cut()
        proxy.thaw()
        with pytest.raises(NotOwner):
            await first.done()


async def test_a_done_that_was_never_sent_changed_nothing(server: Server, proxy: TcpProxy, service: str) -> None:
    async with Member(proxy.url, service, **FAST) as one:
        await announce(server.url, service, "call-1")
        await one.owns("call-1")
        lease = one.lease("call-1")
        lost = one.client.statistics().reconnects
        await proxy.refuse()
        proxy.cut()
        await wait_until(lambda: one.client.statistics().reconnects >= lost + 4, "it has noticed")
        with pytest.raises(NotOwner) as refused:
            await lease.done()
        assert refused.value.reason == "expired"
        assert not refused.value.gone
        await proxy.accept()
        await one.owns("call-1")


@pytest.mark.parametrize("operation", ["done", "release"])
async def test_ending_a_stream_whose_group_is_gone_says_gone(
    server: Server, redis: Connection, service: str, operation: str
) -> None:
    async with Member(server.url, service, lock_ttl=2.0) as one:
        await announce(server.url, service, "call-1")
        await one.owns("call-1")
        await redis.delete(f"{service}-input")
        with pytest.raises(NotOwner):
            await getattr(one.lease("call-1"), operation)()


@pytest.mark.parametrize("operation", ["done", "release"])
async def test_ending_a_stream_that_a_peer_was_given_names_the_peer(
    server: Server, redis: Connection, service: str, operation: str
) -> None:
    async with Member(server.url, service, lock_ttl=2.0) as one:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await one.owns("call-1")
        await redis.xgroup_createconsumer(f"{service}-input", f"{service}-group", "peer")
        await redis.xclaim(f"{service}-input", f"{service}-group", "peer", 0, [lbs_id], justid=True)
        with pytest.raises(NotOwner) as refused:
            await getattr(one.lease("call-1"), operation)()
        assert refused.value.owner == "peer"
        assert await redis.xlen(f"{service}-input") == 1


async def test_a_repeated_done_is_not_believed_when_the_lock_was_evicted(
    server: Server, redis: Connection, service: str
) -> None:
    """Found by the model. Between two beats the lock is evicted, and a peer takes the stream and finishes it."""
    keys = Keys(service)
    async with joined(server.url, service, lock_ttl=8.0) as parts:
        (lbs_id,) = await announce(server.url, service, "call-1")
        added = await next_event(parts)
        assert isinstance(added, StreamAdded)
        await redis.config_set("notify-keyspace-events", "")
        deliveries = parts.deliveries
        send, calls = deliveries.done, 0

        async def send_after_eviction(entries: Sequence[tuple[str, int, str]], timeout: float) -> list[str]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise Unanswered("the request was lost", maybe_executed=True)
            async with redis.pipeline(transaction=True) as peer:
                peer.delete(keys.lock(parts.options.consumer))
                peer.xclaim(keys.lbs, keys.group, "peer", 0, [lbs_id])
                peer.xack(keys.lbs, keys.group, lbs_id)
                peer.xdel(keys.lbs, lbs_id)
                await peer.execute()
            return await send(entries, timeout)

        with patch.object(deliveries, "done", send_after_eviction), pytest.raises(NotOwner) as refused:
            await added.payload.done()
        assert refused.value.gone


async def test_a_repeated_done_is_not_believed_before_the_audit_of_a_fail_over(
    server: Server, redis: Connection, service: str
) -> None:
    """Found by the model. The promoted replica knows of no delivery, and is asked for done first."""
    keys = Keys(service)
    async with joined(server.url, service, lock_ttl=8.0) as parts:
        (lbs_id,) = await announce(server.url, service, "call-1")
        added = await next_event(parts)
        assert isinstance(added, StreamAdded)
        deliveries, identity = parts.deliveries, parts.connections.identity
        send, calls = deliveries.done, 0

        async def lose_the_first_reply(entries: Sequence[tuple[str, int, str]], timeout: float) -> list[str]:
            nonlocal calls
            calls += 1
            reply = await send(entries, timeout)
            if calls == 1:
                raise Unanswered("the reply was lost", maybe_executed=True)
            return reply

        await redis.xack(keys.lbs, keys.group, lbs_id)
        identity.history = "the replica's"
        with patch.object(deliveries, "done", lose_the_first_reply), pytest.raises(NotOwner) as refused:
            await added.payload.done()
        assert refused.value.gone
        assert await redis.xlen(keys.lbs) == 1
