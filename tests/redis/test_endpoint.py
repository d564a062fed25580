"""One server, reached in the ways that users have: TLS, sockets, databases, and clients with other settings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from redis_stream_client import RedisRejected, RedisStreamClient, RedisUnavailable, StreamAdded
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from tests.harness.scenes import live_through_it, next_event, time_passes
from tests.harness.tls import Certificate, NoOpenSSL, serve_tls
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    try:
        return Certificate(tmp_path_factory.mktemp("tls"))
    except NoOpenSSL as error:
        pytest.skip(str(error))


@pytest.fixture
async def tls_port(own_server: Callable[..., Server], certificate: Certificate) -> AsyncIterator[int]:
    async with serve_tls(own_server, certificate) as port:
        yield port


async def test_tls(tls_port: int, certificate: Certificate, service: str) -> None:
    url = f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificate.path}"
    async with Redis.from_url(url) as redis, RedisStreamClient.from_url(url, service, lock_ttl=1.0) as client:
        await live_through_it(client, redis, service)


async def test_a_certificate_that_nobody_vouches_for(tls_port: int, service: str) -> None:
    with pytest.raises(RedisRejected, match="certificate"):
        async with RedisStreamClient.from_url(f"rediss://127.0.0.1:{tls_port}", service):
            pass


async def test_a_tls_connection_that_both_sides_have_closed_can_be_given_up(
    tls_port: int, certificate: Certificate
) -> None:
    url = f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificate.path}"
    async with Redis.from_url(url) as redis:
        connection = await endpoint_for(redis, "key").open(5.0)
        await wire.roundtrip(connection, 5.0, "QUIT")
        with pytest.raises(RedisConnectionError):
            await connection.read_response(disconnect_on_error=False)
        wire.abort(connection)


async def test_tls_where_the_server_speaks_none(server: Server, service: str) -> None:
    url = server.url.replace("redis://", "rediss://")
    with pytest.raises(RedisUnavailable, match=r"0\.5 s"):
        async with RedisStreamClient.from_url(url, service, connect_timeout=0.5):
            pass


async def test_a_unix_domain_socket(own_server: Callable[..., Server], service: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rsc-") as folder:  # a socket's path must be short
        own_server("--unixsocket", str(Path(folder) / "socket"))
        url = f"unix://{folder}/socket"
        async with Redis.from_url(url) as redis, RedisStreamClient.from_url(url, service) as client:
            await live_through_it(client, redis, service)


async def test_another_database(server: Server, redis: Connection, service: str) -> None:
    url = f"{server.url}/3"
    async with Redis.from_url(url) as third, RedisStreamClient.from_url(url, service, lock_ttl=1.0) as client:
        await live_through_it(client, third, service)
        assert await redis.dbsize() == 0


async def test_two_databases_are_two_fleets(server: Server, service: str) -> None:
    first = RedisStreamClient.from_url(f"{server.url}/1", service)
    second = RedisStreamClient.from_url(f"{server.url}/2", service)
    async with Redis.from_url(f"{server.url}/2") as redis, first, second:
        await live_through_it(second, redis, service)
        assert first.statistics().streams_added == first.statistics().claims_won == 0
        assert first.statistics().unread_events == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"decode_responses": True},
        {"protocol": 3, "decode_responses": True},
        {"single_connection_client": True},
        {"socket_timeout": 0.05},
        {"health_check_interval": 1},
        {"encoding": "latin-1"},
    ],
    ids=str,
)
async def test_a_client_with_other_settings(server: Server, service: str, settings: dict[str, Any]) -> None:
    connection: Connection = Redis.from_url(server.url, **settings)
    async with connection as redis, RedisStreamClient(redis, service) as client:
        await live_through_it(client, redis, service)


async def test_an_exhausted_pool_does_not_starve_the_heartbeat(server: Server, service: str) -> None:
    pool: Connection = BlockingConnectionPool.from_url(server.url, max_connections=1)
    redis: Connection = Redis.from_pool(pool)
    async with redis, Redis.from_url(server.url) as other, redis.pubsub() as taken:
        await taken.subscribe("all the connections that there are")
        async with RedisStreamClient(redis, service, lock_ttl=0.6) as client:
            await time_passes(2 * 0.6, client)
            await live_through_it(client, other, service)
            assert client.alive


async def test_leaving_one_database_hands_over_at_once(server: Server, service: str) -> None:
    url = f"{server.url}/3"
    async with Redis.from_url(url) as redis, RedisStreamClient.from_url(url, service, lock_ttl=30.0) as peer:
        leaver = RedisStreamClient.from_url(url, service, lock_ttl=30.0, consumer_name="leaver")
        async with leaver:
            await redis.xadd(f"{service}-input", {"lbs-input": '{"DataStreamName": "one"}'})
            await redis.xadd(f"{service}-input", {"lbs-input": '{"DataStreamName": "two"}'})
            left = (await next_event(leaver, StreamAdded)).payload.stream
        await wait_until(lambda: peer.statistics().unread_events == 2, "offered without waiting for the lock")
        assert left in ("one", "two")
