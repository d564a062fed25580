"""Where the servers of a Cluster are: its nodes come, go, die, hang and lie."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_stream_client import LoadBalancerStream, RedisRejected, RedisStreamClient, RedisUnavailable
from redis_stream_client._model.keys import Keys
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._redis.topology import Topology, View
from tests.harness.binaries import chosen, locate
from tests.harness.cluster import Cluster, start_cluster
from tests.harness.ports import HOST, free_port
from tests.harness.scenes import live_through_it
from tests.harness.servers import Server, clients_of
from tests.harness.waiting import wait_until
from tests.redis.clients import connects, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.connection import Connection


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with start_cluster() as cluster:
        yield cluster


def primaries(cluster: Cluster) -> frozenset[tuple[str, int]]:
    return frozenset((HOST, node.port) for node in cluster.nodes)


def ranges(cluster: Cluster) -> list[tuple[int, int, int]]:
    """First slot, last slot and port, as the cluster's nodes say."""
    return [(first, last, primary[1]) for first, last, primary, *_ in cluster.nodes[0].command("CLUSTER", "SLOTS")]


def cut(*nodes: Server) -> None:
    for node in nodes:
        node.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        node.command("CLIENT", "KILL", "TYPE", "pubsub")


# A node that does not help.


async def test_a_node_that_was_removed_keeps_nobody_out(own_cluster: Cluster, service: str) -> None:
    extra = own_cluster.add_node()
    redis = settings(extra)
    owner = own_cluster.owner_of(Keys(service).lbs)
    async with RedisStreamClient(redis, service, lock_ttl=2.0) as client:
        own_cluster.remove(extra)
        assert extra.command("CLUSTER", "SLOTS") == []
        for _ in range(3):
            cut(owner)
            beats = client.statistics().beats
            await wait_until(lambda: client.statistics().beats > beats and client.alive, "it is back")
        assert client.statistics().lapses == 0
        async with RedisCluster.from_url(own_cluster.url) as other:
            await live_through_it(client, other, service)
    # Whoever comes later, with the same settings: what was learned here leads on.
    async with RedisStreamClient(settings(extra), service) as client:
        assert client.alive
    assert await LoadBalancerStream(settings(extra), service).add("call")


async def test_a_node_that_hangs_costs_a_moment_once(own_cluster: Cluster) -> None:
    owner = own_cluster.masters[0]
    frozen = own_cluster.masters[1]
    where = endpoint_for(settings(frozen, owner), own_cluster.key_on(owner))
    frozen.freeze()
    started = time.monotonic()
    assert await connects(where) == owner.port
    assert time.monotonic() - started < 1.0
    started = time.monotonic()
    for _ in range(6):
        assert await connects(where) == owner.port
    assert time.monotonic() - started < 1.2
    frozen.thaw()


async def test_startup_nodes_are_the_last_resort_when_all_that_were_learned_are_gone(cluster: Cluster) -> None:
    async with Liar((0, 8_191, free_port()), (8_192, 16_383, free_port())) as liar:
        looking = Topology(settings(liar, cluster.nodes[0]))
        assert not (await looking.look(None, 2.0)).primaries & primaries(cluster)  # a cluster that has moved since
    assert (await looking.look(None, 2.0)).primaries == primaries(cluster)


async def test_a_node_of_another_cluster_by_now_leads_nobody_astray(cluster: Cluster) -> None:
    with start_cluster() as other:
        lost, stranger = cluster.nodes[0].port, other.nodes[0].port
        for turn in range(3):  # whichever node is asked first
            async with Liar() as liar:  # knows nothing, and then what was true before one node changed hands
                looking = Topology(settings(liar))
                for _ in range(turn):
                    with pytest.raises(Unanswered):
                        await looking.look(None, 2.0)
                liar.ranges = tuple(
                    (first, last, stranger if port == lost else port) for first, last, port in ranges(cluster)
                )
                view = await looking.look(None, 2.0)
                assert view.primaries == primaries(cluster) - {(HOST, lost)} | {(HOST, stranger)}
            assert (await looking.look(None, 2.0)).primaries == primaries(cluster)


async def test_a_view_without_our_slot_is_no_answer(cluster: Cluster, own_server: Any) -> None:
    alone = own_server("--cluster-enabled", "yes")
    key = cluster.key_on(cluster.nodes[1])
    where = endpoint_for(settings(alone, cluster.nodes[0]), key)
    assert await connects(where) == cluster.nodes[1].port
    with pytest.raises(Unanswered, match="serves slot"):
        await connects(endpoint_for(settings(alone), key))


class Liar:
    """A node that answers anything, once: what `CLUSTER SLOTS` says is up to the test."""

    def __init__(self, *ranges: tuple[int, int, int]) -> None:
        self.ranges = ranges
        self.asked = 0

    async def __aenter__(self) -> Liar:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                await reader.readline()
                words.append((await reader.readline()).strip().upper())
            if words[:2] == [b"CLUSTER", b"SLOTS"]:
                self.asked += 1
                writer.write(b"*%d\r\n" % len(self.ranges))
                for first, last, port in self.ranges:
                    writer.write(b"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n" % (first, last))
                    writer.write(b":%d\r\n$40\r\n%040d\r\n" % (port, port))
            else:
                writer.write(b"+OK\r\n")


