"""Whatever a handler raises, and whatever logging it does, ends its own attempt and nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client import Lease, RedisStreamClient, testing
from redis_stream_client._model.keys import Keys
from tests.harness.exceptions import ERRORS
from tests.harness.loops import loop_factory
from tests.harness.runs import Running, add, dead_letters, fail_alone, idle, record
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis_stream_client._run.handler import Handler
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_a_handler_s_error_ends_its_attempt_and_no_other(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is logged here other plugins of pytest would stumble over.
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)

    async def handle(lease: Lease) -> None:
        if lease.stream in ERRORS:
            error = ERRORS[lease.stream]()
            raise error
        if lease.stream == "good":
            await idle(lease)

    async with Running(server.url, service, handle, max_attempts=1, lock_ttl=2.0) as run:
        await add(redis, service, ["good"])
        await fail_alone(run, redis, service, ERRORS)
        await run.handles("good")
        assert not run.task.done()
        await wait_until(lambda: run.client.statistics().handlers_failed == len(ERRORS), "all are counted")
    reasons = [letter["reason"] for letter in await dead_letters(redis, service)]
    assert all("failed 1 times" in reason for reason in reasons)
    assert max(map(len, reasons)) < 600
    assert any("Raises (its text cannot be had: __str__ raised AttributeError)" in reason for reason in reasons)


@pytest.mark.parametrize("error", ERRORS)
async def test_run_handler_says_what_was_raised(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)

    async def handle(lease: Lease) -> None:
        raised = ERRORS[error]()
        raise raised

    outcome = await testing.run_handler(handle, testing.lease(error), max_attempts=1)
    assert outcome.status == "dead"
    assert testing.controller(testing.lease("other")).dead is None
    assert outcome.failed


# The end of the program.


class Crash(Exception):
    """Of the program's main coroutine."""


async def beside(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in a task that nobody looks after."""
    running = asyncio.create_task(client.run(handler))
    await working
    assert not running.done()
    raise Crash


async def in_a_group(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` beside a sibling that fails."""
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run(handler))
        await working
        raise Crash


async def in_a_block(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in the background of a block that fails."""
    async with client.running(handler, drain_timeout=0.1):
        await working
        raise Crash


async def in_the_client_s_block(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in a task that outlives the client's own block."""
    async with client:
        running = asyncio.create_task(client.run(handler))
        await working
        assert not running.done()
        raise Crash


@pytest.mark.parametrize("program", [beside, in_a_group, in_a_block, in_the_client_s_block])
def test_a_crash_of_the_program_is_no_failure_of_its_handlers(
    server: Server,
    service: str,
    caplog: pytest.LogCaptureFixture,
    program: Callable[[RedisStreamClient, Handler, Awaitable[object]], Awaitable[None]],
) -> None:
    streams = [f"call-{i}" for i in range(20)]
    client = RedisStreamClient.from_url(server.url, service)
    working: list[str] = []

    async def handle(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        working.append(lease.stream)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:  # whose cancellation takes some turns
            group.create_task(asyncio.sleep(60))
            await idle(lease)

    async def main() -> None:
        async with Redis.from_url(server.url) as redis:
            await add(redis, service, streams)
        await program(client, handle, wait_until(lambda: len(working) == len(streams), "all are handled"))

    async def left_behind() -> None:
        async with Redis.from_url(server.url) as redis:
            assert not await redis.exists(Keys(service).lock(client.id))
            records = [await record(redis, service, stream) for stream in streams]
            assert {fields["attempts"] for fields in records} == {"0"}

    with pytest.raises((Crash, ExceptionGroup)), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(left_behind())
    assert client.statistics().handlers_failed == 0
    ours = [entry for entry in caplog.records if entry.name == "redis_stream_client"]
    assert [entry.getMessage() for entry in ours if entry.levelno >= logging.WARNING] == []


async def test_a_handler_that_cancels_itself_has_failed(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with Running(server.url, service, handle, max_attempts=1, lock_ttl=2.0) as run:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: run.client.statistics().dead_letters == 1, "it has failed")
        assert not run.task.done()
