"""Ring 3: the less obvious paths of winning, ending and losing a stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    LoadBalancerStream,
    NotJoined,
    NotOwner,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
    StreamGone,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import base, scripts
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.fleet import Member, announce
from tests.harness.parts import joined, next_event
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

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


async def test_a_full_client_releases_what_it_did_not_ask_for(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    """A read whose reply was lost gave it more than it can take: a peer gets the rest."""
    async with (
        Member(proxy.url, service, max_streams=1, **FAST) as full,
        Member(server.url, service, **FAST) as peer,
    ):
        fault = proxy.drop_replies_after(b"XREADGROUP", connections=1, cut=True)
        await wait_until(lambda: fault.matched, "a read is on its way")
        names = [f"call-{i}" for i in range(8)]
        await announce(server.url, service, *names)
        await wait_until(lambda: len(full.owned) + len(peer.owned) == 8, "all are owned")
        assert len(full.owned) <= 1


async def test_a_malformed_announcement_of_a_dead_consumer_is_buried(
    server: Server, redis: Connection, service: str
) -> None:
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, **FAST) as one:
        await wait_until(lambda: one.client.alive, "the group exists")
        for _ in range(3):
            lbs_id = await redis.xadd(lbs, {"lbs-input": "no JSON"})
            # As if it had been delivered to a consumer that died at once.
            await redis.xclaim(lbs, group, "redis-consumer-dead-00000000", 0, [lbs_id], force=True, justid=True)
        await LoadBalancerStream(redis, service).add("call-1")
        await wait_until(lambda: _length(redis, f"{{{service}-input}}:dead", 3), "they are in the dead letters")
        await one.owns("call-1")
        letters = await redis.xrange(f"{{{service}-input}}:dead")
        assert {fields[b"lbs-input"] for _, fields in letters} == {b"no JSON"}
        assert all(b"JSON" in fields[b"reason"] for _, fields in letters)


async def _length(redis: Connection, key: str, length: int) -> bool:
    return bool(await redis.xlen(key) == length)


async def test_a_count_that_redis_lost_is_lifted_above_every_fence_that_was_handed_out(
    server: Server, redis: Connection, service: str
) -> None:
    """As after a fail-over to a replica that had not heard of the last changes of owner."""
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, **FAST) as one:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await one.owns("call-1")
        for _ in range(3):
            await one.lease("call-1").release()
            await one.owns("call-1")
        old = one.lease("call-1")
        assert old.deliveries == 4
        await redis.xclaim(lbs, group, one.client.id, 0, [lbs_id], retrycount=1, justid=True)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: old in one.disowned, "the old lease is lost")
        await one.owns("call-1")
        assert one.lease("call-1").fence > old.fence
        await one.lease("call-1").done()


async def test_audits_and_resumes_page_through_what_is_pending(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Pending.mine

    async def mine(self: Pending, *arguments: Any) -> Any:
        page = await ask(self, *arguments)
        asked.append(len(page.found))
        return page

    monkeypatch.setattr(base, "LOOK_PAGE", 7)
    monkeypatch.setattr(Pending, "mine", mine)
    names = sorted(f"call-{i:02}" for i in range(30))
    async with Member(server.url, service, **FAST) as one:
        await announce(server.url, service, *names)
        await one.owns(*names)
        taken = [one.lease(name).lbs_id for name in names[5:25:5]]
        await redis.xclaim(f"{service}-input", f"{service}-group", "peer", 0, taken, justid=True)
        await redis.set(f"{{{service}-input}}:lock:peer", '{"ttl": 60000}', px=60_000)
        await redis.delete(lock_of(service, one.client))
        await wait_until(lambda: len(one.disowned) == 4, "what was taken is disowned")
        await wait_until(lambda: one.client.alive, "it is back")
        assert {lease.stream for lease in one.disowned} == set(names[5:25:5])
        audits = one.client.statistics().audits
        await wait_until(lambda: one.client.statistics().audits > audits, "it audits")
        assert len(one.owned) == 26
    assert max(asked) <= 10  # the smallest page


async def test_an_unknown_script_is_sent_once(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, **FAST) as one:
        await announce(server.url, service, "call-1", "call-2")
        await one.owns("call-1", "call-2")
        await redis.script_flush()
        await redis.config_resetstat()
        await one.lease("call-1").done()
        await one.lease("call-2").done()
        assert await redis.script_exists(scripts.load("done").sha) == [True]


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
        deliveries = parts.operations.deliveries
        send, calls = deliveries.done, 0

        async def send_after_eviction(entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
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
        deliveries, identity = parts.operations.deliveries, parts.connections.identity
        send, calls = deliveries.done, 0

        async def lose_the_first_reply(entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
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
