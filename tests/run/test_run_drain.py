"""Ring 2: draining, by every way in which one may ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Lease, NotOwner, RedisStreamClient
from tests.harness.runs import Ledger, Running, add, dead_letters, idle, owners, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 2.0}
STREAMS = [f"call-{i}" for i in range(12)]


async def returned(run: Running, within: float) -> None:
    """Wait until `run()` has returned."""
    async with asyncio.timeout(within):
        await run.task


async def test_peers_go_on_after_the_checkpoint_at_once(server: Server, redis: Connection, service: str) -> None:
    ledger = Ledger()
    for stream in STREAMS:
        await write(server.url, stream, 3)
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, STREAMS)
        await wait_until(lambda: all(len(ledger.accepted[s]) == 3 for s in STREAMS), "all are followed")
        async with Running(server.url, service, ledger.follow, **TTL) as peer:
            started = time.monotonic()
            run.client.drain()
            await peer.handles(*STREAMS)
            assert time.monotonic() - started < 0.5
            await returned(run, 0.5)
            assert run.working == []
            assert {lease.attempts for lease in peer.leases} == {1}
            assert {lease.position for lease in peer.leases} == {ids[-1] for ids in ledger.accepted.values()}
            for stream in STREAMS:
                await write(server.url, stream, 1)
            await wait_until(lambda: all(len(ledger.accepted[s]) == 4 for s in STREAMS), "all go on")
    assert ledger.handed == ledger.accepted
    assert len(await owners(redis, service)) == len(STREAMS)  # nothing was acknowledged


async def test_a_handler_gets_on_to_its_checkpoint_and_no_further(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 3)
    handed: list[str] = []
    cancelled: list[bool] = []
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> None:
        try:
            async for entry in lease.entries():
                handed.append(entry.id)
                await go_on.wait()
                await lease.checkpoint(entry.id)
        except asyncio.CancelledError:
            cancelled.append(lease.owned)
            raise

    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: handed, "it works on the first entry")
        run.client.drain()
        await add(redis, service, ["too late"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(run.task), 0.3)
        assert run.leases[0].owned
        go_on.set()
        await returned(run, 1)
    assert handed == ids[:1]
    assert cancelled == [True]
    assert (await record(redis, service, CALL))["checkpoint"] == ids[0]
    assert [lease.stream for lease in run.leases] == [CALL]
    assert set((await owners(redis, service)).values()) <= {"nobody"}


@pytest.mark.parametrize("drain_timeout", [0, 0.3])
async def test_a_handler_that_reaches_no_checkpoint_is_released_at_the_time_out(
    server: Server, redis: Connection, service: str, drain_timeout: float
) -> None:
    await write(server.url, "reads", 1)
    has_read = asyncio.Event()

    async def handle(lease: Lease) -> None:
        if lease.stream == "reads":
            await anext(lease.entries())
            has_read.set()
        await asyncio.get_running_loop().create_future()

    async with Running(server.url, service, handle, drain_timeout=drain_timeout, **TTL) as run:
        await add(redis, service, ["reads", "reads nothing"])
        await run.handles("reads", "reads nothing")
        await has_read.wait()
        started = time.monotonic()
        run.client.drain()
        await returned(run, drain_timeout + 0.5)
        assert time.monotonic() - started >= drain_timeout
        assert await released_all(redis, service, 2)
        assert (await record(redis, service, "reads"))["attempts"] == "0"


async def released_all(redis: Connection, service: str, streams: int) -> bool:
    return list((await owners(redis, service)).values()) == ["nobody"] * streams


async def test_draining_again_changes_nothing(server: Server, redis: Connection, service: str) -> None:
    await write(server.url, CALL, 1)
    working, go_on = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        entry = await anext(lease.entries())
        working.set()
        await go_on.wait()
        await lease.checkpoint(entry.id)
        await idle(lease)

    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await working.wait()
        for _ in range(5):
            run.client.drain()
            await asyncio.sleep(0)
        assert run.leases[0].owned
        assert not run.task.done()
        go_on.set()
        await returned(run, 0.5)
        run.client.drain()
    assert await released_all(redis, service, 1)


async def test_draining_before_run_makes_it_return(server: Server, redis: Connection, service: str) -> None:
    await add(redis, service, STREAMS)
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    client.drain()
    handled: list[Lease] = []

    async def handle(lease: Lease) -> None:
        handled.append(lease)

    async with asyncio.timeout(1):
        await client.run(handle)
    assert handled == []
    assert await redis.xlen(f"{service}-input") == len(STREAMS)
    async with Running(server.url, service, **TTL) as heir:
        await heir.handles(*STREAMS)
        assert {lease.attempts for lease in heir.leases} == {1}


async def test_draining_while_it_joins(server: Server, redis: Connection, service: str) -> None:
    await add(redis, service, STREAMS)
    for turns in range(0, 60, 4):
        client = RedisStreamClient.from_url(server.url, service, **TTL)
        running = asyncio.create_task(client.run(idle))
        for _ in range(turns):
            await asyncio.sleep(0)
        client.drain()
        async with asyncio.timeout(2):
            await running
        assert await redis.keys(f"{{{service}-input}}:lock:*") == []
    assert await redis.xlen(f"{service}-input") == len(STREAMS)


async def test_a_drain_at_any_moment_of_a_handler_s_beginning_is_quick(
    server: Server, redis: Connection, service: str
) -> None:
    """Also when it begins to read just then: nothing is lost, and nothing waits for `drain_timeout`."""
    await add(redis, service, STREAMS)
    slowest = 0.0
    for turns in range(40):
        ledger = Ledger()
        called = asyncio.Event()

        async def handle(lease: Lease, ledger: Ledger = ledger, called: asyncio.Event = called) -> None:
            called.set()
            await ledger.follow(lease)

        async with Running(server.url, service, handle, **TTL) as run:
            await called.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            started = time.monotonic()
            run.client.drain()
            await returned(run, 5)
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1.0
    assert len(await redis.xrange(f"{service}-input")) == len(STREAMS)
    assert await dead_letters(redis, service) == []


async def test_a_drain_in_a_handler_s_rest_after_a_failure(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    failures = 0

    async def handle(lease: Lease) -> None:
        nonlocal failures
        failures += 1
        raise ZeroDivisionError

    async with Running(server.url, service, handle, lock_ttl=0.5) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: failures == 5, "the rest is 0.8 s at least")
        await wait_until(lambda: not run.working and run.owned, "it rests")
        started = time.monotonic()
        run.client.drain()
        await returned(run, 5)
        assert time.monotonic() - started < 0.5
    assert (await record(redis, service, CALL))["failures"] == "5"  # that failure was one
    assert await released_all(redis, service, 1)


async def test_a_handler_that_ends_while_it_is_drained(server: Server, redis: Connection, service: str) -> None:
    """What returns normally is done, what fails has failed, and what swallows its cancellation was drained."""
    streams = ["returns", "fails", "swallows"]
    for stream in streams:
        await write(server.url, stream, 1)
    handed: list[str] = []
    draining = asyncio.Event()

    async def handle(lease: Lease) -> None:
        entries = lease.entries()
        entry = await anext(entries)
        handed.append(lease.stream)
        await draining.wait()
        match lease.stream:
            case "fails":
                raise ZeroDivisionError
            case "swallows":
                await lease.checkpoint(entry.id)
                with contextlib.suppress(asyncio.CancelledError):
                    await anext(entries)

    async with Running(server.url, service, handle, max_attempts=1, **TTL) as run:
        await add(redis, service, streams)
        await wait_until(lambda: len(handed) == 3, "all work")
        run.client.drain()
        await asyncio.sleep(0)
        draining.set()
        await returned(run, 2)
        assert run.client.statistics().streams_done == 1
        ids = {lease.stream: lease.lbs_id for lease in run.leases}
    assert await owners(redis, service) == {ids["swallows"]: "nobody"}
    (letter,) = await dead_letters(redis, service)
    assert letter["lbs-id"] == ids["fails"]


async def test_leaving_the_block_drains(server: Server, redis: Connection, service: str) -> None:
    ids = await write(server.url, CALL, 5)
    handed: list[str] = []
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handed.append(entry.id)
            await go_on.wait()
            await lease.checkpoint(entry.id)

    client = RedisStreamClient.from_url(server.url, service, **TTL)
    async with client.running(handle) as entered:
        assert entered is client
        await add(redis, service, [CALL])
        await wait_until(lambda: handed, "it works on the first entry")
        asyncio.get_running_loop().call_later(0.3, go_on.set)
    assert not client.alive
    assert handed == ids[:1]
    assert (await record(redis, service, CALL))["checkpoint"] == ids[0]
    assert await released_all(redis, service, 1)


async def test_an_error_of_the_block_drains_and_goes_on_its_way(
    server: Server, redis: Connection, service: str
) -> None:
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    await add(redis, service, [CALL])

    async def fail() -> None:
        async with client.running(idle):
            await wait_until(lambda: client.leases, "it has a stream")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await released_all(redis, service, 1)


async def test_the_block_may_be_left_in_another_task(server: Server, redis: Connection, service: str) -> None:
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    running = client.running(idle)
    await asyncio.create_task(running.__aenter__())
    await add(redis, service, [CALL])
    await wait_until(lambda: client.leases, "it has a stream")
    await asyncio.create_task(running.__aexit__(None, None, None))
    assert not client.alive
    assert await released_all(redis, service, 1)


async def test_a_drained_lease_is_of_no_use_any_more(server: Server, redis: Connection, service: str) -> None:
    kept: list[Lease] = []

    async def handle(lease: Lease) -> None:
        kept.append(lease)
        await idle(lease)

    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        run.client.drain()
        await returned(run, 1)
        (lease,) = kept
        assert not lease.owned
        with pytest.raises(NotOwner):
            await lease.checkpoint("1-0")
        with pytest.raises(NotOwner):
            await anext(lease.entries())


async def test_closing_without_a_drain_is_no_failed_attempt(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    await add(redis, service, [CALL])
    for _ in range(3):
        reading = asyncio.Event()

        async def handle(lease: Lease) -> None:
            async for _ in lease.entries():
                reading.set()

        async with Running(server.url, service, handle, max_attempts=1, **TTL) as run:
            await reading.wait()
            assert run.leases[-1].attempts == 1
    assert not await dead_letters(redis, service)
