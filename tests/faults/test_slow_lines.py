"""Large announcements on slow lines: what is asked for fits the line, and all goes through."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.announcement import MAX_BYTES
from redis_stream_client._model.keys import Keys
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.runs import Running
from tests.harness.servers import SMALL_OUTPUT_BUFFERS
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import ghost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

LARGEST = MAX_BYTES - 200
MANY = 24
LINE = 2_000_000
"""Bytes per second: all of it takes some three seconds."""


def large(count: int) -> list[tuple[str, dict[str, str]]]:
    return [(f"call-{n}", {"context": "x" * LARGEST}) for n in range(count)]


async def left_by_a_dead_one(redis: Connection, service: str) -> None:
    keys = Keys(service)
    await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
    await ghost(redis, service, [json.dumps({"DataStreamName": name, "Info": info}) for name, info in large(MANY)])


async def handled(member: Running, count: int) -> None:
    await wait_until(lambda: len(member.working) == count, f"{count} streams are handled", timeout=40)
    assert len(member.leases) == count  # each once
    assert member.client.statistics().lapses == 0


@pytest.mark.parametrize("lock_ttl", [1.0, 10.0])
async def test_a_backlog_of_large_announcements_goes_through_a_slow_line(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, lock_ttl: float
) -> None:
    await LoadBalancerStream(redis, service).add_many(large(MANY))
    proxy.bandwidth(replies=LINE)
    async with Running(proxy.url, service, lock_ttl=lock_ttl) as member:
        await handled(member, MANY)
        proxy.bandwidth()


@pytest.mark.parametrize("lock_ttl", [1.0, 10.0])
async def test_a_take_over_of_large_announcements_goes_through_a_slow_line(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, lock_ttl: float
) -> None:
    await left_by_a_dead_one(redis, service)
    proxy.bandwidth(replies=LINE)
    async with Running(proxy.url, service, lock_ttl=lock_ttl) as member:
        await handled(member, MANY)
        proxy.bandwidth()


async def test_what_was_delivered_and_never_arrived_is_adopted_over_a_slow_line(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    async with Running(proxy.url, service, lock_ttl=1.0) as member:
        fault = proxy.drop_replies_after(b"XREADGROUP", cut=True, connections=1)
        await LoadBalancerStream(redis, service).add_many(large(1))
        await wait_until(lambda: fault.matched or member.working, "the reply was lost")
        keys = Keys(service)
        pipeline = redis.pipeline()
        for name, info in large(MANY)[1:]:
            pipeline.xadd(keys.lbs, {"lbs-input": json.dumps({"DataStreamName": name, "Info": info})})
        pipeline.xreadgroup(keys.group, member.client.id, {keys.lbs: ">"}, count=MANY)
        await pipeline.execute()
        proxy.bandwidth(replies=LINE)
        await handled(member, MANY)
        proxy.bandwidth()


@pytest.mark.parametrize("how", ["backlog", "take-over"])
async def test_a_server_that_cuts_connections_for_large_replies_is_asked_for_less(
    own_server: Callable[..., Server], service: str, how: str
) -> None:
    from redis.asyncio import Redis

    server = own_server("--client-output-buffer-limit", "normal", "600kb", "600kb", "0")
    assert SMALL_OUTPUT_BUFFERS[:2] == ("--client-output-buffer-limit", "normal")
    async with Redis.from_url(server.url) as redis:
        if how == "backlog":
            await LoadBalancerStream(redis, service).add_many(large(MANY))
        else:
            await left_by_a_dead_one(redis, service)
    async with Running(server.url, service, lock_ttl=1.0) as member:
        await wait_until(lambda: len(member.working) == MANY, "all are handled", timeout=40)
        assert member.client.statistics().lapses == 0


def connection_to(url: str) -> SharedConnection:
    """A connection to what is there."""
    return SharedConnection(endpoint_for(Redis.from_url(url), "x"))


async def test_a_reply_that_is_arriving_is_not_given_up_and_one_that_is_not_is(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    await redis.set("large", "x" * 600_000)
    connection = connection_to(proxy.url)
    try:
        proxy.bandwidth(replies=500_000)
        assert len(await connection.request("GET", "large", timeout=0.3)) == 600_000
        proxy.bandwidth()
        assert connection.losses == 0
        proxy.freeze(requests=False)
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unanswered, match="no answer"):
            await connection.request("GET", "large", timeout=0.3)
        assert asyncio.get_running_loop().time() - started < 2
        assert connection.losses == 1
        proxy.thaw()
        assert len(await connection.request("GET", "large", timeout=3)) == 600_000
    finally:
        await connection.close()


async def test_a_reply_that_came_while_the_loop_stood_still_is_read(server: Server, service: str) -> None:
    import time

    connection = connection_to(server.url)
    try:
        await connection.request("PING", timeout=1)
        asking = asyncio.ensure_future(connection.request("PING", timeout=0.05))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still, which is what is tested
        assert await asking == b"PONG"
        assert connection.losses == 0
    finally:
        await connection.close()
