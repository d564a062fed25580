"""The consumer's lock: who has it lives, and nobody takes what it owns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.orders import Pause
from redis_stream_client._protocol import lock_value
from redis_stream_client._protocol.lock import Renewal, Standing
from redis_stream_client._protocol.lock_value import Says
from tests.harness.waiting import wait_until
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection


async def test_joining_takes_the_lock_and_registers_the_consumer(redis: Connection, a: Consumer) -> None:
    value = json.loads(await redis.get(a.lock_key))
    assert value["ttl"] == 60_000
    assert {"host", "pid", "started", "version"} <= set(value)
    assert 0 < await redis.pttl(a.lock_key) <= 60_000
    assert [member.name for member in await a.group.members(SOON)] == [a.id]


async def test_joining_again_changes_nothing_but_the_locks_lifetime(redis: Connection, a: Consumer) -> None:
    await a.take(2)
    before = await a.snapshot()
    await redis.pexpire(a.lock_key, 1000)
    await a.lock.join(SOON)
    assert await redis.pttl(a.lock_key) > 1000
    assert await a.snapshot() == before


async def test_what_was_announced_before_the_first_consumer_joined_is_not_lost(
    redis: Connection, service: str
) -> None:
    consumer = Consumer(redis, service, "first")
    lbs_ids = await consumer.announce(3)
    async with consumer:
        share = await consumer.announcements.share(10, False, [], SOON)
        assert share is not None
        assert [entry.lbs_id for entry in share.entries] == lbs_ids


async def test_a_beat_renews_the_lock_and_says_when_there_is_none(redis: Connection, a: Consumer) -> None:
    await redis.pexpire(a.lock_key, 1000)
    assert await a.lock.beat(SOON) is True
    assert await redis.pttl(a.lock_key) > 1000
    await a.die()
    assert await a.lock.beat(SOON) is False
    assert not await redis.exists(a.lock_key)


async def test_leaving_gives_up_the_lock_and_acknowledges_nothing(redis: Connection, a: Consumer) -> None:
    await a.take(2)
    before = await a.snapshot()
    await a.lock.leave(SOON)
    await a.lock.leave(SOON)
    assert not await redis.exists(a.lock_key)
    assert await a.snapshot() == before


async def test_a_turn_to_sweep_is_given_to_one_member_and_again_when_it_is_over(a: Consumer, b: Consumer) -> None:
    assert await a.lock.renew(SOON, turn=0.2) == Renewal(held=True, turn=True)
    assert await b.lock.renew(SOON, turn=0.2) == Renewal(held=True, turn=False)

    async def next_turn() -> bool:
        return (await b.lock.renew(SOON, turn=0.2)).turn

    await wait_until(next_turn, "the next turn")


async def test_who_asks_for_the_turn_renews_the_lock_with_it(a: Consumer, redis: Connection) -> None:
    await redis.pexpire(a.lock_key, 1000)
    await a.lock.renew(SOON, turn=0.2)
    assert await redis.pttl(a.lock_key) > 1000
    await redis.delete(a.lock_key)
    alive = (await a.lock.renew(SOON, turn=0.2)).held
    assert not alive


async def test_a_full_redis_that_cannot_write_the_turn_down_gives_it_and_renews_the_lock(
    a: Consumer, redis: Connection
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    try:
        assert await a.lock.renew(SOON, turn=0.2) == Renewal(held=True, turn=True)
    finally:
        await redis.config_set("maxmemory", 0)


async def test_a_lock_says_something_else_and_lives_as_long_and_an_order_stays(a: Consumer) -> None:
    before = await a.redis.get(a.lock_key)
    await a.lock.say(lock_value.NOTHING, SOON)
    assert await a.redis.get(a.lock_key) == before, "it says so already"
    assert before is not None
    await a.redis.set(a.lock_key, before[:-1] + b', "drain": 7}', px=30_000)
    await a.lock.say(Says(draining=True, paused_ms=5), SOON)
    after = await a.redis.get(a.lock_key)
    assert after == before[:-1] + b', "draining": true, "paused": 5, "drain": 7}'
    assert 0 < await a.redis.pttl(a.lock_key) <= 30_000
    await a.lock.join(SOON)
    joined = lock_value.describe(await a.redis.get(a.lock_key) or b"")
    assert (joined.says, joined.drain_ordered) == (Says(draining=True, paused_ms=5), True)


async def test_a_lock_that_is_gone_says_nothing_until_it_is_taken_again(a: Consumer) -> None:
    await a.die()
    await a.lock.say(Says(draining=True), SOON)
    assert not await a.redis.exists(a.lock_key)
    await a.lock.join(SOON)
    assert lock_value.describe(await a.redis.get(a.lock_key) or b"").says == Says(draining=True)


async def test_the_orders_come_with_a_beat(a: Consumer) -> None:
    assert await a.lock.renew(SOON) == Renewal(held=True)
    assert (await a.lock.renew(SOON, orders=True)).orders == Standing(None, drain=False)
    await a.redis.set(a.keys.paused, '{"since": 2000, "reason": "a migration"}')
    value = await a.redis.get(a.lock_key)
    assert value is not None
    await a.redis.set(a.lock_key, value[:-1] + b', "drain": 7}', px=30_000)
    renewal = await a.lock.renew(SOON, turn=60.0, orders=True)
    assert renewal == Renewal(held=True, turn=True, orders=Standing(Pause("a migration", 2.0), drain=True))
    await a.redis.lpush("elsewhere", "x")
    await a.redis.rename("elsewhere", a.keys.paused)
    assert isinstance((await a.lock.renew(SOON, orders=True)).orders, RedisRejected)
    await a.die()
    renewal = await a.lock.renew(SOON, turn=60.0)
    assert not renewal.held
