"""Lines with long round trips: nothing waits for as many of them as there are streams, owners or faults."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.keys import Keys
from tests.harness.runs import Running, idle
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy

DELAY = 0.15
"""Seconds for each request. What comes while another one is held waits for up to twice that."""
SOON = 2.0
"""Seconds that an entry may take to its handler: several round trips, whatever else is due on the connection."""


async def test_entries_are_read_soon_whatever_else_is_asked_on_the_connection(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    late: dict[str, float] = {}

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            late[lease.stream] = time.time() - float(entry.fields[b"written"])

    names = [f"{service}-{i}" for i in range(40)]
    async with Running(proxy.url, service, handle, lock_ttl=1.0) as member:
        await LoadBalancerStream(redis, service).add_many(names)
        await member.handles(*names)
        proxy.request_delay = DELAY
        for name in names:
            await redis.xadd(name, {"written": time.time()})
            await asyncio.sleep(0.1)  # time itself: a busy stream somewhere, all the time
        await wait_until(lambda: len(late) == len(names), "all entries are read", timeout=20)
        assert max(late.values()) < SOON
        assert member.client.statistics().lapses == 0


async def test_a_key_of_another_type_holds_the_other_streams_up_for_a_few_round_trips(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    read: Counter[str] = Counter()

    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            read[lease.stream] += 1

    names = [f"{service}-{i}" for i in range(200)]
    async with Running(proxy.url, service, handle, lock_ttl=2.0) as member:
        await LoadBalancerStream(redis, service).add_many(names)
        await member.handles(*names)
        proxy.request_delay = 0.05
        await redis.set(names[100], "no stream")
        await proxy_is_cut(proxy)  # so all are looked at together
        await redis.xadd(names[0], {"n": 1})
        await wait_until(lambda: read == {names[0]: 1}, "it is read", 4)


async def proxy_is_cut(proxy: TcpProxy) -> None:
    """Cut all connections, and wait until they are opened again."""
    accepted = proxy.accepted
    proxy.cut()
    await wait_until(lambda: proxy.accepted >= accepted + 5, "the client has connected again")


async def test_many_malformed_announcements_are_buried_side_by_side(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with Running(proxy.url, service, idle, lock_ttl=2.0) as member:
        proxy.request_delay = 0.05
        async with redis.pipeline() as pipe:
            for _ in range(400):
                pipe.xadd(keys.lbs, {"lbs-input": "no JSON"})
            await pipe.execute()
        await LoadBalancerStream(redis, service).add("call-1")
        await member.handles("call-1", timeout=6.0)
        assert await redis.xlen(keys.dead) == 400


async def test_a_group_that_is_made_anew_gives_all_of_its_streams_back_side_by_side(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    names = [f"{service}-{i}" for i in range(200)]
    async with Running(proxy.url, service, idle, lock_ttl=1.0) as member:
        await LoadBalancerStream(redis, service).add_many(names)
        await member.handles(*names)
        fences = {lease.stream: lease.fence for lease in member.client.leases.values()}
        proxy.request_delay = 0.05
        async with redis.pipeline(transaction=True) as pipe:  # as by a peer that has seen none of them
            pipe.xgroup_destroy(keys.lbs, keys.group)
            pipe.xgroup_create(keys.lbs, keys.group, "0")
            await pipe.execute()
        await wait_until(lambda: len(member.leases) == 2 * len(names), "all are handled again", timeout=7)
        assert all(lease.fence > fences[lease.stream] for lease in member.client.leases.values())
