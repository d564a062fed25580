"""Ring 2: one connection for all requests; each reply goes to the request that it answers."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client._protocol import scripts
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.fleet import Member, announce

if TYPE_CHECKING:
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
