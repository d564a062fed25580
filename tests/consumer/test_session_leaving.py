"""Leaving: the lock first, whatever is held, no handler outlives `run()`, and the log says what happened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Lease, RedisStreamClient
from redis_stream_client._concurrency.chunks import CHUNK
from redis_stream_client._model import leaving
from redis_stream_client._model.keys import Keys
from tests.harness.loops import Turns
from tests.harness.runs import Running, add, all_watched, idle, record
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

SLACK = 0.5
MANY = 1_500


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged at WARNING or above."""
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]


async def cancel(run: Running) -> None:
    """Cancel `run()`."""
    run.task.cancel()


async def close(run: Running) -> None:
    """Close its client."""
    await run.client.aclose()


async def drain(run: Running) -> None:
    """Drain."""
    run.client.drain()


@pytest.mark.parametrize("leave", [cancel, close, drain])
async def test_thousands_of_handlers_are_told_in_turns_and_the_lock_goes_first(
    server: Server,
    redis: Connection,
    service: str,
    caplog: pytest.LogCaptureFixture,
    leave: Callable[[Running], Awaitable[None]],
) -> None:
    turn = Turns()
    ended: Counter[int] = Counter()

    async def handle(lease: Lease) -> None:
        try:
            await idle(lease)
        finally:
            ended[turn.number] += 1

    async with Running(server.url, service, handle, lock_ttl=4.0) as run:
        await add(redis, service, [f"call-{i}" for i in range(MANY)])
        await wait_until(lambda: len(run.working) == MANY, "all are handled", 20.0)
        await wait_until(lambda: all_watched(redis, MANY), "all wait for entries", 20.0)
        turn()
        started = time.monotonic()
        await leave(run)
        await asyncio.wait((run.task,), timeout=10)
        took = time.monotonic() - started
        turn.stop()
        assert run.task.done()
        assert not await redis.exists(Keys(service).lock(run.client.id))
        assert took < leaving.GRACE + SLACK or leave is drain
        await wait_until(lambda: not run.working, "all handlers end")
    assert ended.total() == MANY
    assert max(ended.values()) <= MANY // 3  # some end with the requests that they had made
    assert not any("did not answer" in message for message in warnings_of(caplog))


async def test_thousands_of_leases_that_are_finished_at_once(
    server: Server, redis: Connection, service: str
) -> None:
    async with RedisStreamClient.from_url(server.url, service, prefetch=MANY, lock_ttl=4.0) as client:
        await add(redis, service, [f"call-{i}" for i in range(MANY)])
        for _ in range(MANY):
            await anext(client.events())
        turn = Turns()
        turn()
        await client.done()
        turn.stop()
        assert turn.number > MANY / CHUNK
    assert not await redis.xlen(Keys(service).lbs)


# The log.


async def test_redis_did_not_answer_is_said_when_it_did_not(
    server: Server, proxy: TcpProxy, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisStreamClient.from_url(proxy.url, service):
        proxy.freeze()
    assert any(said.startswith("Redis did not answer while leaving: ") for said in warnings_of(caplog))


async def test_redis_was_not_there_is_said_when_it_was_not(
    server: Server, proxy: TcpProxy, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisStreamClient.from_url(proxy.url, service):
        await proxy.refuse()
        proxy.cut()
    [said] = [message for message in warnings_of(caplog) if "expires by itself" in message]
    assert said.startswith("could not give up the lock while leaving")
    assert str(proxy.port) in said  # what went wrong, and where


@pytest.mark.parametrize("leave", [cancel, close, drain])
@pytest.mark.parametrize("end", ["done", "release"])
async def test_a_handler_that_goes_on_after_its_lease_does_not_outlive_run(
    server: Server,
    redis: Connection,
    service: str,
    leave: Callable[[Running], Awaitable[None]],
    end: str,
) -> None:
    ended = asyncio.Event()

    async def handle(lease: Lease) -> None:
        await getattr(lease, end)()
        ended.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)

    async with Running(server.url, service, handle, lock_ttl=1.0, drain_timeout=0.2) as run:
        await add(redis, service, ["call-1"])
        await ended.wait()
        await leave(run)
        await asyncio.wait((run.task,), timeout=5)
        assert run.task.done()
        assert not run.working


async def test_leaving_counts_no_attempt(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        await anext(lease.entries())
        started.append(lease.stream)
        await asyncio.Event().wait()

    started: list[str] = []
    streams = [f"call-{i}" for i in range(2 * CHUNK)]
    for stream in streams:
        await redis.xadd(stream, {"n": 1})
    async with Running(server.url, service, handle, lock_ttl=2.0) as run:
        await add(redis, service, streams)
        await wait_until(lambda: len(started) == len(streams), "all are handled")
        await run.client.aclose()
    attempts = Counter([(await record(redis, service, stream))["attempts"] for stream in streams])
    assert attempts == {"0": len(streams)}
