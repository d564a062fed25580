"""Connections that are borrowed from a user's pool."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ResponseError

from redis_stream_client import RedisRejected, RedisUnavailable
from redis_stream_client._redis.pooled import REPLY_TIMEOUT, Pooled
from redis_stream_client._redis.script import Script
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


@pytest.mark.parametrize("decode", [False, True])
async def test_replies_are_bytes_whatever_the_pool_s_settings_are(server: Server, decode: bool) -> None:
    async with (
        Redis.from_url(server.url, decode_responses=decode) as redis,
        Pooled(redis, "key").connection("ask") as loan,
    ):
        assert await loan.exchange(("SET", "key", "ä"), ("GET", "key")) == [b"OK", "ä".encode()]
        assert loan.unanswered == 0


async def test_what_is_refused_is_raised_when_all_were_answered(redis: Connection) -> None:
    replies: list[object] = []

    async def ask() -> None:
        async with Pooled(redis, "key").connection("ask") as loan:
            try:
                await loan.exchange(("GET",), ("SET", "key", "1"))
            finally:
                replies.extend(loan.replies)

    with pytest.raises(RedisRejected):
        await ask()
    assert isinstance(replies[0], ResponseError)
    assert replies[1] == b"OK"


async def test_a_script_s_text_is_sent_once(redis: Connection, server: Server) -> None:
    script = Script.from_text("return {KEYS[1], ARGV[1]} -- only here")
    before = server.command("INFO", "commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    for _ in range(3):
        async with Pooled(redis, "key").connection("run") as loan:
            assert await loan.run(script, ["key"], ["word"]) == [b"key", b"word"]
    assert server.command("INFO", "commandstats")["cmdstat_eval"]["calls"] - before == 1


async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_the_user_wants(proxy: TcpProxy) -> None:
    async with Redis.from_url(proxy.url, socket_timeout=0.1) as redis:
        pooled = Pooled(redis, "key")
        assert pooled.patience == 0.1
        assert Pooled(Redis(socket_timeout=None), "key").patience == REPLY_TIMEOUT
        await redis.ping()
        proxy.freeze()
        with pytest.raises(RedisUnavailable, match="could not ask") as raised:
            async with pooled.connection("ask", "it may have been done", undone="nothing was done") as loan:
                await loan.exchange(("GET", "key"))
        assert raised.value.hint == "it may have been done"


async def test_where_nothing_was_sent_nothing_was_done(proxy: TcpProxy) -> None:
    async with Redis.from_url(proxy.url) as redis:
        await proxy.refuse()
        with pytest.raises(RedisUnavailable) as raised:
            async with Pooled(redis, "key").connection("ask", "it may have been done", undone="nothing was done"):
                pass
        assert raised.value.hint == "nothing was done"


async def test_a_reply_that_was_given_up_answers_nobody_else(proxy: TcpProxy, server: Server) -> None:
    async with Redis.from_url(proxy.url, max_connections=1) as redis:
        pooled = Pooled(redis, "key")

        async def ask() -> None:
            async with pooled.connection("ask") as loan:
                await loan.exchange(("SET", "key", "1"), ("BLPOP", "nothing", 0))

        asking = asyncio.create_task(ask())
        await wait_until(lambda: any(client["cmd"] == "blpop" for client in clients_of(server)), "it waits")
        asking.cancel()
        await asyncio.wait((asking,))
        async with pooled.connection("ask") as loan:
            assert await loan.exchange(("GET", "key")) == [b"1"]


async def test_who_borrows_more_than_the_pool_has_waits_for_his_turn(server: Server) -> None:
    async with Redis.from_url(server.url, max_connections=2) as redis:
        pooled = Pooled(redis, "key")
        done: list[int] = []

        async def ask(number: int) -> None:
            async with pooled.connection("ask") as loan:
                await loan.exchange(("PING",))
            done.append(number)

        asking = [asyncio.create_task(ask(number)) for number in range(50)]
        await asyncio.sleep(0)
        for number in (10, 11, 20):  # of those that wait
            asking[number].cancel()
        await asyncio.wait(asking)
        assert sorted(done) == [number for number in range(50) if number not in (10, 11, 20)]
        async with redis.client() as taken:
            await taken.ping()
            async with pooled.connection("ask"):
                waiting = asyncio.create_task(ask(51))
                await asyncio.sleep(0.05)  # time itself
                assert not waiting.done()
            await waiting


@pytest.mark.parametrize("woken", [True, False])
async def test_one_that_is_woken_and_cancelled_passes_it_on(server: Server, woken: bool) -> None:
    """Or cancelled and woken, in the same turn of the event loop."""
    async with Redis.from_url(server.url, max_connections=1) as redis:
        pooled = Pooled(redis, "key")

        async def ask() -> None:
            async with pooled.connection("ask") as loan:
                await loan.exchange(("PING",))

        async with pooled.connection("ask"):
            first, second = asyncio.create_task(ask()), asyncio.create_task(ask())
            await asyncio.sleep(0)
            if not woken:
                first.cancel()
        if woken:
            first.cancel()
        await asyncio.wait((first, second), timeout=2)
        assert first.cancelled()
        assert second.done()


async def test_connections_that_others_hold_are_not_waited_for(server: Server) -> None:
    async with Redis.from_url(server.url, max_connections=1) as redis, redis.client() as taken:
        await taken.ping()
        with pytest.raises(RedisUnavailable, match="max_connections"):
            async with Pooled(redis, "key").connection("ask"):
                pass


async def test_a_cancellation_that_redis_py_swallows_while_it_connects_counts(server: Server) -> None:
    """As `asyncio.wait_for()` does on Python 3.11 when the greeting was just sent."""
    connecting = asyncio.Event()

    class Pool(ConnectionPool):
        async def get_connection(self, *arguments: Any, **options: Any) -> Any:
            connection = await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
            connecting.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return connection

    async with Redis.from_pool(Pool.from_url(server.url, max_connections=1)) as redis:

        async def use() -> None:
            async with Pooled(redis, "key").lent():
                pytest.fail("it was cancelled")

        for _ in range(2):  # the only connection was given back
            connecting.clear()
            task = asyncio.create_task(use())
            await connecting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
