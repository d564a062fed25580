"""One client has one user and one end: what a handler, or somebody who never joined, may not do to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Lease, RedisStreamClient, RedisStreamClientError
from redis_stream_client._model.keys import Keys
from tests.harness.runs import Running, add, idle
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


async def test_who_never_joined_does_not_leave(
    proxy: TcpProxy, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    await proxy.refuse()
    with pytest.raises(RedisStreamClientError):
        async with RedisStreamClient.from_url(proxy.url, service, connect_timeout=0.1):
            pass
    assert not any(entry.getMessage().startswith(("joined", "left")) for entry in caplog.records)


async def called(
    server: Server, redis: Connection, service: str, body: Callable[[RedisStreamClient, Lease], Awaitable[Any]]
) -> tuple[Running, list[BaseException | None]]:
    """Let a handler of one of three streams do something to its client. Returns what that raised."""
    raised: list[BaseException | None] = []

    async def handle(lease: Lease) -> None:
        if lease.stream != "call-0" or raised:
            await idle(lease)
        try:
            await body(run.client, lease)
        except BaseException as error:
            raised.append(error)
            raise
        raised.append(None)

    async with Running(server.url, service, handle, lock_ttl=1.0, drain_timeout=0.5) as run:
        await add(redis, service, ["call-0", "call-1", "call-2"])
        await wait_until(lambda: raised, "it was called")
        if run.client.alive:
            await run.handles("call-0", "call-1", "call-2")  # and all goes on
    assert not run.working
    return run, raised


async def test_done_without_a_lease_is_refused_while_run_works(
    server: Server, redis: Connection, service: str
) -> None:
    _, [error] = await called(server, redis, service, lambda client, _: client.done())
    assert isinstance(error, RuntimeError)
    assert "lease.done()" in str(error)
    assert "client.drain()" in str(error)
    assert await redis.xlen(Keys(service).lbs) == 3


async def test_done_without_a_lease_is_refused_in_the_block_of_running(server: Server, service: str) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    async with client.running(idle):
        with pytest.raises(RuntimeError, match="drain"):
            await client.done()
        assert client.alive


async def test_a_second_run_is_refused_inside_a_handler(server: Server, redis: Connection, service: str) -> None:
    _, [error] = await called(server, redis, service, lambda client, _: client.run(idle))
    assert isinstance(error, RuntimeError)


async def test_events_are_refused_inside_a_handler(server: Server, redis: Connection, service: str) -> None:
    _, [error] = await called(server, redis, service, lambda client, _: anext(client.events()))
    assert isinstance(error, RuntimeError)


async def test_the_block_of_a_lease_is_refused_inside_its_handler(
    server: Server, redis: Connection, service: str
) -> None:
    _, [error] = await called(server, redis, service, lambda _, lease: lease.__aenter__())
    assert isinstance(error, RuntimeError)
    assert "run()" in str(error)


async def test_closing_inside_a_handler_ends_all_of_them(server: Server, redis: Connection, service: str) -> None:
    run, [error] = await called(server, redis, service, lambda client, _: client.aclose())
    assert isinstance(error, asyncio.CancelledError)
    assert run.task.done()
    assert await redis.xlen(Keys(service).lbs) == 3
