"""What holds for all stubs: replies are bounded, and what the server refuses is told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import RedisRejected
from redis_stream_client._model.announcement import FIELD
from redis_stream_client._protocol import base
from redis_stream_client._protocol.replies import Taken
from redis_stream_client._redis.error_mapping import GroupMissing
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection


LARGE = base.REPLY_BYTES // 4
"""Bytes of an announcement: four of them fill a reply."""


async def test_replies_with_announcements_are_bounded_by_bytes_and_say_what_is_left(
    redis: Connection, service: str, a: Consumer, b: Consumer
) -> None:
    for n in range(10):
        await redis.xadd(a.keys.lbs, {FIELD: b"x" * LARGE}, id=f"{n + 1}-0")
    ids = [f"{n + 1}-0" for n in range(10)]
    share = await b.announcements.share(10, False, [], SOON)
    assert share is not None
    delivered = [entry.lbs_id for entry in share.entries]
    while share.waiting:
        assert 4 <= len(share.entries) <= 16
        share = await b.announcements.share(10, False, [], SOON)
        assert share is not None
        delivered += [entry.lbs_id for entry in share.entries]
    assert delivered == ids

    adopted = await b.deliveries.adopt([(lbs_id, 1) for lbs_id in ids], SOON)
    assert adopted is not None
    assert ([entry.lbs_id for entry in adopted.entries], adopted.left) == (ids[:4], 6)

    await b.die()
    page = await a.pending.orphans(b.id, None, SOON)
    assert ([entry.lbs_id for entry in page.found], page.last) == (ids[:4], "4-0")
    page = await a.pending.orphans(b.id, "8-0", SOON)
    assert ([entry.lbs_id for entry in page.found], page.last) == (ids[8:], None)

    taken = await a.deliveries.claim_many(b.id, 250, SOON)
    assert isinstance(taken, Taken)
    assert ([entry.lbs_id for entry in taken.entries], taken.left, taken.more) == (ids[:4], 6, True)
    taken = await a.deliveries.claim_many(b.id, 4, SOON)
    assert isinstance(taken, Taken)
    assert ([entry.lbs_id for entry in taken.entries], taken.left, taken.more) == (ids[4:8], 2, False)


async def test_another_type_under_a_services_key_is_a_refusal_for_good(redis: Connection, service: str) -> None:
    consumer = Consumer(redis, service, "a")
    await redis.set(consumer.keys.lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        async with consumer:
            pass
    await consumer.__aexit__()


async def test_a_deleted_stream_is_a_missing_group_to_whoever_needs_it(redis: Connection, a: Consumer) -> None:
    await redis.delete(a.keys.lbs)
    for call in (
        a.deliveries.claim("1-1", "x", SOON),
        a.deliveries.done([("1-1", 1, "call-0")], SOON),
        a.announcements.share(1, True, [], SOON),
        a.group.members(SOON),
        a.pending.mine(None, SOON),
        a.group.census(SOON),
        a.group.rescue(None, SOON),
        a.announcements.read(0.1, SOON),
    ):
        with pytest.raises(GroupMissing):
            await call


async def test_a_flush_of_the_scripts_goes_unnoticed(redis: Connection, a: Consumer) -> None:
    for lbs_id in await a.take(3):
        await redis.script_flush()
        assert await a.deliveries.done([(lbs_id, 1, "call-0")], SOON) == ["done"]
