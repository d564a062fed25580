"""Ring 2: small reads past a large reply that takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from redis.asyncio import Redis

from redis_stream_client._model.entry import START
from redis_stream_client._model.gaps import UNKNOWN, Count
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams import bypass_reader
from redis_stream_client._streams.bypass_reader import BypassReader
from redis_stream_client._streams.cursor import Cursor
from tests.harness.logs import LOG
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


class Nobody:
    """Where cursors belong that nobody else reads."""

    def read(self, cursor: Cursor) -> None:
        pass

    def forget(self, cursor: Cursor) -> None:
        pass


def cursor_of(stream: str) -> Cursor:
    return Cursor(Nobody(), stream, START, Count(UNKNOWN, START), lambda history: None)


@pytest_asyncio.fixture
async def reader(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[BypassReader]:
    monkeypatch.setattr(bypass_reader, "AFTER", 0.01)
    monkeypatch.setattr(bypass_reader, "LATE", 0.01)
    user_client = Redis.from_url(server.url)
    endpoint = endpoint_for(user_client, "orders-input")
    reader = BypassReader(
        endpoint, placement_for(user_client, endpoint), ServerIdentity(), lambda cursor: True, LOG
    )
    try:
        yield reader
    finally:
        await reader.close()


async def test_what_waits_is_read_while_the_block_takes_long(reader: BypassReader, redis: Connection) -> None:
    cursors = [cursor_of(f"call-{number}") for number in range(3)]
    for cursor in cursors[:2]:
        await redis.xadd(cursor.stream, {"n": 1})
    async with reader.reading(lambda: cursors, 1.0):
        await wait_until(lambda: all(cursor.position != START for cursor in cursors[:2]), "both were read")
    assert [len(cursor.take()) for cursor in cursors] == [1, 1, 0]


async def test_a_block_that_is_quick_costs_nothing(reader: BypassReader, server: Server) -> None:
    async with reader.reading(lambda: [cursor_of("call-1")], 1.0):
        pass
    assert not [client for client in clients_of(server) if "more entries" in client["name"]]


async def test_what_is_read_elsewhere_meanwhile_is_not_read_twice(
    reader: BypassReader, redis: Connection, server: Server
) -> None:
    cursor = cursor_of("call-1")
    await redis.xadd(cursor.stream, {"n": 1})
    cursor.close()
    asked = 0

    def waiting() -> list[Cursor]:
        nonlocal asked
        asked += 1
        return [cursor]

    async with reader.reading(waiting, 1.0):
        await wait_until(lambda: asked > 1, "it was looked at")
    assert cursor.take() == []


async def test_the_connection_is_closed_when_it_is_not_needed_for_a_while(
    reader: BypassReader, redis: Connection, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bypass_reader, "UNUSED", 0.0)

    def connected() -> bool:
        return any("more-entries" in client["name"] for client in clients_of(server))

    cursor = cursor_of("call-1")
    await redis.xadd(cursor.stream, {"n": 1})
    async with reader.reading(lambda: [cursor], 1.0):
        await wait_until(lambda: cursor.position != START, "it is used")
    assert connected()
    async with reader.reading(list, 1.0):
        pass
    await wait_until(lambda: not connected(), "it is closed")
