"""Ring 2: one connection for all requests; each reply goes to the request that it answers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import RedisRejected
from redis_stream_client._protocol import scripts
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.script import Script
from tests.harness.fleet import Member, announce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_a_connection_that_is_lost_as_it_opens_leaves_no_request_behind(server: Server) -> None:
    """Who waited for it wakes when it is lost already, and must not wait among those of the next one."""
    lost = [Unanswered("cut", maybe_executed=True)]

    async def greet(connection: object, timeout: float) -> None:
        if lost:  # only the first one: between its being open and the waking of who waited for that
            asyncio.get_running_loop().call_soon(shared.drop, lost.pop())

    shared = SharedConnection(endpoint_for(Redis.from_url(server.url), "orders-input"), greet=greet)
    with pytest.raises(Unanswered, match="lost as it opened"):
        await shared.request("ECHO", "early", timeout=5)
    assert (shared.connections, shared.losses) == (1, 1)
    for word in ("a", "b", "c"):
        assert await shared.request("ECHO", word, timeout=5) == word.encode()
    await shared.close()


async def test_an_idle_connection_does_not_hold_its_last_reply(server: Server) -> None:
    shared = SharedConnection(endpoint_for(Redis.from_url(server.url), "orders-input"))
    reply = await shared.request("EVAL", "return {'a', 'b'}", 0, timeout=5)
    assert reply == [b"a", b"b"]
    await asyncio.sleep(0)  # the reader goes on to wait for the next one
    assert sys.getrefcount(reply) == 2, "this variable, and the argument"
    await shared.close()


async def test_an_unknown_script_is_sent_once(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, lock_ttl=0.4) as one:
        await announce(server.url, service, "call-1", "call-2")
        await one.owns("call-1", "call-2")
        await redis.script_flush()
        await redis.config_resetstat()
        await one.lease("call-1").done()
        await one.lease("call-2").done()
        assert await redis.script_exists(scripts.load("done").sha) == [True]


# Scripts without a task.

ECHO = Script.from_text("return ARGV[1]")


@pytest.fixture(name="shared")
async def line(server: Server) -> AsyncIterator[SharedConnection]:
    shared = SharedConnection(endpoint_for(Redis.from_url(server.url), "orders-input"))
    yield shared
    await shared.close()


def at_once(shared: SharedConnection, *, script: Script = ECHO, timeout: float = 5) -> asyncio.Future[Any]:
    """Run a script without a task; the future has its reply, or its error as a result."""
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    assert shared.run_at_once(script, [], ["a word"], timeout=timeout, heard=reply.set_result)
    return reply


async def test_a_script_that_the_server_knows_runs_without_a_task(shared: SharedConnection) -> None:
    def fail(reply: object) -> None:
        raise AssertionError(reply)

    assert not shared.run_at_once(ECHO, [], ["early"], timeout=5, heard=fail)
    assert await shared.run(ECHO, [], ["first"], timeout=5) == b"first"
    asking = asyncio.create_task(shared.request("ECHO", "before", timeout=5))
    await asyncio.sleep(0)
    replies = [at_once(shared), at_once(shared)]
    assert await shared.request("ECHO", "behind", timeout=5) == b"behind"
    assert [reply.result() for reply in replies] == [b"a word", b"a word"]
    assert await asking == b"before"


async def test_a_server_that_has_forgotten_a_script_is_sent_it_again(
    shared: SharedConnection, redis: Connection
) -> None:
    await shared.run(ECHO, [], [""], timeout=5)
    await redis.script_flush()
    reply = await at_once(shared)
    assert isinstance(reply, Unanswered)
    assert not reply.maybe_executed
    assert not shared.run_at_once(ECHO, [], [""], timeout=5, heard=pytest.fail)
    await shared.run(ECHO, [], [""], timeout=5)
    assert await at_once(shared) == b"a word"


async def test_a_connection_that_is_lost_tells_who_hears(shared: SharedConnection, redis: Connection) -> None:
    await shared.run(ECHO, [], [""], timeout=5)
    reply = at_once(shared)
    shared.drop(Unanswered("cut", maybe_executed=True))
    assert reply.result().maybe_executed
    assert not shared.run_at_once(ECHO, [], [""], timeout=5, heard=pytest.fail)
    await shared.run(ECHO, [], [""], timeout=5)
    await redis.client_pause(300)
    silent = await at_once(shared, timeout=0.1)
    assert isinstance(silent, Unanswered)
    assert "no answer" in str(silent)


async def test_a_refusal_is_heard_as_the_error_that_run_raises(shared: SharedConnection) -> None:
    refusing = Script.from_text("return redis.error_reply(ARGV[1])")
    with contextlib.suppress(RedisRejected):
        await shared.run(refusing, [], ["OOPS"], timeout=5)
    with pytest.raises(RedisRejected, match="a word"):
        await shared.run(refusing, [], ["a word"], timeout=5)
    refused = await at_once(shared, script=refusing)
    assert isinstance(refused, RedisRejected)
    assert "a word" in str(refused)
    assert shared.losses == 0


async def test_a_server_that_is_no_master_any_more_is_left_at_once(shared: SharedConnection) -> None:
    """Also what else was asked of it."""
    refusing = Script.from_text("return ARGV[1] == '' and 'yes' or redis.error_reply('READONLY a replica')")
    for script in (refusing, ECHO):
        await shared.run(script, [], [""], timeout=5)
    reply, behind = at_once(shared, script=refusing), at_once(shared)
    assert (await reply).elsewhere
    assert shared.losses == 1
    assert (await behind).maybe_executed
    assert await shared.request("ECHO", "again", timeout=5) == b"again"
