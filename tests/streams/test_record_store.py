"""Ring 3: a node of a Cluster dies that has progress records; they are where its replica is now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import RedisCluster

from redis_stream_client._model.keys import Keys
from tests.harness.cluster import Cluster, start_cluster
from tests.harness.runs import Running, add
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis_stream_client import Lease


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with start_cluster(1, node_timeout=1.0) as cluster:
        yield cluster


@pytest.mark.long
@pytest.mark.parametrize("harm", ["killed", "frozen"])
async def test_checkpoints_and_ends_go_on_when_a_node_with_records_dies(
    cluster: Cluster, service: str, harm: str
) -> None:
    keys = Keys(service)
    home = cluster.owner_of(keys.lbs)
    long = cluster.key_apart_from(keys.lbs)
    node = cluster.owner_of(long)
    short = cluster.key_on(node, "short-{}")
    elsewhere = cluster.key_on(home, "elsewhere-{}")
    go = asyncio.Event()
    ready: list[str] = []
    accepted: defaultdict[str, list[str]] = defaultdict(list)

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            if entry.id == "2-0":
                ready.append(lease.stream)
                await go.wait()
            await lease.checkpoint(entry.id)
            accepted[lease.stream].append(entry.id)
            if entry.id == "2-0" and lease.stream != long:
                return

    redis = RedisCluster.from_url(cluster.url)
    async with redis, Running(redis, service, handle, lock_ttl=4.0) as run:
        for stream in (long, short, elsewhere):
            for id in ("1-0", "2-0"):
                await redis.xadd(stream, {"n": 1}, id)
        await add(redis, service, [long, short, elsewhere])
        await wait_until(lambda: len(ready) == 3, "all have begun")
        cluster.wait_for_replicas([cluster.replica_of(node)])
        if harm == "killed":
            node.kill()
        else:
            node.freeze()
        go.set()
        await wait_until(lambda: run.client.statistics().streams_done == 2, "both are done", 20.0)
        # One whose checkpoint was under way when the client heard of the failover comes again.
        lease = await run.lease(long)
        await wait_until(lambda: lease.position == "2-0", "the long one goes on", 20.0)
        assert list(dict.fromkeys(accepted[long])) == ["1-0", "2-0"]
        await wait_until(lambda: run.client.statistics().records_unsettled == 0, "all are settled", 20.0)
        owner = cluster.owner_of(short)
        assert owner is not node
        assert owner.command("PTTL", keys.progress(short)) > 0
        assert home.command("PTTL", keys.progress(elsewhere)) > 0
        assert owner.command("HGET", keys.progress(long), "checkpoint") == b"2-0"
        assert run.client.statistics().lapses == 0
        assert len(run.leases) == 3
        if harm == "frozen":
            node.thaw()


async def test_a_node_that_does_not_answer_holds_up_no_stream_of_the_others(
    cluster: Cluster, service: str
) -> None:
    home = cluster.owner_of(Keys(service).lbs)
    stuck = cluster.key_apart_from(Keys(service).lbs)
    elsewhere = cluster.key_on(home, "elsewhere-{}")
    node = cluster.owner_of(stuck)
    redis = RedisCluster.from_url(cluster.url)
    async with redis, Running(redis, service, lock_ttl=4.0) as run:
        node.freeze()
        await add(redis, service, [stuck])
        await wait_until(lambda: len(run.client.leases) == 1, "it has arrived")
        await add(redis, service, [elsewhere])
        await wait_until(lambda: elsewhere in run.working, "the other one is handled", 1.0)
        await run.handles(stuck, elsewhere, timeout=20.0)
        node.thaw()
