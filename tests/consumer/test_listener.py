"""The server's notification flags: what is missing is added, nothing is removed, nothing costlier asked for."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client import RedisStreamClient
from redis_stream_client._consumer.listener import missing_flags
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection

FLAGS = "KEg$lshzxetdmnA"


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ("", "Kx"),
        ("K", "x"),
        ("x", "K"),
        ("Kx", ""),
        ("xK", ""),
        ("KA", ""),
        ("AKE", ""),
        ("A", "K"),
        ("Ex", "K"),
        ("KE$lsh", "x"),
        ("KEm", "x"),
    ],
)
def test_what_is_missing_of_expiry_events_by_key_is_added(flags: str, missing: str) -> None:
    assert missing_flags(flags) == missing


@given(st.text(alphabet=FLAGS, max_size=len(FLAGS)))
def test_afterwards_nothing_is_missing_and_nothing_costlier_was_added(flags: str) -> None:
    missing = missing_flags(flags)
    assert missing_flags(flags + missing) == ""
    assert set(missing) <= set("Kx") - set(flags)


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
