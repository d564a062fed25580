"""What an operator changes in Redis, and that a repeated request changes nothing more."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.orders import Pause
from redis_stream_client._protocol import lock_value, operating
from redis_stream_client._protocol.lock import Standing
from redis_stream_client._protocol.lock_value import Says
from redis_stream_client._protocol.operating import Operator, decode_pause
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls
from tests.protocol.consumer import SOON
from tests.protocol.test_hints import Channel
from tests.protocol.test_listing import everything

if TYPE_CHECKING:
    from tests.protocol.consumer import Consumer


def operator_of(a: Consumer) -> Operator:
    return Operator(ScriptCalls(a.redis, Pooled(a.redis, a.keys.lbs), a.keys.lbs), a.keys)


# Pauses.


async def test_a_pause_keeps_its_beginning_and_changes_its_reason(a: Consumer) -> None:
    operator = operator_of(a)
    assert await operator.resume() is None
    began = await operator.pause('a "first" reason, ü')
    assert began.reason == 'a "first" reason, ü'
    assert began.since == pytest.approx(time.time(), abs=10)
    again = await operator.pause("another")
    assert again == Pause("another", began.since)
    async with Channel(a) as channel:
        assert await operator.resume() == again
        assert await operator.resume() is None
        await operator.pause("once more")
        assert await channel.heard() == ["ordered"] * 3


@pytest.mark.parametrize("key", [b"", b"yes", b"[]", b"{}", b'{"since": "x", "reason": 1}', b"[" * 100_000])
async def test_a_pause_that_makes_no_sense_is_one_all_the_same(a: Consumer, key: bytes) -> None:
    assert decode_pause(key) == (Pause("", 0.0) if key else None)
    await a.redis.set(a.keys.paused, key)
    assert (await operator_of(a).pause("mine")).reason == "mine"


async def test_a_key_of_another_type_is_overwritten_and_removed(a: Consumer) -> None:
    operator = operator_of(a)
    await a.redis.lpush(a.keys.paused, "x")
    assert await operator.resume() is None
    assert not await a.redis.exists(a.keys.paused)
    await a.redis.lpush(a.keys.paused, "x")
    assert (await operator.pause("mine")).reason == "mine"


# Draining.


async def said(a: Consumer) -> lock_value.Description:
    return lock_value.describe(await a.redis.get(a.lock_key) or b"")


async def test_an_order_to_drain_goes_with_the_lock_and_no_sooner(a: Consumer) -> None:
    operator = operator_of(a)
    before = await a.redis.get(a.lock_key)
    assert not (await said(a)).drain_ordered
    async with Channel(a) as channel:
        assert await operator.order_drain(a.id) == "ordered"
        first = await a.redis.get(a.lock_key)
        assert await operator.order_drain(a.id) == "ordered"
        assert await channel.heard() == ["ordered"] * 2
    assert (await said(a)).drain_ordered
    assert await a.redis.get(a.lock_key) == first, "the second one changes nothing"
    assert 0 < await a.redis.pttl(a.lock_key) <= a.options.lock_ttl_ms
    assert first.startswith(before[:-1])
    await a.lock.leave(SOON)
    await a.lock.join(SOON)
    assert not (await said(a)).drain_ordered


async def test_an_order_to_drain_waits_for_one_that_is_away(a: Consumer, b: Consumer) -> None:
    operator = operator_of(a)
    for away, order in ((a, "ordered"), (b, "gone")):
        if order == "gone":
            await away.die()
        assert await operator.order_drain(away.id) == order
        await away.die()
        await away.lock.join(SOON)
        assert not (await said(away)).drain_ordered
        for _ in range(2):
            assert (await away.lock.renew(SOON, orders=True)).orders == Standing(None, drain=True)
        order_key = away.keys.drain(away.id)
        assert 0 < await a.redis.pttl(order_key) <= operating.DRAIN_KEPT
        await away.lock.leave(SOON)
        assert not await a.redis.exists(order_key)


async def test_a_kept_order_is_looked_for_once_and_not_missed_where_it_makes_no_sense(a: Consumer) -> None:
    order_key = a.keys.drain(a.id)
    await a.redis.lpush(order_key, "x")
    assert (await a.lock.renew(SOON, turn=60.0, orders=True)).orders == Standing(None, drain=False)
    await a.redis.delete(order_key)
    await a.redis.set(order_key, "1")
    assert (await a.lock.renew(SOON, orders=True)).orders == Standing(None, drain=False)
    await a.lock.join(SOON)
    assert (await a.lock.renew(SOON)).orders is None
    assert (await a.lock.renew(SOON, turn=60.0, orders=True)).orders == Standing(None, drain=True)


async def test_who_cannot_be_ordered_to_drain(a: Consumer) -> None:
    operator = operator_of(a)
    assert await operator.order_drain("stranger") == "unknown"
    await a.redis.set(a.lock_key, "mine")
    assert await operator.order_drain(a.id) == "foreign"
    await a.redis.delete(a.lock_key, a.keys.lbs)
    assert await operator.order_drain(a.id) == "unknown"


def test_what_a_lock_says_of_the_work() -> None:
    said = {"ttl": 1, "draining": True, "paused": 7, "drain": 3}
    described = lock_value.describe(json.dumps(said).encode())
    assert (described.says, described.drain_ordered) == (Says(draining=True, paused_ms=7), True)


# Evicting.


async def test_all_that_one_has_is_released_in_pages_and_the_last_one_takes_its_lock(
    a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "PAGE", 2)
    operator = operator_of(a)
    first, second, third = await b.take(3)
    await a.redis.hset(a.keys.present, b.id, "declared")
    async with Channel(a) as channel:
        assert await operator.evict(b.id) == (2, True)
        assert await a.redis.exists(b.lock_key)
        assert await operator.evict(b.id) == (1, False)
        assert await channel.heard() == [
            f"taken {first} {second} {b.id}",
            f"released {first} {second}",
            f"taken {third} {b.id}",
            f"released {third}",
            f"dead {b.id}",
        ]
        assert await operator.evict(b.id) == (0, False)
        assert await channel.heard() == [f"dead {b.id}"]
    assert not await a.redis.exists(b.lock_key, b.keys.present)
    assert await a.all_pending() == dict.fromkeys((first, second, third), (NOBODY, 1))


async def test_of_the_dead_nothing_is_released_and_of_strangers_nothing_is_known(a: Consumer, b: Consumer) -> None:
    operator = operator_of(a)
    [lbs_id] = await b.take()
    await b.die()
    assert await operator.evict(b.id) == (0, False)
    assert await a.all_pending() == {lbs_id: (b.id, 1)}
    assert await operator.evict("stranger") is None
    await a.redis.xgroup_destroy(a.keys.lbs, a.keys.group)
    assert await operator.evict(b.id) is None
    await a.redis.delete(a.keys.lbs)
    assert await operator.evict(b.id) is None


# Streams.


async def test_a_stream_is_taken_from_whoever_has_it_as_it_was_seen(a: Consumer, b: Consumer) -> None:
    operator = operator_of(a)
    [lbs_id] = await b.take()
    [found], _ = await everything(a)
    async with Channel(a) as channel:
        await operator.ask_for(found)
        assert not await operator.take_away(found._replace(deliveries=2))
        assert not await operator.take_away(found._replace(consumer=a.id))
        assert not await operator.take_away(found._replace(lbs_id="1-1"))
        assert await operator.take_away(found)
        assert not await operator.take_away(found)
        assert await channel.heard() == [
            f"give {b.id} {lbs_id} 1",
            f"taken {lbs_id} {b.id}",
            f"released {lbs_id}",
        ]
    assert await a.all_pending() == {lbs_id: (NOBODY, 1)}


async def test_who_lives(a: Consumer) -> None:
    assert await operator_of(a).lives(a.id)
    await a.die()
    assert not await operator_of(a).lives(a.id)
