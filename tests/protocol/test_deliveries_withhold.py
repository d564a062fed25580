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
    ask = [(lbs_id, 1, "call-0", 1)]
    for _ in range(2):  # a repeat is the same
        assert await a.deliveries.withhold(ask, SOON) == ["withheld"]
        assert await announced(redis, a) == {"call-0": f"{lbs_id}!1"}
    for _ in range(2):
        assert await a.deliveries.withhold(ask, SOON, restore=True) == ["restored"]
        assert await lbs.add("call-0") == lbs_id
    await a.deliveries.withhold(ask, SOON)
    newer = await lbs.add("call-0")
    assert newer != lbs_id
    for restore in (True, False):
        assert await a.deliveries.withhold(ask, SOON, restore=restore) == ["newer"]
        assert await announced(redis, a) == {"call-0": newer}


async def test_a_request_that_is_executed_late_undoes_nothing(
    redis: Connection, service: str, a: Consumer
) -> None:
    lbs_id = await owned(redis, a, service)
    first, second = [(lbs_id, 1, "call-0", 9)], [(lbs_id, 1, "call-0", 10)]
    await a.deliveries.withhold(first, SOON)
    await a.deliveries.withhold(first, SOON, restore=True)
    await a.deliveries.withhold(second, SOON)
    assert await a.deliveries.withhold(first, SOON, restore=True) == ["restored"]
    assert await a.deliveries.withhold(first, SOON) == ["withheld"]
    assert await announced(redis, a) == {"call-0": f"{lbs_id}!10"}
    assert await a.deliveries.withhold(second, SOON, restore=True) == ["restored"]
    assert await announced(redis, a) == {"call-0": lbs_id}


@pytest.mark.parametrize("end", ["done", "buried", "superseded"])
async def test_who_ends_an_announcement_that_is_withheld_forgets_it(
    redis: Connection, service: str, a: Consumer, end: str
) -> None:
    lbs_id = await owned(redis, a, service)
    await a.deliveries.withhold([(lbs_id, 1, "call-0", 1)], SOON)
    match end:
        case "done":
            await a.deliveries.done([(lbs_id, 1, "call-0")], SOON)
        case "buried":
            await a.deliveries.bury(lbs_id, 1, "reason", SOON, stream="call-0")
        case _:
            [newer] = await a.announce()
            assert await a.deliveries.supersede(lbs_id, 1, "call-0", newer, SOON) == "done"
    assert await announced(redis, a) == {}


async def test_a_newer_one_that_its_owner_withholds_does_not_count_either(
    redis: Connection, service: str, a: Consumer
) -> None:
    older = await owned(redis, a, service)
    newer = await LoadBalancerStream(redis, service).add("call-0", again=True)
    await redis.hset(a.keys.announced, "call-0", f"{newer}!3")
    for restore in (False, True):
        expected = ["restored" if restore else "withheld"]
        assert await a.deliveries.withhold([(older, 1, "call-0", 1)], SOON, restore=restore) == expected
        assert await announced(redis, a) == {"call-0": f"{newer}!3"}


async def test_one_is_superseded_only_while_the_newer_one_is_there_and_by_its_owner(
    redis: Connection, service: str, a: Consumer, b: Consumer
) -> None:
    lbs_id = await owned(redis, a, service)
    assert await a.deliveries.supersede(lbs_id, 1, "call-0", LATE, SOON) == "over"
    assert await announced(redis, a) == {"call-0": lbs_id}
    [newer] = await a.announce()
    assert await b.deliveries.supersede(lbs_id, 1, "call-0", newer, SOON) == a.id
    assert await a.deliveries.supersede(lbs_id, 2, "call-0", newer, SOON) == a.id
    assert lbs_id in await a.all_pending()
    assert await a.deliveries.supersede(lbs_id, 1, "call-0", newer, SOON) == "done"
    assert await a.deliveries.supersede(lbs_id, 1, "call-0", newer, SOON) == "gone"
    assert await a.all_pending() == {}
    assert await announced(redis, a) == {}


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
    assert await a.deliveries.withhold([(lbs_id, 1, "call-0", 1)], SOON, restore=restore) == [expected]
    assert await announced(redis, a) == before


@pytest.mark.parametrize("known", ["no id", EARLY, LATE, "18446744073709551616-0"])
async def test_what_names_no_newer_outstanding_announcement_is_no_obstacle(
    redis: Connection, a: Consumer, known: str
) -> None:
    [lbs_id] = await a.take()
    await redis.hset(a.keys.announced, "call-0", known)
    ask = [(lbs_id, 1, "call-0", 1)]
    assert await a.deliveries.withhold(ask, SOON) == ["withheld"]
    assert await announced(redis, a) == {"call-0": f"{lbs_id}!1"}
    assert await a.deliveries.withhold(ask, SOON, restore=True) == ["restored"]
    assert await announced(redis, a) == {"call-0": lbs_id}


async def test_ids_are_compared_as_numbers(redis: Connection, a: Consumer) -> None:
    await redis.xadd(a.keys.lbs, {FIELD: encode("call-0")}, id="99-9")
    await a.announcements.share(1, False, [], SOON)
    await redis.xadd(a.keys.lbs, {FIELD: encode("call-0")}, id="99-10")
    await redis.hset(a.keys.announced, "call-0", "99-10")
    assert await a.deliveries.withhold([("99-9", 1, "call-0", 1)], SOON) == ["newer"]


async def test_a_hash_of_another_type_is_no_obstacle(redis: Connection, a: Consumer) -> None:
    [lbs_id] = await a.take()
    await redis.set(a.keys.announced, "no hash")
    ask = [(lbs_id, 1, "call-0", 1)]
    assert await a.deliveries.withhold(ask, SOON) == ["withheld"]
    assert await a.deliveries.withhold(ask, SOON, restore=True) == ["restored"]
    await redis.delete(a.keys.announced)


async def test_a_full_redis_forgets_what_it_cannot_mark_as_withheld(
    redis: Connection, service: str, a: Consumer
) -> None:
    lbs_id = await owned(redis, a, service)
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    try:
        ask = [(lbs_id, 1, "call-0", 1)]
        assert await a.deliveries.withhold(ask, SOON) == ["withheld"]
        assert await announced(redis, a) == {}
        assert await a.deliveries.withhold(ask, SOON, restore=True) == ["restored"]
    finally:
        await redis.config_set("maxmemory", 0)


async def test_many_share_a_call_and_each_has_its_answer(redis: Connection, a: Consumer) -> None:
    lbs_ids = await a.take(3)
    await redis.xack(a.keys.lbs, a.keys.group, lbs_ids[1])
    entries = [(lbs_id, 1, f"call-{n}", n) for n, lbs_id in enumerate(lbs_ids)]
    assert await a.deliveries.withhold(entries, SOON) == ["withheld", "gone", "withheld"]
