"""Who says who is master: the user's own sentinels and pool, asked on our connections."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Sentinel
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection

from redis_stream_client import RedisStreamClient, RedisUnavailable
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.connection import lent_by
from tests.harness.ports import HOST
from tests.harness.scenes import live_through_it
from tests.harness.sentinel import NAME, Deployment, deploy
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until
from tests.redis.clients import connects

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deploy() as deployment:
        yield deployment


@pytest.fixture
async def masters(deployment: Deployment) -> Any:
    """Give a function that makes a client of the master, with a `Sentinel` of some class."""
    made: list[Any] = []

    def make(*sentinels: int, kind: Any = Sentinel, connection: dict[str, Any] | None = None, **more: Any) -> Any:
        ports = sentinels or (deployment.sentinel.port,)
        manager = kind([(HOST, port) for port in ports], **more)
        redis = manager.master_for(NAME, **(connection or {}))
        made.extend([redis, *manager.sentinels])
        return redis

    yield make
    for client in made:
        await client.aclose()


def elsewhere(host: str) -> type[Sentinel]:
    """A `Sentinel` of the user's that names another address."""

    class Mapped(Sentinel):
        async def discover_master(self, service_name: str) -> tuple[str, int]:
            _, port = await super().discover_master(service_name)
            return host, port

    return Mapped


async def test_the_user_s_own_sentinel_decides(deployment: Deployment, masters: Any, service: str) -> None:
    clients = [masters(kind=elsewhere("localhost"))]
    if "force_master_ip" in inspect.signature(Sentinel.__init__).parameters:  # redis-py 6 and later
        clients.append(masters(force_master_ip="localhost"))
    for redis in clients:
        connection: Any = await endpoint_for(redis, "key").open(2.0)
        assert (connection.host, connection.port) == ("localhost", deployment.master.port)
        wire.abort(connection)
        async with RedisStreamClient(redis, service, lock_ttl=1.0) as client:
            await live_through_it(client, redis, service)


async def test_a_sentinel_that_sees_too_few_others_is_not_believed(masters: Any) -> None:
    with pytest.raises(Unanswered, match=f"no sentinel knows a master of {NAME!r}"):
        await connects(endpoint_for(masters(min_other_sentinels=1), "key"))


async def test_a_sentinel_that_hangs_is_asked_last_the_next_time(
    deployment: Deployment, masters: Any, own_server: Any
) -> None:
    hanging = own_server()
    where = endpoint_for(masters(hanging.port, deployment.sentinel.port), "key")
    hanging.freeze()
    started = time.monotonic()
    assert await connects(where) == deployment.master.port
    assert time.monotonic() - started < 1.5
    started = time.monotonic()
    for _ in range(3):
        assert await connects(where) == deployment.master.port
    assert time.monotonic() - started < 0.5


async def test_the_user_s_sentinels_and_pool_are_never_used(deployment: Deployment, masters: Any) -> None:
    redis = masters()
    lent = [lent_by(each) for each in (redis, *redis.connection_pool.sentinel_manager.sentinels)]
    await connects(endpoint_for(redis, "key"))
    assert not any(lent)
    servers = (deployment.sentinel, deployment.master)
    await wait_until(lambda: not any(clients_of(server) for server in servers), "they have left no connection")


async def test_a_connection_class_for_sentinel_is_kept(deployment: Deployment, masters: Any, service: str) -> None:
    seen: list[tuple[str, int]] = []

    class Mine(SentinelManagedConnection):
        async def connect_to(self, address: Any) -> Any:
            seen.append(address)
            return await super().connect_to((HOST, address[1]))  # type: ignore[no-untyped-call]

    redis = masters(kind=elsewhere("nowhere.invalid"), connection={"connection_class": Mine})
    assert await connects(endpoint_for(redis, "key")) == deployment.master.port
    assert seen == [("nowhere.invalid", deployment.master.port)]
    async with RedisStreamClient(redis, service) as client:
        assert client.alive


async def test_a_pool_for_sentinel_with_a_setting_of_its_own(deployment: Deployment, masters: Any) -> None:
    class Translating(SentinelConnectionPool):
        def __init__(self, service_name: str, manager: Any, *, inside: str, **more: Any) -> None:
            super().__init__(service_name, manager, **more)  # type: ignore[no-untyped-call]
            self.inside = inside

        async def get_master_address(self) -> tuple[str, int]:
            host, port = await super().get_master_address()  # type: ignore[no-untyped-call]
            assert host == self.inside
            return HOST, port

    more = {"connection_pool_class": Translating, "inside": "inside.invalid"}
    redis = masters(kind=elsewhere("inside.invalid"), connection=more)
    assert await connects(endpoint_for(redis, "key")) == deployment.master.port


async def test_a_discovery_that_hangs_or_raises_is_bounded_and_named(masters: Any, service: str) -> None:
    class Hanging(Sentinel):
        async def discover_master(self, service_name: str) -> tuple[str, int]:
            await asyncio.sleep(60)
            raise AssertionError

    class Failing(Sentinel):
        async def discover_master(self, service_name: str) -> tuple[str, int]:
            raise ValueError("consul: 503")

    started = time.monotonic()
    with pytest.raises(Unanswered, match=r"no sentinel named the master of .* in time"):
        await connects(endpoint_for(masters(kind=Hanging), "key"), 0.3)
    assert time.monotonic() - started < 0.6
    with pytest.raises(RedisUnavailable, match="ValueError: consul: 503"):
        async with RedisStreamClient(masters(kind=Failing), service, connect_timeout=0.3):
            pass