async def test_a_node_with_an_old_map_leads_astray_once(cluster: Cluster) -> None:
    owner, *others = cluster.masters
    dead = free_port()
    old = [(first, last, dead if port == owner.port else port) for first, last, port in ranges(cluster)]
    async with Liar(*old) as liar:
        where = endpoint_for(settings(liar, *others), cluster.key_on(owner))
        with pytest.raises(Unanswered, match=f"{dead}: Connection refused"):
            await connects(where)
        assert await connects(where) == owner.port
        assert await connects(where) == owner.port


async def test_all_nodes_refusing_is_a_refusal_and_one_of_them_is_not(cluster: Cluster) -> None:
    wrong: dict[str, Any] = {"username": "nobody", "password": "wrong"}
    key = cluster.key_on(cluster.nodes[0])
    with pytest.raises(RedisRejected, match="refuses the login"):
        await connects(endpoint_for(settings(*cluster.nodes, **wrong), key))
    node = cluster.nodes[0]
    for other in cluster.nodes[1:]:  # the user is not known on the first one
        other.command("ACL", "SETUSER", "some", "on", ">secret", "allkeys", "+@all")
    some: dict[str, Any] = {"username": "some", "password": "secret"}
    other_key = cluster.key_on(cluster.nodes[1])
    assert await connects(endpoint_for(settings(*cluster.nodes, **some), other_key)) == cluster.nodes[1].port
    with pytest.raises(RedisRejected, match=f"{node.port} refuses the login"):
        await connects(endpoint_for(settings(*cluster.nodes, **some), key))


# What redis-py makes of it.


preferred = pytest.mark.skipif(locate(chosen()).version < (7, 0), reason="its nodes prefer nothing")


@preferred
async def test_nodes_that_name_no_host_are_where_they_were_asked(cluster: Cluster, service: str) -> None:
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        where = endpoint_for(settings(cluster.nodes[0]), cluster.key_on(cluster.nodes[2]))
        assert await connects(where) == cluster.nodes[2].port
    finally:
        for node in cluster.nodes:
            node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


@preferred
async def test_nodes_whose_preferred_name_is_not_known_have_their_address(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
    try:
        where = endpoint_for(settings(cluster.nodes[0]), cluster.key_on(cluster.nodes[2]))
        assert await connects(where) == cluster.nodes[2].port
    finally:
        for node in cluster.nodes:
            node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_addresses_are_remapped_as_redis_py_does(cluster: Cluster, service: str) -> None:
    ports = {free_port(): node.port for node in cluster.nodes}
    shown = {real: inner for inner, real in ports.items()}
    async with Liar(*((first, last, shown[port]) for first, last, port in ranges(cluster))) as inside:
        redis = RedisCluster(
            host=HOST,
            port=inside.port,
            address_remap=lambda address: (address[0], ports.get(address[1], address[1])),
        )
        key = cluster.key_on(cluster.nodes[1])
        assert await connects(endpoint_for(redis, key)) == cluster.nodes[1].port
        assert placement_for(redis, endpoint_for(redis, key)).current(endpoint_for(Redis(), key))


async def test_a_remap_that_fails_is_named(cluster: Cluster, service: str) -> None:
    def remap(address: tuple[str, int]) -> tuple[str, int]:
        raise KeyError(address)

    redis = RedisCluster(host=HOST, port=cluster.nodes[0].port, address_remap=remap)
    with pytest.raises(RedisUnavailable, match="KeyError"):
        async with RedisStreamClient(redis, service, connect_timeout=0.3):
            pass


async def test_the_user_s_own_cluster_client_is_never_used_nor_closed(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis:
        before = await redis.get("call")
        async with RedisStreamClient(redis, service) as client:
            await live_through_it(client, redis, service)
        assert await redis.get("call") == before
    idle = RedisCluster.from_url(cluster.url)
    async with RedisStreamClient(idle, service):
        pass
    assert not idle.nodes_manager.nodes_cache
    await wait_until(lambda: not any(clients_of(node) for node in cluster.nodes), "it has left no connection")


# A plain client.


@pytest.mark.parametrize("info", [True, False], ids=["INFO permitted", "INFO forbidden"])
async def test_a_plain_client_of_a_node_is_refused_when_joining(
    cluster: Cluster, service: str, info: bool
) -> None:
    node = cluster.owner_of(Keys(service).lbs)
    node.command(
        *("ACL", "SETUSER", "plain", "reset", "on", ">secret", "allkeys", "allchannels", "+@all"),
        *([] if info else ["-info"]),
    )
    redis: Connection = Redis(host=HOST, port=node.port, username="plain", password="secret")
    with pytest.raises(RedisRejected, match="RedisCluster"):
        async with RedisStreamClient(redis, service):
            pass


async def test_a_plain_client_of_a_node_cannot_announce_what_another_one_has(
    cluster: Cluster, service: str
) -> None:
    owner = cluster.owner_of(Keys(service).lbs)
    other = next(node for node in cluster.nodes if node is not owner)
    async with Redis(host=HOST, port=other.port) as redis:
        with pytest.raises(RedisRejected, match="RedisCluster"):
            await LoadBalancerStream(redis, service).add("call")


def test_a_view_knows_the_owner_of_each_slot() -> None:
    a, b = ("a", 1), ("b", 2)
    view = View(((0, 99, a), (200, 299, b)), frozenset({a, b}))
    assert [view.owner(slot) for slot in (0, 99, 100, 199, 200, 299, 300)] == [a, a, None, None, b, b, None]
    assert view.covered == 200
    assert [view.answers(slot) for slot in (250, 150, None)] == [True, False, False]
