"""The heartbeat: a lock that is gone is noticed and taken again; what cannot be asked about is lost."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from redis_stream_client._consumer.heartbeat import LockRenewal
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.statistics import Counters
from redis_stream_client._redis.outage import Outages
from redis_stream_client._redis.wordings import REDIS
from tests.harness.fleet import Member, announce
from tests.harness.logs import LOG
from tests.harness.parts import joined
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def test_a_lock_that_was_evicted_is_a_lapse_like_any_other(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        lease = member.lease("call-1")
        await redis.delete(f"{{{service}-input}}:lock:{member.client.id}")
        await wait_until(lambda: member.client.statistics().lapses == 1, "the lapse is noticed")
        await wait_until(lambda: member.client.alive and lease.owned, "nobody took it, so it is kept")
        await lease.done()


async def test_a_lapse_that_redis_answers_only_in_part_ends_in_the_loss_of_all_leases(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """The lock can be taken again, but nobody says what is pending: peers cannot claim, so one must give way."""
    async with Member(proxy.url, service, lock_ttl=0.8) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        old = member.lease("call-1")
        proxy.drop_replies_after(b"XPENDING")
        await redis.delete(Keys(service).lock(member.client.id))
        await wait_until(lambda: old in member.disowned, "lost after lock_ttl + heartbeat_interval", 2.5)
        proxy.heal()
        await member.owns("call-1")
        assert member.lease("call-1").fence > old.fence


async def test_a_lock_that_was_lost_with_its_connection_is_missed_at_once(
    server: Server, redis: Connection, service: str
) -> None:
    """As after a failover; however rarely a member with a long lock_ttl beats, it resumes before others claim."""
    async with (
        Member(server.url, service, lock_ttl=60.0) as slow,
        Member(server.url, service, **FAST) as fast,
    ):
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: len(slow.owned) == len(fast.owned) == 1, "each has one")
        streams = {member: member.owned for member in (slow, fast)}
        await redis.config_set("notify-keyspace-events", "")
        async with redis.pipeline(transaction=True) as fail_over:
            fail_over.delete(Keys(service).lock(slow.client.id), Keys(service).lock(fast.client.id))
            fail_over.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            fail_over.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await fail_over.execute()
        await wait_until(lambda: slow.client.statistics().lapses == 1, "the slow one has noticed", 3.0)
        await wait_until(lambda: slow.client.alive and fast.client.alive, "both are back")
        for member in (slow, fast):
            await member.owns(*streams[member])


async def test_one_that_was_away_takes_nothing_before_it_knows_whether_a_pause_has_begun(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """Whoever ordered the pause did not wait for it, since its lock was gone."""
    async with Member(proxy.url, service, presence=False, **FAST) as member:
        await wait_until(lambda: member.client.statistics().beats, "it knows that there is no pause")
        proxy.drop_requests_matching(Keys(service).paused.encode())
        before = member.client.statistics().lapses
        await wait_until(lambda: member.client.statistics().lapses > before, "it is away")
        await redis.set(Keys(service).paused, json.dumps({"since": 1_700_000_000_000, "reason": "a migration"}))
        await wait_until(lambda: member.client.statistics().lapses > before + 1, "its last read is over, too")
        await announce(server.url, service, "call-1")
        await wait_until(lambda: member.client.statistics().lapses > before + 3, "it was back, and could not ask")
        proxy.heal()
        await wait_until(lambda: member.client.statistics().paused, "it knows of the pause")
        assert not member.leases
        await redis.delete(Keys(service).paused)
        await member.owns("call-1")


async def test_orders_that_were_read_before_a_lapse_say_nothing_after_it(server: Server, service: str) -> None:
    """As after a suspension: the answer has waited all the while, and a pause has begun meanwhile."""
    async with joined(server.url, service, presence=False) as parts:
        renewal = LockRenewal(
            lock=parts.lock,
            lock_state=parts.lock_state,
            orders=parts.orders,
            outage=Outages(LOG).watch(REDIS),
            counters=Counters(),
            patience=5.0,
        )
        parts.orders.forget()
        late = asyncio.create_task(renewal.beat())
        await asyncio.sleep(0)
        parts.lock_state.lapse("stalled")
        assert not await late
        assert not parts.orders.new_streams
        await wait_until(lambda: parts.orders.new_streams, "they are read again, at once")


async def test_what_a_full_redis_could_not_store_is_said_when_there_is_room(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as redis, Member(server.url, service, **FAST) as member:
        lock = Keys(service).lock(member.client.id)
        server.command("CONFIG", "SET", "maxmemory", 1)
        member.client.drain()
        beats = member.client.statistics().beats
        await wait_until(lambda: member.client.statistics().beats > beats + 3, "it beats on")
        assert not await says(redis, lock, b"draining")
        server.command("CONFIG", "SET", "maxmemory", 0)
        await wait_until(lambda: says(redis, lock, b"draining"), "it says so")


async def says(redis: Redis, lock: str, word: bytes) -> bool:
    value = await redis.get(lock)
    return isinstance(value, bytes) and word in value
