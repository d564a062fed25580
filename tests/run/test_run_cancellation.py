"""Ring 3: `run()` and `running()` are cancelled at any moment, also while Redis is frozen or away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from redis.asyncio import Redis

from redis_stream_client import ClientClosed, Lease, RedisRejected, RedisStreamClient
from redis_stream_client._model.keys import Keys
from tests.harness.runs import Ledger, Running, add, at_the_end, idle, owners, record, write
from tests.harness.suspensions import EVERY_HOW, EVERY_WHEN, WHENS, How, Strikes, Traces, When
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
STREAMS = [f"call-{i}" for i in range(8)]
TTL: dict[str, Any] = {"lock_ttl": 2.0}
GRACE = 0.5
"""Seconds that the end may take when Redis is away."""
SLACK = 0.15
"""Seconds that scheduling may add; how late a busy machine runs the event loop is measured, and does not count."""

TICK = 0.005

HOW = pytest.mark.parametrize("how", ["native", "twice", "anyio"])
USE = pytest.mark.parametrize("use", ["run", "running"])


class Stopwatch:
    """Measures seconds of the event loop's own time: what it runs late is left out."""

    def __init__(self) -> None:
        self._started = 0.0
        self.late = 0.0

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick(), name="stopwatch")
        self._started = time.monotonic()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.seconds = time.monotonic() - self._started - self.late
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            self.late += max(0.0, time.monotonic() - before - 2 * TICK)


async def cancelled_after(moment: Callable[[], Awaitable[object]], work: Awaitable[None], how: str) -> float:
    """Start work, cancel it at a moment; returns how long it took to end, in seconds."""
    scope = anyio.CancelScope()
    task = asyncio.ensure_future(_scoped(work, scope) if how == "anyio" else work)
    await moment()
    async with Stopwatch() as watch:
        if how == "anyio":
            scope.cancel()
        else:
            task.cancel()
            if how == "twice":
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait((task,), timeout=10)
    assert task.done(), "it does not end"
    assert task.cancelled() or how == "anyio", task.exception()
    if how == "anyio":
        assert scope.cancelled_caught
        task.result()
    return watch.seconds


async def _scoped(work: Awaitable[None], scope: anyio.CancelScope) -> None:
    with scope:
        await work


def turns(count: int) -> Callable[[], Awaitable[None]]:
    """The moment after so many turns of the event loop."""

    async def pass_by() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return pass_by


async def used(client: RedisStreamClient, use: str, handler: Any, **rules: Any) -> None:
    """Run a client by `run()`, or in the block of `running()`."""
    if use == "run":
        await client.run(handler, **rules)
    else:
        async with client.running(handler, **rules):
            await asyncio.get_running_loop().create_future()


async def test_cancelled_before_its_task_has_begun(server: Server, redis: Connection, service: str) -> None:
    await add(redis, service, [CALL])
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    with pytest.raises(asyncio.CancelledError):
        async with client.running(idle):
            raise asyncio.CancelledError
    assert not client.alive
    assert await redis.keys("*:lock:*") == []
    with pytest.raises(ClientClosed):
        await client.run(idle)


