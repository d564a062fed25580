"""Withholding announcements from producers, and restoring them: what is compared, and what changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.announcement import FIELD, encode
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection

LATE, EARLY = "99999999999999-0", "1-0"


async def announced(redis: Connection, consumer: Consumer) -> dict[str, str]:
    found = await redis.hgetall(consumer.keys.announced)
    return {stream.decode(): lbs_id.decode() for stream, lbs_id in found.items()}


async def owned(redis: Connection, consumer: Consumer, service: str) -> str:
    """The announcement of `call-0`, which the consumer owns."""
    lbs_id = await LoadBalancerStream(redis, service).add("call-0")
    await consumer.announcements.share(1, False, [], SOON)
    return lbs_id


async def test_a_withheld_stream_is_announced_anew_and_a_restored_one_is_not(
    redis: Connection, service: str, a: Consumer
) -> None:
    lbs = LoadBalancerStream(redis, service)
    lbs_id = await owned(redis, a, service)
    for _ in range(2):  # a repeat is the same
        assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON) == ["withheld"]
        assert await announced(redis, a) == {}
    for _ in range(2):
        assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON, restore=True) == ["restored"]
        assert await lbs.add("call-0") == lbs_id
    await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON)
    newer = await lbs.add("call-0")
    assert newer != lbs_id
    for restore in (True, False):
        assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON, restore=restore) == ["newer"]
        assert await announced(redis, a) == {"call-0": newer}


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("why", ["done", "count", "owner"])
async def test_only_the_owner_withholds(
    redis: Connection, service: str, a: Consumer, b: Consumer, why: str, restore: bool
) -> None:
    lbs_id = await owned(redis, a, service)
    expected = "gone"
    match why:
        case "done":
            await redis.xack(a.keys.lbs, a.keys.group, lbs_id)
        case "count":
            await redis.xclaim(a.keys.lbs, a.keys.group, a.id, 0, [lbs_id])
            expected = a.id
        case _:
            await redis.xclaim(a.keys.lbs, a.keys.group, b.id, 0, [lbs_id])
            expected = b.id
    before = await announced(redis, a)
    assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON, restore=restore) == [expected]
    assert await announced(redis, a) == before


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("known", ["no id", EARLY, LATE, "18446744073709551616-0"])
async def test_what_names_no_newer_outstanding_announcement_is_no_obstacle(
    redis: Connection, a: Consumer, known: str, restore: bool
) -> None:
    [lbs_id] = await a.take()
    await redis.hset(a.keys.announced, "call-0", known)
    result = await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON, restore=restore)
    assert result == ["restored" if restore else "withheld"]
    assert await announced(redis, a) == ({"call-0": lbs_id} if restore else {})


async def test_ids_are_compared_as_numbers(redis: Connection, a: Consumer) -> None:
    await redis.xadd(a.keys.lbs, {FIELD: encode("call-0")}, id="99-9")
    await a.announcements.share(1, False, [], SOON)
    await redis.xadd(a.keys.lbs, {FIELD: encode("call-0")}, id="99-10")
    await redis.hset(a.keys.announced, "call-0", "99-10")
    assert await a.deliveries.withhold([("99-9", 1, "call-0")], SOON) == ["newer"]


async def test_a_hash_of_another_type_is_no_obstacle(redis: Connection, a: Consumer) -> None:
    [lbs_id] = await a.take()
    await redis.set(a.keys.announced, "no hash")
    assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON) == ["withheld"]
    assert await a.deliveries.withhold([(lbs_id, 1, "call-0")], SOON, restore=True) == ["restored"]
    await redis.delete(a.keys.announced)


async def test_many_share_a_call_and_each_has_its_answer(redis: Connection, a: Consumer) -> None:
    lbs_ids = await a.take(3)
    await redis.xack(a.keys.lbs, a.keys.group, lbs_ids[1])
    entries = [(lbs_id, 1, f"call-{n}") for n, lbs_id in enumerate(lbs_ids)]
    assert await a.deliveries.withhold(entries, SOON) == ["withheld", "gone", "withheld"]
