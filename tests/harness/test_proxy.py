"""The faulty network of the suite: each fault does what its name says, seen from both sides."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - the names it raises under

from tests.harness.ports import HOST
from tests.harness.proxy import TcpProxy
from tests.harness.servers import SMALL_OUTPUT_BUFFERS
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

SOON = 0.1
"""Seconds after which a client of these tests gives a reply up."""


@asynccontextmanager
async def through(proxy: TcpProxy, timeout: float = 5.0) -> AsyncGenerator[Connection]:
    """Connect through the proxy with a client that repeats nothing, and ask for the connection."""
    async with Redis.from_url(proxy.url, socket_timeout=timeout) as client:
        await client.ping()
        yield client


async def test_it_forwards_and_counts(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        await client.set("key", b"x" * 200_000)
        assert await client.get("key") == b"x" * 200_000
        assert (proxy.accepted, proxy.open) == (1, 1)
        assert proxy.bytes_to_server > 200_000
        assert proxy.bytes_to_client > 200_000
    await wait_until(lambda: proxy.open == 0, "the closed connection is gone")


@pytest.mark.parametrize("rounds", range(4))
async def test_a_connection_that_arrives_as_it_refuses_is_closed(proxy: TcpProxy, rounds: int) -> None:
    """Whatever the loop has done of accepting it. What is not closed fails the test."""
    with socket.create_connection((HOST, proxy.port)):
        for _ in range(rounds):
            await asyncio.sleep(0)
        await proxy.refuse()


async def test_cutting_resets_open_connections_only(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        assert proxy.cut() == 1
        with pytest.raises(ConnectionError):
            await client.get("key")
        assert await client.ping()
    assert proxy.accepted == 2


async def test_refusing_leaves_open_connections_alone(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        await proxy.refuse()
        assert await client.ping()
        with pytest.raises(ConnectionError, match=r"refused|Connect call failed"):
            async with through(proxy):
                pass
        await proxy.accept()
        async with through(proxy):
            pass


async def test_a_frozen_connection_hangs_and_delivers_later(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy) as client:
        proxy.freeze()
        sent = asyncio.create_task(client.incr("counter"))
        await asyncio.wait([sent], timeout=SOON)
        assert not sent.done()
        assert await redis.get("counter") is None
        proxy.thaw()
        assert await sent == 1


async def test_replies_alone_can_be_frozen(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy) as client:
        proxy.freeze(requests=False)
        sent = asyncio.create_task(client.incr("counter"))
        await wait_until(lambda: redis.get("counter"), "the server has executed it")
        assert not sent.done()
        proxy.thaw()
        assert await sent == 1


async def test_connecting_to_a_frozen_proxy_is_a_half_open_connection(proxy: TcpProxy) -> None:
    proxy.freeze()
    with pytest.raises(TimeoutError):
        async with through(proxy, timeout=SOON):
            pass
    assert proxy.accepted == 1


@pytest.mark.parametrize("direction", ["requests", "replies"])
async def test_each_direction_can_be_delayed(proxy: TcpProxy, direction: str) -> None:
    delayed = 0.19  # uvloop counts in whole milliseconds, and may sleep for one less
    async with through(proxy) as client:
        proxy.delay(**{direction: 0.2})
        before = time.monotonic()
        await client.ping()
        assert time.monotonic() - before >= delayed
        proxy.delay()
        before = time.monotonic()
        await client.ping()
        assert time.monotonic() - before < delayed


@pytest.mark.parametrize("direction", ["requests", "replies"])
async def test_each_direction_can_have_a_bandwidth(proxy: TcpProxy, direction: str) -> None:
    async with through(proxy) as client:
        proxy.bandwidth(**{direction: 1_000_000})
        before = time.monotonic()
        await client.set("key", b"x" * 400_000)
        written = time.monotonic()
        await client.get("key")
        fast, slow = sorted([written - before, time.monotonic() - written])
    assert 0.3 < slow < 3.0  # 0.4 s, a burst, and whatever else this machine does
    assert fast < slow


async def test_the_bandwidth_is_shared_by_all_connections(proxy: TcpProxy, redis: Connection) -> None:
    """They take turns: a small reply does not wait for the end of a large one."""
    await redis.set("large", b"x" * 400_000)
    async with through(proxy) as one, through(proxy) as other:
        proxy.bandwidth(replies=1_000_000)
        before = time.monotonic()
        large = [asyncio.create_task(client.get("large")) for client in (one, other)]
        async with through(proxy) as third:
            assert await third.get("none") is None
            assert not any(task.done() for task in large)
        await asyncio.gather(*large)
        assert time.monotonic() - before > 0.65


async def test_the_bandwidth_changes_while_bytes_are_under_way(proxy: TcpProxy, redis: Connection) -> None:
    await redis.set("key", b"x" * 1_000_000)
    async with through(proxy) as client:
        proxy.bandwidth(replies=10_000)
        passed = proxy.bytes_to_client
        sent = asyncio.create_task(client.get("key"))
        await wait_until(lambda: proxy.bytes_to_client > passed, "the first bytes have passed")
        assert proxy.bytes_to_client < passed + 100_000
        proxy.bandwidth()
        assert len(await sent) == 1_000_000
        proxy.bandwidth(replies=1)
        sent = asyncio.create_task(client.get("key"))
        await wait_until(lambda: proxy.bytes_to_client > passed + 1_000_000, "it is under way")
        proxy.cut()
        with pytest.raises(ConnectionError):
            await sent
        proxy.heal()
        assert await client.get("key")


async def test_a_server_with_small_output_buffers_cuts_who_reads_too_slowly(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(*SMALL_OUTPUT_BUFFERS)
    async with TcpProxy(server.port) as proxy, through(proxy) as client:
        proxy.bandwidth(replies=4_000_000)
        for _ in range(32):
            await client.rpush("list", *[b"x" * 100_000] * 10)
        assert len(await client.lrange("list", 0, 9)) == 10
        with pytest.raises(ConnectionError):
            await client.lrange("list", 0, -1)


async def test_a_lost_reply_was_executed_all_the_same(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy, timeout=SOON) as client:
        fault = proxy.drop_replies_after(b"INCR", connections=1)
        with pytest.raises(TimeoutError):
            await client.incr("counter")
        assert fault.matched == 1
        assert fault.swallowed == len(b":1\r\n")
        assert await redis.get("counter") == b"1"
        assert await client.incr("counter") == 2  # a new connection, and the fault was for one


async def test_a_lost_reply_with_a_cut_is_noticed_at_once(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy) as client:
        proxy.drop_replies_after(b"INCR", cut=True)
        for executed in (b"1", b"2"):
            with pytest.raises(ConnectionError):
                await client.incr("counter")
            assert await redis.get("counter") == executed


async def test_automatic_retries_execute_a_command_again(proxy: TcpProxy, redis: Connection) -> None:
    async with Redis(host="127.0.0.1", port=proxy.port) as client:
        await client.ping()
        proxy.drop_replies_after(b"INCR", cut=True, connections=2)
        assert await client.incr("counter") == 3
    assert await redis.get("counter") == b"3"


async def test_a_held_reply_arrives_late(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy) as client:
        fault = proxy.hold_replies_after(b"INCR")
        sent = asyncio.create_task(client.incr("counter"))
        await wait_until(lambda: redis.get("counter"), "the server has executed it")
        assert not sent.done()
        fault.release()
        assert await sent == 1
        assert await client.incr("counter") == 2


async def test_a_swallowed_request_is_never_executed(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy, timeout=SOON) as client:
        fault = proxy.drop_requests_matching(b"INCR", connections=1)
        with pytest.raises(TimeoutError):
            await client.incr("counter")
        assert fault.swallowed > 0
        assert await redis.get("counter") is None


async def test_a_refused_request_cuts_its_connection(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy) as client:
        proxy.drop_requests_matching(b"INCR", cut=True)
        with pytest.raises(ConnectionError):
            await client.incr("counter")
        assert await redis.get("counter") is None
        assert await client.set("key", "value")


async def test_other_connections_are_not_struck(proxy: TcpProxy) -> None:
    async with through(proxy) as one, through(proxy) as other:
        proxy.drop_replies_after(b"INCR", cut=True)
        with pytest.raises(ConnectionError):
            await one.incr("counter")
        assert await other.get("counter") == b"1"


async def test_a_pattern_is_found_in_a_request_that_comes_in_pieces(proxy: TcpProxy) -> None:
    def has_passed(length: int) -> bool:
        return proxy.bytes_to_server == length

    fault = proxy.drop_replies_after(b"INCR")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    request = b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"
    for end in range(1, len(request) + 1):
        writer.write(request[end - 1 : end])
        await wait_until(partial(has_passed, end), "the piece has passed")
    await wait_until(lambda: fault.swallowed == len(b":1\r\n"), "the reply was swallowed")
    assert fault.matched == 1
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""


async def test_a_past_request_does_not_match_a_later_fault(proxy: TcpProxy) -> None:
    proxy.drop_replies_after(b"a pattern that is longer than the whole request")
    async with through(proxy) as client:
        await client.incr("counter")
        fault = proxy.drop_replies_after(b"INCR")
        await client.get("counter")
        assert fault.matched == 0


async def test_all_replies_can_be_dropped(proxy: TcpProxy, redis: Connection) -> None:
    async with through(proxy, timeout=SOON) as client:
        proxy.drop_replies()
        for _ in range(2):  # on the open connection and on a new one
            with pytest.raises(TimeoutError):
                await client.incr("counter")
    assert await redis.get("counter") == b"1"  # the new one's greeting was not answered
    await wait_until(lambda: proxy.open == 0, "connections without replies end too")


async def test_healing_ends_every_fault(proxy: TcpProxy) -> None:
    async with through(proxy, timeout=SOON) as client:
        proxy.drop_replies_after(b"INCR")
        with pytest.raises(TimeoutError):
            await client.incr("counter")
        proxy.freeze()
        proxy.delay(requests=1.0, replies=1.0)
        proxy.heal()
        assert await client.incr("counter") == 2


async def test_healing_resets_what_has_lost_bytes(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        proxy.drop_replies_after(b"INCR")
        sent = asyncio.create_task(client.incr("counter"))
        await wait_until(lambda: proxy.faults[0].swallowed, "the reply is lost")
        proxy.heal()
        with pytest.raises(ConnectionError):
            await sent


async def test_half_closed_towards_the_client(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        proxy.half_close_clients()
        with pytest.raises(ConnectionError):
            await client.get("key")


async def test_half_closed_towards_the_server(proxy: TcpProxy) -> None:
    async with through(proxy) as client:
        proxy.half_close_server()
        with pytest.raises(ConnectionError):
            await client.get("key")


async def test_connections_that_vanish_are_closed_on_the_servers_side_alone(
    proxy: TcpProxy, redis: Connection
) -> None:
    async with through(proxy, timeout=SOON) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("channel")
        assert await pubsub.get_message(timeout=1.0)
        await client.ping()  # on another connection
        proxy.vanish()

        async def forgotten() -> bool:
            return bool(await redis.pubsub_numsub("channel") == [(b"channel", 0)])

        await wait_until(forgotten, "the server has forgotten the subscription")
        assert await pubsub.get_message(timeout=SOON) is None  # and no end of the connection either
        with pytest.raises(TimeoutError):
            await client.ping()
        assert await client.ping()  # on a new connection


async def test_a_server_that_is_away_ends_the_connection(own_server: Callable[..., Server]) -> None:
    server = own_server()
    async with TcpProxy(server.port) as proxy, through(proxy) as client:
        server.stop()
        with pytest.raises(ConnectionError):
            await client.get("key")
        with pytest.raises(ConnectionError):
            await client.get("key")
        server.start()
        assert await client.ping()


async def test_closing_ends_connections_that_are_stuck(server: Server) -> None:
    tasks = asyncio.all_tasks()
    async with TcpProxy(server.port) as proxy, through(proxy) as client:
        proxy.freeze()
        sent = asyncio.create_task(client.get("key"))
        await wait_until(lambda: proxy.open == 1, "it is connected")
    with pytest.raises(ConnectionError):
        await sent
    assert asyncio.all_tasks() == tasks