@EVERY_HOW
@EVERY_WHEN
@USE
async def test_cancelled_at_any_moment_of_its_life(
    server: Server, redis: Connection, service: str, use: str, how: How, when: When
) -> None:
    """It joins, takes two streams, follows their new entries, and drains. Of its suspensions each is struck at one
    of the three moments, in one of the two uses."""
    streams = STREAMS[:2]
    await add(redis, service, streams)
    traces = await Traces.look(redis, service)
    ledger = Ledger()
    written: dict[str, list[str]] = {stream: [] for stream in streams}
    patient: dict[str, Any] = {
        "max_attempts": 1000
    }  # who is cancelled twice leaves as a crash would, and its attempt counts
    share = WHENS.index(when) + (len(WHENS) if use == "running" else 0)
    struck = Strikes(server, how, when, first=share, step=2 * len(WHENS))
    for strike in struck:
        client = RedisStreamClient.from_url(server.url, service, **TTL)
        caught_up: set[str] = set()
        working: list[str] = []
        all_caught_up = asyncio.Event()
        for stream in streams:
            written[stream] += await write(server.url, stream, 1)

        async def handle(
            lease: Lease,
            client: RedisStreamClient = client,
            caught_up: set[str] = caught_up,
            working: list[str] = working,
            all_caught_up: asyncio.Event = all_caught_up,
        ) -> None:
            working.append(lease.stream)
            try:
                await catch_up(ledger, lease, written[lease.stream][-1])
                caught_up.add(lease.stream)
                if len(caught_up) == len(streams):
                    all_caught_up.set()
                    client.drain()
                await idle(lease)
            finally:
                working.remove(lease.stream)

        async def live(
            client: RedisStreamClient = client,
            handle: Callable[[Lease], Awaitable[None]] = handle,
            all_caught_up: asyncio.Event = all_caught_up,
        ) -> None:
            if use == "run":
                await client.run(handle, **patient)
            else:
                async with client.running(handle, **patient):
                    await all_caught_up.wait()

        async with Stopwatch() as watch:
            await strike.on(live())
        assert strike.took - watch.late < GRACE + SLACK
        await traces.none_left()
        assert not working
        assert not client.alive
    assert struck.points >= 15
    assert await redis.xlen(f"{service}-input") == len(streams)  # nothing was acknowledged
    ids = {stream: written[stream][-1] for stream in streams}
    async with Running(server.url, service, ledger.follow, **patient, **TTL) as heir:
        await heir.handles(*streams)
        await wait_until(lambda: all_checkpointed(redis, service, ids), "all are followed")
    for stream in streams:
        # Where the wait for a checkpoint was cancelled it may have been stored: the entry is not handed out again.
        assert list(dict.fromkeys(ledger.handed[stream])) == written[stream]
        assert ledger.accepted[stream] == sorted(set(ledger.accepted[stream]))


async def catch_up(ledger: Ledger, lease: Lease, last: str) -> None:
    """Checkpoint every entry up to this one."""
    entries = lease.entries()
    while lease.position != last:
        entry = await anext(entries)
        ledger.handed[lease.stream].append(entry.id)
        await lease.checkpoint(entry.id)
        ledger.accepted[lease.stream].append(entry.id)


async def all_checkpointed(redis: Connection, service: str, ids: dict[str, str]) -> bool:
    records = {stream: await record(redis, service, stream) for stream in ids}
    return all(records[stream].get("checkpoint") == id for stream, id in ids.items())


@HOW
@USE
async def test_cancelled_at_work_hands_over_at_once(
    server: Server, redis: Connection, service: str, use: str, how: str
) -> None:
    traces = await Traces.look(redis, service)
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    called: list[str] = []

    async def handle(lease: Lease) -> None:
        called.append(lease.stream)
        await idle(lease)

    async def moment() -> None:
        await add(redis, service, STREAMS)
        await wait_until(lambda: len(called) == len(STREAMS), "all are handled")

    assert await cancelled_after(moment, used(client, use, handle), how) < SLACK
    await traces.none_left()
    attempts: set[int] = set()

    async def inherit(lease: Lease) -> None:
        attempts.add(lease.attempts)  # before it is known that there is nothing to do
        await idle(lease)

    async with Running(server.url, service, inherit, **TTL) as heir:
        started = time.monotonic()
        await heir.handles(*STREAMS)
        assert time.monotonic() - started < 0.5
        assert attempts <= {1, 2}


@HOW
@USE
@pytest.mark.parametrize("outage", ["frozen", "away"])
async def test_cancelled_without_redis(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, use: str, how: str, outage: str
) -> None:
    traces = await Traces.look(redis, service)
    client = RedisStreamClient.from_url(proxy.url, service, **TTL)
    called: list[str] = []

    async def handle(lease: Lease) -> None:
        called.append(lease.stream)
        await idle(lease)

    async def moment() -> None:
        await add(redis, service, STREAMS)
        await wait_until(lambda: len(called) == len(STREAMS), "all are handled")
        if outage == "frozen":
            proxy.freeze()
        else:
            await proxy.refuse()
            proxy.cut()

    took = await cancelled_after(moment, used(client, use, handle), how)
    assert took < GRACE + SLACK
    proxy.thaw()
    proxy.cut()
    await wait_until(lambda: not traces.tasks, "no task is left", 2 * GRACE)


@HOW
async def test_cancelled_while_it_looks_for_redis(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, how: str
) -> None:
    proxy.freeze()
    traces = await Traces.look(redis, service)
    for use in ("run", "running"):
        client = RedisStreamClient.from_url(proxy.url, service, **TTL)

        async def moment() -> None:
            await asyncio.sleep(0.05)

        assert await cancelled_after(moment, used(client, use, idle), how) < GRACE + SLACK
        await wait_until(lambda: not traces.tasks, "no task is left", 2 * GRACE)


