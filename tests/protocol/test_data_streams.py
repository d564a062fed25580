"""Looking at data streams: bounded in bytes, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.gaps import Look
from redis_stream_client._protocol import data_streams
from redis_stream_client._protocol.data_streams import PEEKED_BYTES, TOUCHED_BYTES, UNCOUNTED
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from tests.harness.binaries import chosen
from tests.protocol.consumer import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection

counts = pytest.mark.skipif(chosen() == "redis-6.2", reason="Redis 6.2 does not count what was ever added")


@pytest.fixture
async def connection(redis: Connection) -> AsyncIterator[SharedConnection]:
    """To the server of the test."""
    connection = SharedConnection(endpoint_for(redis, "s"))
    yield connection
    await connection.close()


async def test_a_peek_brings_the_next_entries_behind_each_position(
    redis: Connection, connection: SharedConnection
) -> None:
    for n in range(20):
        await redis.xadd("a", {"n": n}, id=f"{n + 1}-0")
    await redis.xadd("b", {"n": 0}, id="1-0")
    await redis.set("c", "no stream")
    a, b, c, d = await data_streams.peek(connection, ["a", "b", "c", "d"], ["3-0", "1-0", "0-0", "0-0"], SOON)
    assert [entry[0] for entry in a] == [f"{n}-0".encode() for n in range(4, 20)]
    assert a[0] == [b"4-0", [b"n", b"3"]]
    assert (b, c, d) == ([], [], [])


async def test_a_peek_has_room_for_so_many_bytes_and_leaves_the_rest_out(
    redis: Connection, connection: SharedConnection
) -> None:
    half = b"x" * (PEEKED_BYTES // 2)
    await redis.xadd("a", {"n": half}, id="1-0")  # with its field's name more than a half
    await redis.xadd("b", {"n": half}, id="1-0")
    await redis.xadd("c", {"n": half + half})
    a, b, c = await data_streams.peek(connection, ["a", "b", "c"], ["0-0"] * 3, SOON)
    assert ([entry[0] for entry in a], b, c) == ([b"1-0"], [], [])
    await redis.xadd("a", {"": half + half}, id="2-0")
    assert len(await data_streams.peek(connection, ["a", "b"], ["1-0", "0-0"], SOON)) == 1


@counts
async def test_a_look_tells_what_was_added_is_there_and_was_deleted(
    redis: Connection, connection: SharedConnection
) -> None:
    for n in range(5):
        await redis.xadd("a", {"n": n}, id=f"{n + 1}-0")
    await redis.xdel("a", "3-0")
    await redis.xtrim("a", minid="2-0", approximate=False)
    await redis.set("c", "no stream")
    looks = await data_streams.gaps(connection, ["a", "b", "c"], SOON)
    assert looks == [Look(5, 3, "2-0", "5-0", "3-0"), Look(0, 0, "0-0", "0-0", "0-0"), None]


@counts
async def test_a_look_stops_behind_large_entries(redis: Connection, connection: SharedConnection) -> None:
    for stream in ("a", "b", "c"):
        await redis.xadd(stream, {"n": b"x" * TOUCHED_BYTES})
    assert len(await data_streams.gaps(connection, ["a", "b", "c"], SOON)) == 1


@pytest.mark.skipif(chosen() != "redis-6.2", reason="later servers count")
async def test_where_nothing_is_counted_that_is_said(redis: Connection, connection: SharedConnection) -> None:
    await redis.xadd("a", {"n": 1})
    assert await data_streams.gaps(connection, ["a"], SOON) == [UNCOUNTED]
