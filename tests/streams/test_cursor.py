"""Ring 3: a failover loses entries that were read; what the new master accepts in their place is handed over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import Lease
from tests.harness.fleet import Member
from tests.harness.leases import state_of
from tests.harness.proxy import TcpProxy
from tests.harness.runs import add, record
from tests.harness.sentinel import replicate
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis_stream_client import Entry
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def write(server: Server, *ids: int) -> None:
    async with Redis.from_url(server.url) as redis:
        for id in ids:
            await redis.xadd(CALL, {"on": server.port}, id=f"{id}-0")


async def in_batches(lease: Lease) -> AsyncIterator[Entry]:
    """What `batches()` hands out, one by one."""
    async for batch in lease.batches(within=0):
        for entry in batch:
            yield entry


async def read(entries: AsyncIterator[Entry], *ids: int) -> None:
    """Read exactly these."""
    async with asyncio.timeout(15):
        assert [(await anext(entries)).id for _ in ids] == [f"{id}-0" for id in ids]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("follow", [Lease.entries, in_batches])
async def test_what_the_new_master_accepts_is_handed_over(
    service: str, late: bool, follow: Callable[[Lease], AsyncIterator[Entry]]
) -> None:
    """Also where the checkpoint of a lost entry comes late: it must not skip what stands in its place."""
    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy, Member(proxy.url, service, **TTL) as member:
            async with Redis.from_url(pair.master.url) as redis:
                await add(redis, service, [CALL])
            await member.owns(CALL)
            lease = member.lease(CALL)
            entries = follow(lease)
            await write(pair.master, 10, 20, 30)
            await read(entries, 10, 20, 30)
            await lease.checkpoint("30-0")
            await asyncio.to_thread(pair.cut_off_the_replica)
            await write(pair.master, 40, 50)
            await read(entries, 40, 50)
            if not late:
                await lease.checkpoint("50-0")
            proxy.upstream_port = pair.replica.port
            await asyncio.to_thread(pair.promote_the_replica)
            await write(pair.replica, 35, 45, 50, 60)
            if late:
                await checkpoint_of_a_lost_entry(lease)
                async with Redis.from_url(pair.replica.url) as redis:
                    assert (await record(redis, service, CALL))["checkpoint"] == "30-0"
            await read(entries, 35, 45, 50, 60)
            assert lease.owned
            await lease.checkpoint("60-0")
            with pytest.raises(ValueError, match="beyond the last entry"):
                await lease.checkpoint("60-1")
            async with Redis.from_url(pair.replica.url) as redis:
                assert (await record(redis, service, CALL))["checkpoint"] == "60-0"


async def checkpoint_of_a_lost_entry(lease: Lease) -> None:
    await lease.checkpoint("50-0")
    assert lease.owned


async def test_a_batch_that_was_not_full_begins_again_on_the_new_master(service: str) -> None:
    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy, Member(proxy.url, service, **TTL) as member:
            async with Redis.from_url(pair.master.url) as redis:
                await add(redis, service, [CALL])
            await member.owns(CALL)
            lease = member.lease(CALL)
            batches = lease.batches(max_entries=4, within=60.0)
            step = asyncio.ensure_future(anext(batches))
            await write(pair.master, 10)
            await wait_until(lambda: state_of(lease).collecting, "it has an entry, and waits")
            async with Redis.from_url(pair.master.url) as redis:
                assert await redis.wait(1, 5000) == 1
            await asyncio.to_thread(pair.cut_off_the_replica)
            await write(pair.master, 20, 40)
            proxy.upstream_port = pair.replica.port
            await asyncio.to_thread(pair.promote_the_replica)
            await write(pair.replica, 15, 30, 40)
            async with asyncio.timeout(15):
                assert [entry.id for entry in await step] == ["10-0", "15-0", "30-0", "40-0"]


async def test_a_connection_that_is_lost_repeats_nothing(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    async with Member(proxy.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        entries = member.lease(CALL).entries()
        await write(server, 10, 20, 30)
        await read(entries, 10, 20)
        for id in (40, 50, 60):
            await wait_until(proxy.cut, "connections are cut")
            await write(server, id)
            await read(entries, id - 10)
        accepted = proxy.accepted
        await wait_until(proxy.cut, "connections are cut")
        await wait_until(lambda: proxy.accepted > accepted, "it connects again")
        await write(server, 70)
        await read(entries, 60, 70)


async def test_a_restart_with_its_data_continues_after_the_checkpoint(own_server: Any, service: str) -> None:
    server = own_server()
    async with Member(server.url, service, **TTL) as member:
        async with Redis.from_url(server.url) as redis:
            await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        entries = lease.entries()
        await write(server, 10, 20, 30)
        await read(entries, 10, 20)
        await lease.checkpoint("20-0")
        await read(entries, 30)
        await asyncio.to_thread(server.restart, keep_data=True)
        await write(server, 40)
        await read(entries, 30, 40)
        assert lease.owned
        await lease.checkpoint("40-0")
