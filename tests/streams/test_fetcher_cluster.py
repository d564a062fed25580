"""Ring 3: data streams on a Redis Cluster whose nodes die, change places, and give slots away."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import RedisCluster

from redis_stream_client import RedisStreamClient
from redis_stream_client._streams.node_fetcher import NodeFetcher
from tests.harness.cluster import start_cluster
from tests.harness.runs import Ledger, add
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.cluster import Cluster


class Flow:
    """A client in `run()` on a cluster, and streams that it waits for."""

    def __init__(self, cluster: Cluster, service: str, streams: list[str], *, in_batches: bool = False) -> None:
        self.cluster = cluster
        self.ledger = Ledger()
        self.leases: list[Lease] = []
        self.client = RedisStreamClient(RedisCluster.from_url(cluster.url), service, lock_ttl=2.0)
        self.redis = RedisCluster.from_url(cluster.url)
        self._service = service
        self._streams = streams
        self._follow = self.ledger.follow_in_batches if in_batches else self.ledger.follow
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Flow:
        self._task = asyncio.create_task(self.client.run(self._follow))
        await add(self.redis, self._service, self._streams)
        for stream in self._streams:
            await self.arrives(stream)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await stop(self._task)
        await self.redis.aclose()

    async def arrives(self, stream: str, within: float = 5.0) -> float:
        """Add an entry; returns after how many seconds it was accepted."""
        count = len(self.ledger.accepted[stream])
        started = time.monotonic()
        await self._write(stream)
        await wait_until(
            lambda: len(self.ledger.accepted[stream]) > count, f"an entry of {stream} is read", within
        )
        return time.monotonic() - started

    async def _write(self, stream: str) -> None:
        """To the node that has it, as the nodes that live say."""
        node = self.cluster.owner_of(stream)
        await asyncio.to_thread(node.command, "XADD", stream, "*", "n", 1)


def apart(cluster: Cluster, service: str) -> str:
    """A stream on another node than the announcements."""
    return cluster.key_apart_from(f"{service}-input")


def nodes_followed() -> int:
    """How many nodes are read from."""
    return sum(NodeFetcher.run.__qualname__ in str(task.get_coro()) for task in asyncio.all_tasks())


@pytest.mark.parametrize("in_batches", [False, True])
async def test_a_node_with_data_streams_dies(service: str, in_batches: bool) -> None:
    with start_cluster(replicas=1, node_timeout=1.0) as cluster:
        stream = apart(cluster, service)
        owner = cluster.owner_of(stream)
        async with Flow(cluster, service, [stream], in_batches=in_batches) as flow:
            await flow.arrives(stream)
            assert nodes_followed() == 1
            owner.kill()
            await asyncio.to_thread(cluster.wait_until_replaced, owner)
            await flow.arrives(stream, within=4.0)
            await flow.arrives(stream, within=2.0)
            await wait_until(lambda: nodes_followed() == 1, "the dead one is forgotten")
            assert flow.client.statistics().lapses == 0


@pytest.mark.parametrize("in_batches", [False, True])
async def test_nodes_change_places_and_slots_move(service: str, in_batches: bool) -> None:
    """While a handler waits for the next entry."""
    with start_cluster(replicas=1) as cluster:
        stream = apart(cluster, service)
        async with Flow(cluster, service, [stream], in_batches=in_batches) as flow:
            await asyncio.to_thread(cluster.fail_over, cluster.owner_of(stream))
            await flow.arrives(stream, within=3.0)
            await asyncio.to_thread(cluster.move, stream)
            await flow.arrives(stream, within=3.0)
            await flow.redis.delete(stream)
            await asyncio.to_thread(cluster.move, stream)  # a key that does not exist moves without a word
            await flow.arrives(stream, within=8.0)
            await flow.arrives(stream, within=1.0)
            assert flow.client.statistics().lapses == 0
