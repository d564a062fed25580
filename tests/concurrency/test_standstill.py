"""A process that stood still blames nobody else for it: no handler, no attempt."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Lease, testing
from redis_stream_client._concurrency.standstill import REMEMBERED, Standstill
from tests.harness.runs import Running, add, dead_letters, idle
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


# Pure state.


def test_what_ended_before_does_not_count() -> None:
    standstill = Standstill(1.0)
    standstill.stood_still(2.0, until=10.0)
    standstill.stood_still(0.5, until=11.0)
    assert standstill.since(11.0) == 0.0
    assert standstill.since(10.5) == 0.5
    assert standstill.since(10.0) == 0.5
    assert standstill.since(9.0) == 2.5
    assert Standstill(1.0).since(0.0) == 0.0


def test_thousands_of_short_ones_add_up_and_are_judged_mildly_when_they_are_forgotten() -> None:
    standstill = Standstill(1.0)
    count = 3 * REMEMBERED
    for number in range(count):
        standstill.stood_still(1.0, until=float(number))
    assert standstill.since(-1.0) == count
    for moment in range(0, count, 100):
        assert count - moment - 1 <= standstill.since(float(moment)) <= count
    assert standstill.since(float(count)) == 0.0


@pytest.mark.parametrize(("shortest", "tick"), [(0.01, 0.01), (2.0, 0.05), (3600.0, 0.1)])
def test_it_looks_often_enough(shortest: float, tick: float) -> None:
    assert Standstill(shortest).tick == tick


# Handlers.

PROGRAM = """
import asyncio, json, sys, time
from redis_stream_client import RedisStreamClient
url, service, pieces, timeout = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
stopped = []

async def handle(lease):
    try:
        while True:
            lease.progress()
            for _ in range(pieces):  # of some work, each of which needs a turn
                await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        stopped.append([lease.stream, lease.owned])
        raise

async def main():
    client = RedisStreamClient.from_url(url, service, lock_ttl=4.0)
    running = asyncio.create_task(client.run(handle, progress_timeout=timeout))
    while client.statistics().handlers < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(timeout + 0.9)
    print(json.dumps([stopped, client.statistics().handlers_failed]), flush=True)
    running.cancel()
    await asyncio.wait([running])

asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.parametrize(("pieces", "timeout"), [(1, 0.8), (6, 1.5)])
async def test_a_process_that_was_stopped_stops_none_of_its_handlers(
    server: Server, redis: Connection, service: str, pieces: int, timeout: float
) -> None:
    """Not for one stop that is longer than the time-out, and not for several that together are."""
    await add(redis, service, ["call-1", "call-2", "call-3"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, server.url, service, str(pieces), str(timeout)), stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"
            for stands in (1.0, 0.3, 0.3, 0.3):
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(stands)
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.05)
            process.stdin.write(b"\n")
            assert json.loads(await process.stdout.readline()) == [[], 0]
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("blocks", [[1.5], [0.25] * 8])
async def test_a_blocked_loop_stops_no_handler_but_one_that_stands_still_itself(blocks: list[float]) -> None:
    """Of two handlers on one loop, one reports rarely, and the other one not at all."""
    gave_up = asyncio.Event()

    async def reports(lease: Lease) -> None:
        while not gave_up.is_set():
            lease.progress()
            for _ in range(3):
                await asyncio.sleep(0.1)

    async def hangs(lease: Lease) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gave_up.set()

    good = asyncio.create_task(testing.run_handler(reports, testing.lease("good"), progress_timeout=1.0))
    bad = asyncio.create_task(testing.run_handler(hangs, testing.lease("bad"), progress_timeout=1.0))
    await asyncio.sleep(0.05)
    for seconds in blocks:
        time.sleep(seconds)  # noqa: ASYNC251
        await asyncio.sleep(0.02)
    assert (await bad).status == "stalled"
    assert (await good).status == "done"


@pytest.mark.parametrize("operation", ["checkpoint", "entries"])
async def test_a_handler_that_waits_for_redis_does_not_stand_still(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str
) -> None:
    handed: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handed.append(entry.id)
            if operation == "checkpoint":
                await lease.checkpoint(entry.id)

    async with Running(proxy.url, service, handle, lock_ttl=4.0, progress_timeout=0.3) as run:
        await add(redis, service, ["call-1"])
        await run.handles("call-1")
        await redis.xadd("call-1", {"n": 1})
        await wait_until(lambda: handed, "the first entry was handled")
        await redis.xadd("call-1", {"n": 2})
        proxy.freeze()
        await asyncio.sleep(1.0)
        proxy.thaw()
        await wait_until(lambda: len(handed) == 2, "the second entry was handled")
        assert run.client.statistics().handlers_failed == 0
    assert await dead_letters(redis, service) == []


async def test_a_handler_that_cleans_up_while_the_loop_is_blocked_is_not_one_that_ignores_its_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = testing.lease("call-1", entries=[{"n": 1}])
    cancelled = asyncio.Event()

    async def handle(lease: Lease) -> None:
        entry = await anext(lease.entries())
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await asyncio.sleep(0.1)  # a transaction is rolled back
            await lease.checkpoint(entry.id)

    running = asyncio.create_task(testing.run_handler(handle, call, patience=0.3, drain_timeout=0.0))
    await asyncio.sleep(0.02)
    testing.controller(call).drain()
    await cancelled.wait()
    time.sleep(0.5)  # noqa: ASYNC251
    outcome = await running
    assert outcome.position == "1-0"
    assert not any("ignores its cancellation" in entry.getMessage() for entry in caplog.records)


async def test_a_drain_gives_back_the_time_in_which_the_loop_was_blocked(
    server: Server, redis: Connection, service: str
) -> None:
    working, reached = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        working.set()
        for _ in range(4):  # pieces of some work, each of which needs a turn
            await asyncio.sleep(0.1)
        await lease.checkpoint("1-0")
        reached.set()
        await idle(lease)

    async with Running(server.url, service, handle, lock_ttl=6.0, drain_timeout=1.0) as run:
        await add(redis, service, ["call-1"])
        await working.wait()
        run.client.drain()
        await asyncio.sleep(0.05)
        time.sleep(1.5)  # noqa: ASYNC251
        await asyncio.wait((run.task,), timeout=10)
        assert run.task.done()
    assert reached.is_set()