@HOW
@USE
async def test_cancelled_while_it_drains(
    server: Server, redis: Connection, service: str, use: str, how: str
) -> None:
    await write(server.url, CALL, 1)
    traces = await Traces.look(redis, service)
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    working = asyncio.Event()

    async def handle(lease: Lease) -> None:
        await anext(lease.entries())
        working.set()
        await asyncio.get_running_loop().create_future()

    async def drained() -> None:
        if use == "run":
            await client.run(handle)
        else:
            async with client.running(handle):
                await working.wait()

    async def moment() -> None:
        await add(redis, service, [CALL])
        await working.wait()
        if use == "run":
            client.drain()
        await turns(30)()

    assert await cancelled_after(moment, drained(), how) < GRACE + SLACK
    await traces.none_left()
    assert set((await owners(redis, service)).values()) <= {"nobody", client.id}


async def test_a_handler_may_clean_up_when_it_is_cancelled(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 1)

    async def handle(lease: Lease) -> None:
        entry = await anext(lease.entries())
        handed.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await lease.checkpoint(entry.id)

    handed = asyncio.Event()
    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await handed.wait()
        run.task.cancel()
        await asyncio.wait((run.task,), timeout=2)
        assert run.task.cancelled()
    assert (await record(redis, service, CALL))["checkpoint"] == ids[0]
    assert set((await owners(redis, service)).values()) == {"nobody"}


async def test_a_handler_that_ignores_it_holds_nobody_up(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()

    async def handle(lease: Lease) -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async with at_the_end(let_go.set), Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        started = time.monotonic()
        run.task.cancel()
        await asyncio.wait((run.task,), timeout=5)
        assert time.monotonic() - started < GRACE + SLACK
        assert not run.leases[0].owned
        assert "goes on after the end" in caplog.text
        async with Running(server.url, service, **TTL) as heir:
            await heir.handles(CALL)
        let_go.set()
        await wait_until(lambda: not run.working, "it ends")


# What fails under it.


async def broken(client: RedisStreamClient, break_it: Callable[[], Awaitable[object]], ended: list[str]) -> None:
    """Wait in the block of a client that fails."""
    async with client.running(idle):
        await wait_until(lambda: client.leases, "it has a stream")
        await break_it()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise


@pytest.mark.parametrize("failure", ["another type", "another password", "no permission"])
async def test_a_failure_cancels_the_block_and_is_raised(
    server: Server, redis: Connection, service: str, failure: str
) -> None:
    server.command("ACL", "SETUSER", "worker", "reset", "on", ">secret", "~*", "&*", "+@all")
    url = server.url.replace("redis://", "redis://worker:secret@")
    client = RedisStreamClient.from_url(url, service, lock_ttl=0.6)
    ended: list[str] = []

    async def break_it() -> None:
        match failure:
            case "another type":
                await redis.set(Keys(service).lbs, "no stream")
            case "another password":
                await redis.acl_setuser("worker", reset_passwords=True, passwords=["+other"])
                await redis.execute_command("CLIENT", "KILL", "USER", "worker")
            case _:
                await redis.execute_command("ACL", "SETUSER", "worker", "-pexpire")

    try:
        await add(redis, service, [CALL])
        with pytest.raises(RedisRejected):
            async with asyncio.timeout(10):
                await broken(client, break_it, ended)
    finally:
        server.command("ACL", "DELUSER", "worker")
    assert ended == ["cancelled"]
    assert not client.alive
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # the cancellation was the library's own, and is taken back


async def test_a_failure_ends_run_with_it(server: Server, redis: Connection, service: str) -> None:
    async with Running(server.url, service, lock_ttl=0.6) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await redis.set(Keys(service).lbs, "no stream")
        with pytest.raises(RedisRejected):
            async with asyncio.timeout(10):
                await run.task
        await wait_until(lambda: not run.working, "the handler was cancelled")


@USE
async def test_joining_that_fails_leaves_nothing(
    server: Server, redis: Connection, service: str, use: str
) -> None:
    await redis.set(Keys(service).lbs, "no stream")
    traces = await Traces.look(redis, service)
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    with pytest.raises(RedisRejected):
        await used(client, use, idle)
    await traces.none_left()
    async with Redis.from_url(server.url) as other:
        assert await other.keys("*lock*") == []
