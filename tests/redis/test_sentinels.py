"""Redis Sentinel: the client finds the master, and the next one when it has died."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Sentinel
from redis.exceptions import RedisError

from redis_stream_client import LoadBalancerStream, NotOwner, RedisStreamClient, StreamAdded, StreamDisowned
from tests.harness.ports import HOST
from tests.harness.scenes import live_through_it, next_event
from tests.harness.sentinel import NAME, Deployment, deploy
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.harness.connection import Connection

NOWHERE = (HOST, 1)
"""A sentinel that is not there."""


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with deploy() as deployment:
        yield deployment


@pytest.fixture
async def master(deployment: Deployment) -> AsyncIterator[Connection]:
    sentinel: Connection = Sentinel([NOWHERE, (HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]
    async with sentinel.master_for(NAME) as redis:
        yield redis
    for known in sentinel.sentinels:
        await known.aclose()


async def the_master_is_found(master: Connection) -> None:
    """Wait until redis-py finds it too, which wants the failover to have ended."""

    async def found() -> bool:
        with suppress(RedisError):
            return bool(await master.ping())
        return False

    await wait_until(found, "redis-py finds the new master", timeout=30)


@pytest.mark.long
async def test_a_fail_over(deployment: Deployment, master: Connection, service: str) -> None:
    async with RedisStreamClient(master, service, lock_ttl=0.6, connect_timeout=20.0) as client:
        await live_through_it(client, master, service)
        producer = LoadBalancerStream(master, service)
        await producer.add("before")
        old = (await next_event(client, StreamAdded, "before")).payload
        deployment.in_step()
        deployment.master.kill()
        # A sentinel needs half a second to be sure, and an election after that: the lock lapses before.
        disowned = await next_event(client, StreamDisowned)
        assert (disowned.payload, disowned.reason, old.owned) == (old, "expired", False)
        assert not client.alive
        new = (await next_event(client, StreamAdded, "before", timeout=30)).payload
        assert new.fence > old.fence
        with pytest.raises(NotOwner):
            await old.done()
        await new.done()
        assert client.alive
        await the_master_is_found(master)
        await live_through_it(client, master, service)


@pytest.mark.long
async def test_a_fail_over_that_loses_the_last_writes(
    deployment: Deployment, master: Connection, service: str
) -> None:
    async with RedisStreamClient(master, service, lock_ttl=20.0, connect_timeout=20.0) as client:
        producer = LoadBalancerStream(master, service)
        await producer.add("kept")
        kept = (await next_event(client, StreamAdded, "kept")).payload
        deployment.cut_off_the_replica()
        await producer.add("lost")
        lost = (await next_event(client, StreamAdded, "lost")).payload
        deployment.master.kill()
        deployment.replica.thaw()
        # The lock's lifetime outlives the failover: only the audit after the reconnect can tell.
        async with asyncio.timeout(30):
            assert await lost.lost() == "gone"
        assert kept.owned
        with pytest.raises(NotOwner):
            await lost.done()
        await kept.done()
        assert not client.leases
        await the_master_is_found(master)
        await live_through_it(client, master, service)
