"""Putting a dead letter back: announced and removed in one step, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
