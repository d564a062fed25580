"""Where keys are: on the one server there is, or on the nodes of a cluster, whose slots move."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client._redis import placement, topology
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.placement import by_slot, placement_for
from tests.harness.cluster import Cluster, start_cluster
from tests.harness.waiting import wait_until
from tests.redis.clients import connects, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with start_cluster() as cluster:
        yield cluster


async def test_one_server_has_all_keys_and_one_command_may_name_any() -> None:
    redis = Redis()
    endpoint = endpoint_for(redis, "orders-input")
    where = placement_for(redis, endpoint)
    assert where.endpoint("key") is endpoint
    assert where.current(endpoint)
    assert by_slot(where, ["a", "b"], str) == [["a", "b"]]


async def test_in_a_cluster_one_command_names_keys_of_one_slot(cluster: Cluster) -> None:
    redis = settings(cluster.nodes[0])
    where = placement_for(redis, endpoint_for(redis, "key"))
    assert by_slot(where, ["{a}1", "{b}1", "{a}2"], str) == [["{a}1", "{a}2"], ["{b}1"]]
    assert by_slot(where, [1, 2], lambda number: f"{{a}}{number}") == [[1, 2]]


async def test_nodes_that_are_gone_are_not_current_and_the_same_node_is_the_same_object(
    own_cluster: Cluster,
) -> None:
    redis = settings(own_cluster.nodes[0])
    where = placement_for(redis, endpoint_for(redis, "key"))
    key = own_cluster.key_on(own_cluster.nodes[1])
    assert where.endpoint(key) is None
    await where.learn(2.0)
    old = where.endpoint(key)
    assert old is not None
    assert old is where.endpoint(key)
    assert where.current(old)
    extra = own_cluster.add_node()
    own_cluster.move(key, extra)

    async def moved() -> bool:
        where.forget()
        if where.endpoint(key) is None:
            await where.learn(2.0)
        return where.endpoint(key) is not old

    await wait_until(moved, "the new owner is known", timeout=3)
    new = where.endpoint(key)
    assert new is not None
    assert where.current(new)
    assert await connects(new) == extra.port
    assert where.current(old)  # of other slots
    own_cluster.move(key, own_cluster.nodes[1])

    async def moved_back() -> bool:
        where.forget()
        if where.endpoint(key) is None:
            await where.learn(2.0)
        return where.endpoint(key) is old

    await wait_until(moved_back, "the first one has it again", timeout=3)
    assert not where.current(new)


async def test_looks_are_shared_and_rare_however_often_something_is_forgotten(cluster: Cluster) -> None:
    redis = settings(cluster.nodes[0])
    where = placement_for(redis, endpoint_for(redis, "key"))
    await where.learn(2.0)

    def asked() -> int:
        stats = [node.command("INFO", "commandstats") for node in cluster.nodes]
        return sum(one.get("cmdstat_cluster|slots", {"calls": 0})["calls"] for one in stats)

    before, started = asked(), time.monotonic()
    while time.monotonic() - started < 1.0:
        where.forget()
        if where.endpoint("key") is None:
            await asyncio.gather(*(where.learn(2.0) for _ in range(10)))
        await asyncio.sleep(0.002)
    if cluster.nodes[0].binary.version >= (7, 0):
        assert 1 <= asked() - before <= 5 * topology.SEVERAL
    await where.learn(2.0)  # it was forgotten just now
    assert where.endpoint("key") is not None


async def test_what_is_known_holds_while_nobody_can_say_better(own_cluster: Cluster) -> None:
    redis = settings(own_cluster.nodes[0])
    where = placement_for(redis, endpoint_for(redis, "key"))
    await where.learn(2.0)
    for node in own_cluster.nodes:
        node.freeze()
    where.forget()
    await asyncio.sleep(placement.PAUSE[0])
    assert where.endpoint("key") is None
    await where.learn(0.3)
    assert where.endpoint("key") is not None
    for node in own_cluster.nodes:
        node.thaw()
