"""The server's notification flags: what is missing is added, nothing is removed, nothing costlier asked for."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import RedisStreamClient
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection


def expand(flags: str) -> set[str]:
    return set(flags.replace("A", "g$lshzxetd"))


@pytest.mark.parametrize("before", ["", "Kg", "Ex", "El", "KA", *map("".join, combinations("KE$", 3))])
async def test_joining_leaves_every_flag_that_was_there(redis: Connection, service: str, before: str) -> None:
    await redis.config_set("notify-keyspace-events", before)
    was = expand((await redis.config_get("notify-keyspace-events"))["notify-keyspace-events"])

    async def flags() -> set[str]:
        return expand((await redis.config_get("notify-keyspace-events"))["notify-keyspace-events"])

    async with RedisStreamClient(redis, service):

        async def complete() -> bool:
            return {"K", "x"} <= await flags()

        await wait_until(complete, "the flags are there")
        assert await flags() == was | {"K", "x"}
