"""Putting a dead letter back: announced and removed in one step, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._protocol import letters
from redis_stream_client._redis.pooled import Pooled
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection


async def test_a_letter_is_announced_again_and_removed_once(redis: Connection, a: Consumer) -> None:
    [lbs_id] = await a.take()
    [(_, announcement)] = await redis.xrange(a.keys.lbs)
    assert await a.deliveries.bury(lbs_id, 1, "why", SOON) == "buried"
    [(letter_id, _)] = await redis.xrange(a.keys.dead)
    async with Pooled(redis, a.keys.dead).connection("put back") as loan:
        again = await letters.put_back(loan, a.keys, letter_id.decode())
        assert again is not None
        assert await redis.xrange(a.keys.lbs) == [(again.encode(), announcement)]
        assert await redis.xlen(a.keys.dead) == 0
        assert await letters.put_back(loan, a.keys, letter_id.decode()) is None
    assert await redis.xlen(a.keys.lbs) == 1


@pytest.mark.parametrize("packed", [False, True])
async def test_a_stream_that_is_put_back_is_known_to_be_announced(
    redis: Connection, a: Consumer, packed: bool
) -> None:
    name = 'ümlaut "1"\\'
    others = {f"x{n}": "" for n in range(2500 if packed else 0)}
    await redis.xadd(a.keys.lbs, {FIELD: encode(name, {"n": 1}), **others})
    share = await a.announcements.share(1, False, [], SOON)
    assert share is not None
    await a.deliveries.bury(share.entries[0].lbs_id, 1, "why", SOON, details="{}", stream=name)
    [(letter_id, _)] = await redis.xrange(a.keys.dead)
    async with Pooled(redis, a.keys.dead).connection("put back") as loan:
        again = await letters.put_back(loan, a.keys, letter_id.decode())
        assert await redis.hgetall(a.keys.announced) == {name.encode(): (again or "").encode()}


async def test_what_cannot_be_remembered_is_put_back_all_the_same(redis: Connection, a: Consumer) -> None:
    await redis.set(a.keys.announced, "text")
    [lbs_id] = await a.take()
    await a.deliveries.bury(lbs_id, 1, "why", SOON)
    [(letter_id, _)] = await redis.xrange(a.keys.dead)
    async with Pooled(redis, a.keys.dead).connection("put back") as loan:
        assert await letters.put_back(loan, a.keys, letter_id.decode())
    assert await redis.xlen(a.keys.lbs) == 1
