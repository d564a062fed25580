"""Handlers that show no progress: they are stopped, and lose their streams, also when they ignore it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._run import outage_watch
from tests.harness.runs import Running, add, at_the_end, dead_letters, finished, owners, write
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def test_a_handler_without_progress_loses_its_stream(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    for stream in ("stuck", "thread", "idle"):
        await write(server.url, stream, 1)
    stop = threading.Event()

    def work(lease: Lease) -> None:
        while not stop.wait(0.05):
            lease.progress()

    async def handle(lease: Lease) -> None:
        entries = lease.entries()
        await anext(entries)
        match lease.stream:
            case "stuck" if lease.deliveries == 1:
                await asyncio.sleep(3600)
            case "thread":
                await asyncio.to_thread(work, lease)
            case _:
                await anext(entries)

    async with at_the_end(stop.set), Running(server.url, service, handle, progress_timeout=0.3, **TTL) as run:
        await add(redis, service, ["stuck", "thread", "idle"])
        again = await run.lease("stuck", nth=2)
        assert again.attempts == 2
        assert "no progress on stuck" in caplog.text
        await run.handles("stuck", "thread", "idle")
        await time_passes(2.0, run.client)
        assert len(run.leases) == 4
        stop.set()
        await wait_until(lambda: run.client.statistics().streams_done == 1, "the thread has ended")


async def test_a_handler_that_stands_still_again_and_again_ends_in_the_dead_letters(
    server: Server, redis: Connection, service: str
) -> None:
    async def handle(lease: Lease) -> None:
        await asyncio.sleep(3600)

    async with Running(server.url, service, handle, progress_timeout=0.1, max_attempts=3, **TTL) as run:
        await add(redis, service, [CALL])
        (letter,) = await wait_until(lambda: dead_letters(redis, service), "it is buried")
        assert "no progress" in letter["reason"]
        assert len(run.leases) == 3


async def test_a_handler_that_ignores_its_cancellation_keeps_its_place_but_not_its_stream(
    server: Server,
    redis: Connection,
    service: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_go = asyncio.Event()
    caplog.set_level(logging.INFO, "redis_stream_client")
    monkeypatch.setattr(outage_watch, "REMIND", 1.0)

    async def handle(lease: Lease) -> None:
        if lease.stream != "stubborn" or lease.deliveries > 1:
            return
        while not let_go.is_set():
            try:
                await asyncio.wait_for(let_go.wait(), 3600)
            except asyncio.CancelledError:
                continue

    options: dict[str, Any] = {"progress_timeout": 0.2, "max_streams": 1, "lock_ttl": 0.5}
    async with at_the_end(let_go.set), Running(server.url, service, handle, **options) as run:
        await add(redis, service, ["stubborn"])
        await run.lease("stubborn")
        await wait_until(lambda: released(redis, service), "it is nobody's")
        assert "stubborn ignores its cancellation" in caplog.text
        await add(redis, service, ["next"])
        async with Running(server.url, service, handle, **options) as peer:
            await peer.lease("stubborn")
            await wait_until(lambda: finished(redis, service), "the peer finishes both")
            assert [lease.stream for lease in run.leases] == ["stubborn"]
            assert run.working == ["stubborn"]
            await wait_until(
                lambda: "handlers go on though they were cancelled (1)" in caplog.text, "the log reminds"
            )
            let_go.set()
            await wait_until(lambda: not run.working, "the handler ends")
            assert "no handler goes on any more that was cancelled" in caplog.text
        await add(redis, service, ["last"])
        await run.lease("last")


async def test_a_handler_that_ignores_its_cancellation_keeps_its_place_when_it_is_lost_after_that(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled, let_go = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        while lease.stream == "stubborn" and not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                cancelled.set()

    keys = Keys(service)
    options: dict[str, Any] = {"progress_timeout": 0.2, "max_streams": 1, "lock_ttl": 1.0}
    async with at_the_end(let_go.set), Running(server.url, service, handle, **options) as run:
        (lbs_id,) = await add(redis, service, ["stubborn"])
        await cancelled.wait()
        thief = "redis-consumer-thief-00c0ffee"
        await redis.set(keys.lock(thief), '{"ttl": 60000}', px=60_000)
        await redis.xclaim(keys.lbs, keys.group, thief, 0, [lbs_id])
        await redis.delete(keys.lock(run.client.id))
        assert await run.leases[0].lost() == "claimed"
        await wait_until(lambda: "ignores its cancellation" in caplog.text, "it is named")
        await add(redis, service, ["next"])
        await time_passes(TTL["lock_ttl"], run.client)
        assert run.working == ["stubborn"]
        assert run.client.leases == {}
        let_go.set()
        await run.lease("next")


async def released(redis: Connection, service: str) -> list[str]:
    return [lbs_id for lbs_id, owner in (await owners(redis, service)).items() if owner == NOBODY]
