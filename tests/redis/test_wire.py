"""Commands and messages on one connection of redis-py: answered, given up, closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from redis.asyncio.connection import AbstractConnection

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy


@pytest_asyncio.fixture
async def connection(proxy: TcpProxy) -> AsyncGenerator[AbstractConnection]:
    connection = await endpoint_for(Redis.from_url(proxy.url), "key").open(5.0)
    try:
        yield connection
    finally:
        wire.abort(connection)


async def test_a_roundtrip(connection: AbstractConnection) -> None:
    assert await wire.roundtrip(connection, 5.0, "ECHO", "ä") == "ä".encode()
    with pytest.raises(RedisRejected, match="wrong number of arguments"):
        await wire.roundtrip(connection, 5.0, "GET")


async def test_a_roundtrip_without_an_answer(connection: AbstractConnection, proxy: TcpProxy) -> None:
    proxy.freeze()
    with pytest.raises(Unanswered) as raised:
        await wire.roundtrip(connection, 0.05, "PING")
    assert raised.value.maybe_executed


async def test_what_the_peer_has_closed_is_ended_and_takes_no_command(
    connection: AbstractConnection, redis: Connection
) -> None:
    assert wire.is_open(connection)
    assert not wire.is_ended(connection)
    client_id = await wire.roundtrip(connection, 5.0, "CLIENT", "ID")
    await redis.execute_command("CLIENT", "KILL", "ID", client_id)
    await wait_until(lambda: wire.is_ended(connection), "it is noticed")


@pytest.mark.parametrize("close", [wire.close, wire.abort])
async def test_what_we_have_closed_is_ended_and_may_be_closed_again(
    connection: AbstractConnection, close: Callable[[AbstractConnection], Awaitable[None] | None]
) -> None:
    for _ in range(2):
        if (closing := close(connection)) is not None:
            await closing
    assert not wire.is_open(connection)
    assert wire.is_ended(connection)
    with pytest.raises(RedisConnectionError, match="was closed"):
        await wire.send(connection, ("PING",))


async def test_messages_of_a_subscription(connection: AbstractConnection, redis: Connection) -> None:
    await wire.roundtrip(connection, 5.0, "SUBSCRIBE", "channel")
    await redis.publish("channel", b"one")
    await redis.publish("channel", b"two")
    for word in (b"one", b"two"):
        assert await wire.next_message(connection, 5.0, 2.5) == [b"message", b"channel", word]


async def test_a_silent_subscription_is_asked_whether_it_lives(
    connection: AbstractConnection, proxy: TcpProxy
) -> None:
    await wire.roundtrip(connection, 5.0, "SUBSCRIBE", "channel")
    assert await wire.next_message(connection, 0.05, 0.025) == [b"pong", b"still there?"]
    proxy.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await wire.next_message(connection, 0.05, 0.025)
