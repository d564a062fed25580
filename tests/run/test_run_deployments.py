"""`run()` on a Redis Cluster, whose nodes share the data streams, and through a failover by Sentinel."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import RedisCluster, Sentinel
from redis.exceptions import RedisError

from redis_stream_client._model.keys import Keys
from tests.harness.ports import HOST
from tests.harness.runs import Ledger, Running, add
from tests.harness.sentinel import NAME, Deployment, deploy
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
STREAMS = [f"call-{i}" for i in range(24)]


@pytest.fixture
async def nodes(cluster: Cluster) -> AsyncIterator[Connection]:
    for node in cluster.nodes:
        node.command("FLUSHALL")
    async with RedisCluster.from_url(cluster.url) as redis:
        yield redis


async def feed(redis: Connection, streams: Sequence[str], entries: int, **fields: str) -> dict[str, list[str]]:
    """Add entries to each of the streams; returns their ids."""
    ids: dict[str, list[str]] = {stream: [] for stream in streams}
    for i in range(entries):
        for stream in streams:
            ids[stream].append((await redis.xadd(stream, {"n": i, **fields})).decode())
    return ids


async def test_streams_on_all_nodes_are_followed_and_checkpointed(
    cluster: Cluster, nodes: Connection, service: str
) -> None:
    assert len({cluster.owner_of(stream).port for stream in STREAMS}) == 3
    ledger = Ledger()
    async with Running(nodes, service, ledger.follow, lock_ttl=2.0) as first:
        ids = await feed(nodes, STREAMS, 3)
        await add(nodes, service, STREAMS)
        await first.handles(*STREAMS)
        await wait_until(lambda: ledger.accepted == ids, "all are followed")
        async with Running(nodes, service, ledger.follow, lock_ttl=2.0) as second:
            more = await feed(nodes, STREAMS, 2)
            await wait_until(lambda: all(ledger.accepted[s] == ids[s] + more[s] for s in STREAMS), "all are woken")
            first.client.drain()
            async with asyncio.timeout(2):
                await first.task
            await second.handles(*STREAMS)
            assert {lease.attempts for lease in second.leases} == {1}
            last = await feed(nodes, STREAMS, 1, end="")
            await wait_until(lambda: second.client.statistics().streams_done == len(STREAMS), "all are finished")
            assert ledger.handed == ledger.accepted == {s: ids[s] + more[s] + last[s] for s in STREAMS}
    for stream in STREAMS:
        key = Keys(service).progress(stream)
        assert cluster.owner_of(key) is cluster.owner_of(stream)
        assert (await nodes.hget(key, "checkpoint")).decode() == last[stream][0]
        assert await nodes.ttl(key) > 0


async def test_a_stream_whose_slot_moves_is_followed_to_its_new_node(
    cluster: Cluster, nodes: Connection, service: str
) -> None:
    lbs = cluster.owner_of(Keys(service).lbs)
    stream = next(s for s in STREAMS if cluster.owner_of(s) is not lbs)
    ledger = Ledger()
    async with Running(nodes, service, ledger.follow, lock_ttl=2.0) as run:
        ids = (await feed(nodes, [stream], 3))[stream]
        await add(nodes, service, [stream])
        await run.handles(stream)
        await wait_until(lambda: ledger.accepted[stream] == ids, "it is followed")
        move = cluster.start_to_move(stream)
        while move.keys():
            pass
        move.finish()
        assert cluster.owner_of(stream) is move.target
        ids += (await feed(nodes, [stream], 3))[stream]
        await wait_until(lambda: ledger.accepted[stream] == ids, "it is followed there")
        assert run.client.statistics().lapses == 0
        await feed(nodes, [stream], 1, end="")
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished")
    assert len(run.leases) == 1


async def test_a_slot_that_is_being_moved_holds_up_no_stream_of_others(
    cluster: Cluster, nodes: Connection, service: str
) -> None:
    lbs = cluster.owner_of(Keys(service).lbs)
    moving = next(s for s in STREAMS if cluster.owner_of(s) is not lbs)
    source = cluster.owner_of(moving)
    others = [name for i in range(150) if cluster.owner_of(name := f"other-{i}") is source]
    ledger = Ledger()
    async with Running(nodes, service, ledger.follow, lock_ttl=2.0) as run:
        await feed(nodes, [moving, *others], 1)
        await add(nodes, service, [moving, *others])
        await ledger.reached(dict.fromkeys([moving, *others], 1))
        move = cluster.start_to_move(moving)
        while move.keys():  # from here on the source sends whoever asks for it to the target
            pass
        connections = source.command("INFO", "stats")["total_connections_received"]
        for other in others[:30]:
            await feed(nodes, [other], 1)
            await asyncio.sleep(0.05)  # time itself: the move takes its time
        await ledger.reached(dict.fromkeys(others[:30], 2))
        opened = source.command("INFO", "stats")["total_connections_received"] - connections
        assert opened < 8  # one is our own; each that is opened anew makes all streams wait
        move.finish()
        await feed(nodes, [moving], 1)
        await ledger.reached({moving: 2})
        assert run.client.statistics().lapses == 0


# Sentinel.


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with deploy() as deployment:
        yield deployment


@pytest.fixture
async def master(deployment: Deployment) -> AsyncIterator[Connection]:
    sentinel: Connection = Sentinel([(HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]
    async with sentinel.master_for(NAME) as redis:
        yield redis
    for known in sentinel.sentinels:
        await known.aclose()


@pytest.mark.parametrize("writes", ["all arrived", "the last were lost"])
async def test_a_fail_over_while_entries_flow(
    deployment: Deployment, master: Connection, service: str, writes: str
) -> None:
    """A checkpoint that Redis has lost is accepted anew; nothing that it has kept is handed out again."""
    ledger = Ledger()
    async with Running(master, service, ledger.follow, lock_ttl=2.0, connect_timeout=20.0) as run:
        ids = (await feed(master, [CALL], 20))[CALL]
        await add(master, service, [CALL])
        await wait_until(lambda: ledger.accepted[CALL] == ids, "it is followed")
        deployment.in_step()
        if writes == "the last were lost":
            deployment.cut_off_the_replica()
            lost = (await feed(master, [CALL], 5))[CALL]
            await wait_until(lambda: ledger.accepted[CALL][-1] == lost[-1], "they are accepted")
        deployment.master.kill()
        deployment.replica.thaw()
        replica = deployment.replica
        await wait_until(lambda: is_master(replica), "the replica is promoted", timeout=30)
        after: list[str] = []
        for i in range(10):
            end = ("end", "") if i == 9 else ()
            after.append(replica.command("XADD", CALL, "*", "n", i, *end).decode())
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished", timeout=30)
        assert ledger.accepted[CALL][:20] == ids
        assert ledger.accepted[CALL][-10:] == after
        assert len(set(ledger.accepted[CALL])) == len(ledger.accepted[CALL])
        fences = [lease.fence for lease in run.leases]
        assert fences == sorted(set(fences))
        assert replica.command("HGET", Keys(service).progress(CALL), "checkpoint").decode() == after[-1]


def is_master(server: Server) -> bool:
    with suppress(RedisError):  # it closes connections when it is promoted
        return bool(server.command("INFO", "replication")["role"] == "master")
    return False
