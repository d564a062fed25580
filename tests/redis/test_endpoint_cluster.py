"""Redis Cluster: a service lives on the node that has its slot, and follows the slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from redis_stream_client import DeadLetters, LoadBalancerStream, RedisRejected, RedisStreamClient, StreamAdded
from redis_stream_client._model.keys import Keys
from tests.harness.permissions import RULE
from tests.harness.ports import HOST
from tests.harness.scenes import bury_one, claim_next, die_with, live_through_it, next_event, release_and_retake
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[Connection]:
    async with RedisCluster.from_url(cluster.url) as redis:
        yield redis


@pytest.mark.parametrize("name", ["{}", "{{orders}}-{}", "{{{}}}"], ids=["plain", "tag before", "all tag"])
async def test_the_life_of_a_stream(redis: Connection, service: str, name: str) -> None:
    service = name.format(service)
    async with RedisStreamClient(redis, service, lock_ttl=0.6) as client:
        await live_through_it(client, redis, service)
        await release_and_retake(client, redis, service)
        await bury_one(client, redis, service)


async def test_services_on_every_node(cluster: Cluster, redis: Connection, service: str) -> None:
    services = [f"{service}-{i}" for i in range(50)]
    by_node = {cluster.owner_of(Keys(name).lbs).port: name for name in services}
    assert len(by_node) == len(cluster.nodes)
    for port, name in by_node.items():
        async with RedisStreamClient(redis, name) as client:
            await live_through_it(client, redis, name)
            assert any(node.port == port and node.command("EXISTS", Keys(name).lbs) for node in cluster.nodes)


async def test_many_announcements(redis: Connection, service: str) -> None:
    streams = [f"call-{i}" for i in range(1200)]
    assert len(set(await LoadBalancerStream(redis, service).add_many(streams))) == 1200
    async with RedisStreamClient(redis, service, lock_ttl=5.0, prefetch=2000) as client:
        await wait_until(lambda: len(client.leases) == 1200, "all have arrived")
        assert {lease.stream for lease in client.leases.values()} == set(streams)


async def test_a_plain_client_on_another_node_is_told_what_to_use(
    cluster: Cluster, redis: Connection, service: str
) -> None:
    other = next(node for node in cluster.nodes if node is not cluster.owner_of(Keys(service).lbs))
    async with Redis.from_url(other.url) as plain:
        letters, producer = DeadLetters(plain, service), LoadBalancerStream(plain, service)
        for call in (letters.count, lambda: anext(aiter(letters)), lambda: producer.add("call-1")):
            with pytest.raises(
                RedisRejected, match=r"node of a Redis Cluster.*\(give a redis\.asyncio\.RedisCluster"
            ):
                await call()
    assert not await redis.exists(Keys(service).lbs)


async def test_a_node_that_is_away(cluster: Cluster, redis: Connection, service: str) -> None:
    nodes = [ClusterNode(HOST, 1), *(ClusterNode(HOST, node.port) for node in cluster.nodes)]
    async with RedisCluster(startup_nodes=nodes) as settings, RedisStreamClient(settings, service) as client:
        await live_through_it(client, redis, service)


async def test_the_readme_s_rule_and_one_command_are_enough(cluster: Cluster, redis: Connection) -> None:
    user, password, service = RULE[2], RULE[4].removeprefix(">"), "orders"
    for node in cluster.nodes:
        node.command("FLUSHALL")  # others use this service, too
        node.command(*RULE, "+cluster|slots")
    # Connecting is ours alone: redis-py would need more permissions to learn about the cluster.
    settings = RedisCluster(host=HOST, port=cluster.nodes[0].port, username=user, password=password)
    async with RedisStreamClient(settings, service, lock_ttl=1.0) as client:
        await live_through_it(client, redis, service)


async def test_a_slot_that_moves(cluster: Cluster, redis: Connection, service: str) -> None:
    keys = Keys(service)
    async with RedisStreamClient(redis, service, lock_ttl=0.6) as client:
        await LoadBalancerStream(redis, service).add("held")
        held = (await next_event(client, StreamAdded, "held")).payload
        await die_with(redis, service, "orphaned", lock_ttl=1.5)
        move = cluster.start_to_move(keys.lbs)
        while move.keys():
            pass
        # The source asks for the target now, until the cluster has settled it: nobody's lock can be renewed.
        assert await held.lost() == "expired"
        move.finish()
        assert cluster.owner_of(keys.lbs) is move.target
        again = (await next_event(client, StreamAdded, "held")).payload
        assert again.fence > held.fence
        await again.done()
        await (await claim_next(client, "orphaned")).done()
        await live_through_it(client, redis, service)
        assert move.target.command("XLEN", keys.lbs) == 0


async def test_notifications_from_the_node_that_has_the_slot_now(
    cluster: Cluster, redis: Connection, service: str
) -> None:
    async with RedisStreamClient(redis, service, lock_ttl=0.6) as client:
        move = cluster.start_to_move(Keys(service).lbs)
        while move.keys():
            pass
        move.finish()
        await live_through_it(client, redis, service)
        await wait_until(lambda: move.target.command("PUBSUB", "NUMPAT") > 0, "it is heard", timeout=3)
