"""Ring 2: how many streams one `run()` takes, and how their entries reach the handlers."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import Lease, RedisStreamClient, StreamAdded
from redis_stream_client._model.keys import NOBODY
from tests.harness.fleet import Member
from tests.harness.runs import END, Ledger, Running, add, all_watched, calls, finished, idle, owners, record, write
from tests.harness.scenes import die_with
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def returns(lease: Lease) -> None:
    """Finish at once."""


# Room.


async def test_max_streams_bounds_reading_and_take_over_and_freed_room_is_used(
    server: Server, redis: Connection, service: str
) -> None:
    most = 0
    ends: dict[str, asyncio.Event] = {}

    async def handle(lease: Lease) -> None:
        nonlocal most
        most = max(most, len(run.working))
        await ends.setdefault(lease.stream, asyncio.Event()).wait()

    async with Running(server.url, service, handle, max_streams=3, **TTL) as run:
        orphans = [f"orphan-{i}" for i in range(6)]
        for stream in orphans:
            await die_with(redis, service, stream, lock_ttl=0.1)
        fresh = [f"fresh-{i}" for i in range(4)]
        await add(redis, service, fresh)
        seen: set[str] = set()
        while len(seen) < 10:
            working = await wait_until(lambda: set(run.working) - seen, "more are taken")
            for stream in working:
                ends[stream].set()
            seen |= working
        await wait_until(lambda: finished(redis, service), "all are finished")
        assert most <= 3
        assert seen == {*orphans, *fresh}


async def test_freed_room_takes_waiting_orphans_at_once(server: Server, redis: Connection, service: str) -> None:
    """One after the other, and not one at each sweep."""
    async with Running(server.url, service, returns, max_streams=1, lock_ttl=4.0) as run:
        async with Running(server.url, service, idle, lock_ttl=4.0) as dying:
            streams = [f"call-{i}" for i in range(20)]
            await add(redis, service, streams)
            await wait_until(lambda: len(run.leases) + len(dying.leases) >= 20, "all are handled")
            left = len(dying.owned)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await wait_until(lambda: finished(redis, service), "all are finished", timeout=60)
        assert left > 5
        assert loop.time() - started < 4.0


# Many streams.


async def test_thousands_of_entries_in_order_without_a_gap(
    server: Server, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    ids = await write(server.url, CALL, 3000)
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        ids += await write(server.url, CALL, 1500, end=True)
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished", timeout=30)
    assert ledger.handed[CALL] == ids
    assert ledger.accepted[CALL] == ids


async def test_entries_of_a_stream_that_is_created_trimmed_or_deleted_meanwhile(
    server: Server, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        first = await write(server.url, CALL, 3)
        await wait_until(lambda: ledger.accepted[CALL] == first, "they arrive although it did not exist")
        await redis.xtrim(CALL, maxlen=0)
        await redis.delete(CALL)
        second = await write(server.url, CALL, 3)
        await wait_until(lambda: ledger.accepted[CALL] == first + second, "it goes on")
        async with redis.pipeline(transaction=True) as at_once:
            for _ in range(10):
                at_once.xadd(CALL, {"n": 0}, maxlen=2, approximate=False)
            ids = [id.decode() for id in await at_once.execute()]
        await wait_until(lambda: ledger.accepted[CALL] == first + second + ids[-2:], "what is left of it comes")
        await redis.xadd(CALL, {END: ""})
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished")


async def test_large_entries(server: Server, redis: Connection, service: str) -> None:
    sizes: list[int] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            sizes.append(len(entry.fields[b"data"]))
            if END in entry.fields:
                return

    for i in range(24):
        end: dict[str | bytes, Any] = {END: ""} if i == 23 else {}
        await redis.xadd(CALL, {"data": bytes(1 << 20), **end})
    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished", timeout=30)
        assert run.client.statistics().lapses == 0
    assert sizes == [1 << 20] * 24


async def test_idle_streams_cost_next_to_nothing(server: Server, redis: Connection, service: str) -> None:
    streams = [f"call-{i}" for i in range(2000)]
    woken: Counter[str] = Counter()

    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            woken[lease.stream] += 1

    before = len(await redis.client_list())
    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, streams)
        await run.handles(*streams, timeout=30)
        await wait_until(
            lambda: all_watched(redis, len(streams)), "each was read, and is heard of when it changes"
        )
        assert len(await redis.client_list()) - before <= 7
        reads = await calls(redis, "xread")
        beats = run.client.statistics().beats
        await wait_until(lambda: run.client.statistics().beats >= beats + 8, "two seconds pass")
        assert await calls(redis, "xread") - reads <= 3
        await redis.xadd("call-1234", {END: ""})
        await redis.xadd("call-99", {END: ""})
        await wait_until(lambda: woken == {"call-1234": 1, "call-99": 1}, "two are woken")
        assert await calls(redis, "xread") - reads <= 8
        assert await record(redis, service, "call-1234") != {}


async def test_events_and_run_share_one_fleet(server: Server, redis: Connection, service: str) -> None:
    """Both get streams, and each takes over what the other leaves."""
    async with Running(server.url, service, **TTL) as run:
        async with Member(server.url, service, **TTL) as member:
            streams = [f"call-{i}" for i in range(20)]
            await add(redis, service, streams)
            await wait_until(lambda: len(run.working) + len(member.owned) == 20, "all are owned")
            assert run.working
            assert member.owned
            assert all(isinstance(event, StreamAdded) for event in member.events)
        await run.handles(*streams)
    async with Member(server.url, service, **TTL) as member:
        await member.owns(*streams)


async def test_max_streams_is_a_bound_while_orphans_and_announcements_come_together(
    server: Server, redis: Connection, service: str
) -> None:
    async with Running(server.url, service, idle, lock_ttl=0.5) as dying:
        await add(redis, service, [f"orphan-{i}" for i in range(300)])
        await wait_until(lambda: len(dying.leases) == 300, "it has all")
        held: list[int] = []

        async def handle(lease: Lease) -> None:
            held.append(len(run.client.leases))
            await asyncio.sleep(0.01)

        run = Running(server.url, service, handle, max_streams=20, lock_ttl=0.5)
        async with run:
            await add(redis, service, [f"fresh-{i}" for i in range(300)])
            await dying.client.aclose()
            await wait_until(lambda: finished(redis, service), "all are finished", timeout=30)
        assert len(held) >= 300
        assert max(held) <= 20


async def test_an_announcement_that_comes_when_a_take_over_has_filled_the_room_is_put_back(
    server: Server, redis: Connection, service: str
) -> None:
    """A read waits in Redis while an orphan is taken; it brings one stream too many."""
    finish = asyncio.Event()
    most = 0

    async def handle(lease: Lease) -> None:
        nonlocal most
        most = max(most, len(run.client.leases))
        await finish.wait()

    async def reads() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    run = Running(server.url, service, handle, max_streams=1, lock_ttl=4.0)
    async with run:
        await wait_until(reads, "it reads")
        await die_with(redis, service, "orphan", lock_ttl=0.05)
        await run.handles("orphan")
        await add(redis, service, ["fresh"])
        await wait_until(lambda: undelivered_or_released(redis, service), "nobody has it")
        assert len(run.client.leases) == 1
        finish.set()
        await run.lease("fresh")
        await wait_until(lambda: finished(redis, service), "both are finished")
    assert most == 1


async def undelivered_or_released(redis: Connection, service: str) -> bool:
    """Whether the newer one of two announcements waits: in Redis, or for whoever claims it."""
    by_id = await owners(redis, service)
    return len(by_id) == 1 or by_id[max(by_id)] == NOBODY


@pytest.mark.parametrize("fails", [False, True])
async def test_a_handler_that_has_ended_needs_no_garbage_collector(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Neither its lease nor its task: a client that finishes thousands would pile them up until it runs."""
    # pytest keeps what is logged.
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)
    tasks: list[weakref.ref[Any]] = []

    async def handle(lease: Lease) -> None:
        tasks.append(weakref.ref(asyncio.current_task()))
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            break
        if fails and lease.deliveries == 1:
            raise ValueError(lease.stream)

    async with Redis.from_url(server.url) as own, RedisStreamClient(own, service, **TTL).running(handle):
        gc.disable()
        try:
            await write(server.url, CALL, 2)
            await add(redis, service, [CALL])
            await wait_until(lambda: finished(redis, service), "it is finished")
            assert len(tasks) == 1 + fails
            await wait_until(lambda: not any(task() for task in tasks), "its tasks are gone")
        finally:
            gc.enable()
