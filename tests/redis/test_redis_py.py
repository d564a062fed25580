"""What is told of redis-py's inside holds for its oldest and its newest version: `nox -s redis_py` runs this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import NoScriptError, ResponseError

from redis_stream_client._redis import redis_py, wire
from redis_stream_client._redis.endpoint import endpoint_for

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

    from redis.asyncio.connection import AbstractConnection

    from tests.harness.servers import Server


@pytest_asyncio.fixture
async def connection(server: Server) -> AsyncGenerator[AbstractConnection]:
    connection = await endpoint_for(Redis.from_url(server.url), "key").open(5.0)
    try:
        yield connection
    finally:
        wire.abort(connection)


async def test_the_streams_of_a_connection(connection: AbstractConnection) -> None:
    reader, writer = redis_py.reader(connection), redis_py.writer(connection)
    assert reader is not None
    assert writer is not None
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    redis_py.close(connection)
    assert (redis_py.reader(connection), redis_py.writer(connection)) == (None, None)
    assert writer.is_closing()


async def test_what_a_parser_reads_can_be_watched(connection: AbstractConnection) -> None:
    class Counting:
        def __init__(self, stream: asyncio.StreamReader) -> None:
            self.stream = stream
            self.bytes = 0

        async def read(self, most: int) -> bytes:
            data = await self.stream.read(most)
            self.bytes += len(data)
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    counting = redis_py.wrap_stream(connection, Counting)
    assert await wire.roundtrip(connection, 5.0, "PING") == b"PONG"
    assert counting.bytes == len(b"+PONG\r\n")


def test_which_connections_have_an_address() -> None:
    assert redis_py.has_address(TcpConnection)
    assert redis_py.has_address(SSLConnection)
    assert not redis_py.has_address(UnixDomainSocketConnection)


async def test_a_name_is_connected_to_at_one_of_its_addresses_within_the_block_only(server: Server) -> None:
    _, _, port = server.url.rpartition(":")
    connection = TcpConnection(host="no.such.name", port=int(port.partition("/")[0]), protocol=2)
    before = vars(connection).keys()
    with redis_py.aimed(connection, "no.such.name", "127.0.0.1"):
        await connection.connect()  # type: ignore[no-untyped-call]
    assert await wire.roundtrip(connection, 5.0, "PING") == b"PONG"
    wire.abort(connection)
    assert vars(connection).keys() == before


@pytest.mark.parametrize("kind", [ConnectionPool, BlockingConnectionPool])
async def test_a_pool_lends_a_connection(server: Server, kind: type[ConnectionPool]) -> None:
    pool = kind.from_url(server.url)
    connection = await redis_py.borrow(pool)
    assert await wire.roundtrip(connection, 5.0, "PING") == b"PONG"
    await pool.release(connection)
    assert await redis_py.borrow(pool) is connection
    await pool.release(connection)
    await pool.disconnect()


async def test_a_copy_of_a_pool_has_none_of_its_connections() -> None:
    class Pool(SentinelConnectionPool):
        asked = 0

    manager: Any = Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]
    pool: Any = Pool("mymaster", manager)  # type: ignore[no-untyped-call]
    pool.asked = 17
    other: Any = Sentinel([("127.0.0.1", 2)])  # type: ignore[no-untyped-call]
    twin = redis_py.empty_copy(pool, sentinel_manager=other)
    assert type(twin) is Pool
    assert (twin.asked, twin.sentinel_manager, pool.sentinel_manager) == (17, other, manager)
    pool_state, twin_state = vars(pool), vars(twin)
    for name in ("_available_connections", "_in_use_connections"):
        assert twin_state[name] is not pool_state[name], name


async def test_whether_a_cluster_s_startup_nodes_are_dynamic() -> None:
    cluster = RedisCluster(host="127.0.0.1", port=1)
    said = redis_py.dynamic_startup_nodes(cluster.nodes_manager)
    assert said in (True, None)
    if said is not None:  # whatever the user's setting is: it need not be a bool
        cluster = RedisCluster(host="127.0.0.1", port=1, dynamic_startup_nodes=0)  # type: ignore[arg-type]
        assert redis_py.dynamic_startup_nodes(cluster.nodes_manager) is False


def test_error_replies_are_redis_py_s_exceptions() -> None:
    assert isinstance(redis_py.parse_error("NOSCRIPT No matching script."), NoScriptError)
    assert type(redis_py.parse_error("ERR what?")) is ResponseError
