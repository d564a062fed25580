"""Each setting of a user's client is kept, ours on purpose, or refused by name: none is dropped silently."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection

from redis_stream_client import LoadBalancerStream, RedisStreamClient
from redis_stream_client._redis import settings, wire
from redis_stream_client._redis.endpoint import endpoint_for
from tests.harness.documents import DOCS
from tests.harness.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.servers import Server

TAKERS: dict[str, Callable[..., Any]] = {
    taker.__qualname__: taker
    for taker in (
        Redis.__init__,
        RedisCluster.__init__,
        ClusterNode.__init__,
        AbstractConnection.__init__,
        Connection.__init__,
        SSLConnection.__init__,
        UnixDomainSocketConnection.__init__,
        ConnectionPool.__init__,
        BlockingConnectionPool.__init__,
    )
}
"""What a user may give settings to."""


def parameters(taker: Callable[..., Any]) -> set[str]:
    return {
        name
        for name, parameter in inspect.signature(taker).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }


def is_kept(name: str) -> bool:
    return name in settings.KEPT or name.startswith("ssl_")


@pytest.mark.parametrize("taker", TAKERS)
def test_every_parameter_of_redis_py_is_in_the_table(taker: str) -> None:
    unknown = {name for name in parameters(TAKERS[taker]) if not is_kept(name) and name not in settings.OURS}
    assert not unknown, f"redis-py {taker} has parameters that settings.py does not know: {unknown}"


def test_no_setting_is_two_things() -> None:
    assert not settings.KEPT.keys() & settings.OURS.keys()
    assert not settings.REFUSED.keys() & (settings.KEPT.keys() | settings.OURS.keys())


def test_every_setting_that_is_ours_is_in_the_reference() -> None:
    reference = (DOCS / "reference" / "connections.md").read_text(encoding="utf-8")
    internal = {name for name, why in settings.OURS.items() if why == settings.INTERNAL}
    assert not [name for name in settings.OURS.keys() - internal if f"`{name}`" not in reference]


KEPT: dict[str, Any] = {
    "db": 3,
    "socket_keepalive": False,
    "socket_keepalive_options": {},
    "encoding": "latin-1",
    "encoding_errors": "replace",
}


async def test_settings_of_a_connection_are_kept(server: Server) -> None:
    redis: Any = Redis(host=HOST, port=server.port, socket_timeout=0.001, decode_responses=True, **KEPT)
    connection: Any = await endpoint_for(redis, "key").open(5.0)
    assert connection.db == 3
    assert connection.socket_keepalive is False
    assert connection.socket_timeout is connection.socket_connect_timeout is None
    assert connection.encoder.decode_responses is False
    assert connection.encoder.encoding == "latin-1"
    wire.abort(connection)


def test_each_kept_setting_of_a_connection_reaches_ours() -> None:
    given = {name: object() for name in settings.KEPT} | {"ssl_new_in_redis_py_9": 1, "mine": 2}
    kept = settings.own(given)
    for name in given.keys() - settings.REPLACED:
        assert kept[name] is given[name]
    for name in settings.OURS.keys() - {"protocol", "decode_responses", "retry_on_error"}:
        assert settings.own({name: 1}).get(name) is None


def both(redis: Any) -> list[Callable[[], Any]]:
    return [lambda: RedisStreamClient(redis, "orders"), lambda: LoadBalancerStream(redis, "orders")]


def test_a_client_of_replicas_is_refused_by_name() -> None:
    sentinel: Any = Sentinel([(HOST, 1)])  # type: ignore[no-untyped-call]
    for make in both(sentinel.slave_for("mymaster")):
        with pytest.raises(ValueError, match=r"is_master is False: .* use master_for\(\)"):
            make()


def test_a_pool_that_makes_connections_its_own_way_is_refused_by_a_member_and_lent_by_a_producer() -> None:
    class Odd(ConnectionPool):
        def make_connection(self) -> Any:
            return super().make_connection()  # type: ignore[no-untyped-call]

    redis: Any = Redis(connection_pool=Odd())
    with pytest.raises(ValueError, match=r"connection_pool is a .*Odd: .* give connection_class instead"):
        RedisStreamClient(redis, "orders")
    LoadBalancerStream(redis, "orders")


@pytest.mark.parametrize(
    ("given", "role", "shown"),
    [
        (None, "", None),
        (None, "beats", "redis_stream_client:beats"),
        ("billing", "", "billing"),
        ("billing", "beats", "billing:beats"),
        ("billing\n west\N{EM DASH}", "reads", "billing--west-:reads"),
    ],
)
def test_names_of_connections(given: str | None, role: str, shown: str | None) -> None:
    assert settings.client_name(given, role) == shown


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated usage")
async def test_read_only_is_not_asked_for_by_us(server: Server) -> None:
    cluster = RedisCluster(host=HOST, port=server.port, read_from_replicas=True)
    where: Any = endpoint_for(cluster, "key")
    assert "redis_connect_func" not in where.topology.connector.settings

    class Mine(RedisCluster):
        async def on_connect(self, connection: Any) -> None:
            await super().on_connect(connection)

    mine = Mine(host=HOST, port=server.port, read_from_replicas=True)
    where = endpoint_for(mine, "key")
    assert where.topology.connector.settings["redis_connect_func"] == mine.on_connect


def test_the_connection_class_of_a_cluster_is_kept() -> None:
    class Mine(Connection):
        pass

    cluster = RedisCluster(host=HOST, port=1)
    cluster.nodes_manager.connection_kwargs["connection_class"] = Mine
    where: Any = endpoint_for(cluster, "key")
    assert where.topology.connector.connection_class is Mine
    cluster = RedisCluster(host=HOST, port=1)
    for node in cluster.nodes_manager.startup_nodes.values():
        node.connection_class = Mine
    where = endpoint_for(cluster, "key")
    assert where.topology.connector.connection_class is Mine
