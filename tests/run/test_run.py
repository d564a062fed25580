"""Ring 2: what `run()` promises about handlers, without faults of the network or of processes."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed, Lease, NotOwner, RedisStreamClient
from redis_stream_client._model.keys import NOBODY, Keys
from tests.harness.fleet import Member
from tests.harness.runs import Ledger, Running, add, at_the_end, dead_letters, finished, idle, owners, write
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def returns(lease: Lease) -> None:
    """Finish at once."""


class Handlers:
    """Other async callables than functions."""

    async def method(self, lease: Lease) -> None:
        """Finish at once."""

    async def __call__(self, lease: Lease) -> None:
        """Finish at once."""


async def two_arguments(how: str, lease: Lease) -> None:
    """Finish at once."""


# What a handler may be.


@pytest.mark.parametrize(
    "handler",
    [
        returns,
        functools.partial(two_arguments, "how"),
        functools.partial(functools.partial(two_arguments), "how"),
        Handlers().method,
        Handlers(),
        functools.partial(Handlers()),
    ],
)
async def test_any_async_callable_is_a_handler(
    server: Server, redis: Connection, service: str, handler: Any
) -> None:
    await add(redis, service, [CALL])
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    async with client.running(handler):
        await wait_until(lambda: client.statistics().streams_done == 1, "it is done")
    assert await finished(redis, service)


def sync(lease: Lease) -> None:
    """No handler."""


async def generator(lease: Lease) -> AsyncIterator[None]:
    """No handler."""
    yield


async def coroutine() -> None:
    """Not a handler, once it is called."""


@pytest.mark.parametrize("run", ["run", "running"])
@pytest.mark.parametrize(
    ("handler", "hint"),
    [
        (sync, "async def"),
        (lambda lease: lease, "async def"),
        (generator, "without yield"),
        (coroutine, None),
        (Handlers, "async def"),
        (None, "async def"),
        ("handler", "async def"),
        (functools.partial(sync), "async def"),
    ],
)
async def test_what_is_no_handler_is_refused_before_anything_joins(
    server: Server, redis: Connection, service: str, run: str, handler: Any, hint: str | None
) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    if handler is coroutine:
        handler, hint = coroutine(), r"leave out the \(\)"
    with pytest.raises(TypeError, match=hint):
        await using(client, run, handler)
    assert not await redis.keys("*")
    await returns_when_drained(client)  # it is as good as new


@pytest.mark.parametrize("run", ["run", "running"])
@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({"drain_timeout": -1}, ValueError),
        ({"drain_timeout": float("nan")}, ValueError),
        ({"drain_timeout": "1"}, TypeError),
        ({"drain_timeout": None}, TypeError),
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": 1.0}, TypeError),
        ({"max_attempts": True}, TypeError),
        ({"progress_timeout": 0}, ValueError),
        ({"progress_timeout": "1"}, TypeError),
        ({"handle_signals": 1}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_joins(
    server: Server, redis: Connection, service: str, run: str, rules: dict[str, Any], error: type[Exception]
) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    with pytest.raises(error, match=next(iter(rules))):
        await using(client, run, returns, **rules)
    assert not await redis.keys("*")
    await returns_when_drained(client)


async def using(client: RedisStreamClient, run: str, handler: Any, **rules: Any) -> None:
    if run == "run":
        await client.run(handler, **rules)
    else:
        async with client.running(handler, **rules):
            raise AssertionError("it was entered")


async def returns_when_drained(client: RedisStreamClient) -> None:
    client.drain()
    async with asyncio.timeout(5):
        await client.run(returns)


def test_signals_in_another_thread_are_refused_and_leave_nothing(server: Server, service: str) -> None:
    raised: list[BaseException] = []

    async def main() -> None:
        client = RedisStreamClient.from_url(server.url, service)
        try:
            await client.run(returns, handle_signals=True)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
    assert server.command("KEYS", "*lock*") == []


# One use of a client.


async def test_a_second_run_is_refused_and_the_first_goes_on(
    server: Server, redis: Connection, service: str
) -> None:
    async with Running(server.url, service, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        for use in ("run", "running"):
            with pytest.raises(RuntimeError, match="runs already"):
                await using(run.client, use, returns)
        with pytest.raises(RuntimeError, match=r"run\(\) takes this client's events"):
            await anext(run.client.events())
        assert run.client.alive
        assert run.leases[0].owned
        await run.handles(CALL)


async def test_run_beside_a_reader_of_events_is_refused_and_the_reader_goes_on(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        for use in ("run", "running"):
            with pytest.raises(RuntimeError, match=r"events\(\)"):
                await using(member.client, use, returns)
        await add(redis, service, ["call-2"])
        await member.owns(CALL, "call-2")


async def test_run_in_a_client_s_block(server: Server, redis: Connection, service: str) -> None:
    async with RedisStreamClient.from_url(server.url, service, **TTL) as client:
        await add(redis, service, [CALL])
        await wait_until(lambda: client.leases, "it has arrived")
        async with client.running(returns):
            await wait_until(lambda: client.statistics().streams_done == 1, "it is done")
    with pytest.raises(ClientClosed):
        await client.run(returns)


async def test_closing_ends_run(server: Server, redis: Connection, service: str) -> None:
    async with Running(server.url, service, **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await run.client.aclose()
        async with asyncio.timeout(2):
            await run.task
        assert run.working == []
        assert await owners(redis, service) != {}


# A handler that fails.


async def test_a_failure_is_logged_and_a_peer_takes_the_stream_first(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    failed_in: list[RedisStreamClient] = []

    async def handle(lease: Lease) -> None:
        if not failed_in:
            failed_in.append(next(c for c in (one.client, two.client) if lease.lbs_id in c.leases))
            raise ZeroDivisionError("no such luck")
        await idle(lease)

    one, two = (Running(server.url, service, handle, **TTL) for _ in range(2))
    async with one, two:
        await add(redis, service, [CALL])
        await wait_until(lambda: len(one.leases + two.leases) == 2, "it is handled again")
        failed, peer = (one, two) if failed_in == [one.client] else (two, one)
        await peer.handles(CALL)
        assert len(failed.leases) == len(peer.leases) == 1
        assert peer.leases[0].attempts == 2
        (error,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
        assert error.exc_info is not None
        assert error.exc_info[0] is ZeroDivisionError
        fence = str(failed.leases[0].fence)
        assert CALL in error.getMessage()
        assert fence in error.getMessage()
        assert (error.__dict__["stream"], error.__dict__["fence"]) == (CALL, fence)
        assert "no such luck" not in error.getMessage()


async def test_a_failing_stream_rests_before_it_is_released(
    server: Server, redis: Connection, service: str
) -> None:
    loop = asyncio.get_running_loop()
    began: list[float] = []

    async def handle(lease: Lease) -> None:
        began.append(loop.time())
        raise ZeroDivisionError

    async with Running(server.url, service, handle, max_attempts=5, **TTL):
        await add(redis, service, [CALL])
        await wait_until(lambda: dead_letters(redis, service), "a lone client retries until it gives up")
    assert len(began) == 5
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    # Kept unhandled, and as long again left alone, each at least half of 0.1, 0.2, 0.4, 0.8 s.
    assert all(pause >= 0.1 * 2**i for i, pause in enumerate(pauses)), pauses
    (letter,) = await dead_letters(redis, service)
    assert "failed 5 times" in letter["reason"]
    assert "ZeroDivisionError" in letter["reason"]
    assert await finished(redis, service)


async def test_a_checkpoint_that_advances_starts_the_attempts_anew(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 6)
    handed: list[str] = []

    async def handle(lease: Lease) -> None:
        entry = await anext(lease.entries())
        handed.append(entry.id)
        if len(handed) < 6:
            await lease.checkpoint(entry.id)
            raise ZeroDivisionError

    async with Running(server.url, service, handle, max_attempts=2, lock_ttl=0.5) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it gets on")
    assert handed == ids
    assert await dead_letters(redis, service) == []


async def test_whatever_a_handler_raises_is_its_own_failure(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug that cancels, or an error of another client, is no reason to end `run()`."""
    # What is logged here cannot be encoded, and other plugins of pytest would stumble over it.
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)

    async def handle(lease: Lease) -> None:
        match lease.stream:
            case "cancelled":
                raise asyncio.CancelledError
            case "not-owner":
                raise NotOwner("another's", reason="claimed")
            case "closed":
                raise ClientClosed("another's")
            case "stop":
                raise StopAsyncIteration
            case "surrogate":
                raise ValueError("\udcff" * 2000)
            case "base":
                raise BaseException("no exception")
            case "generator":
                raise GeneratorExit
            case _:
                await idle(lease)

    streams = ["cancelled", "not-owner", "closed", "stop", "surrogate", "base", "generator"]
    async with Running(server.url, service, handle, max_attempts=1, **TTL) as run:
        await add(redis, service, [*streams, "good"])
        await wait_until(lambda: run.client.statistics().dead_letters == len(streams), "all have failed")
        await run.handles("good")
    letters = await dead_letters(redis, service)
    assert all("failed 1 times" in letter["reason"] for letter in letters)


async def test_a_handler_may_end_its_lease_itself(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        if lease.stream == "done":
            await lease.done()
        elif lease.deliveries == 1:
            await lease.release()
        else:
            await idle(lease)

    async with Running(server.url, service, handle, max_attempts=1, lock_ttl=0.5) as run:
        await add(redis, service, ["done", "released"])
        assert (await run.lease("released", nth=2)).attempts == 1
        await run.handles("released")
        assert run.client.statistics().streams_done == 1
    assert await dead_letters(redis, service) == []


async def test_graceful_hand_overs_count_nothing(server: Server, redis: Connection, service: str) -> None:
    """A hundred: ten rounds of ten streams, of which each would end after its second failure."""
    streams = [f"call-{i}" for i in range(10)]
    ledger = Ledger()
    for stream in streams:
        await write(server.url, stream, 1)
    run = await Running(server.url, service, ledger.follow, max_attempts=2, **TTL).__aenter__()
    await add(redis, service, streams)
    for _ in range(10):
        await run.handles(*streams)
        heir = await Running(server.url, service, ledger.follow, max_attempts=2, **TTL).__aenter__()
        run.client.drain()
        async with asyncio.timeout(5):
            await run.task
        await run.__aexit__(None, None, None)
        run = heir
    await run.handles(*streams)
    assert all(lease.attempts <= 1 for lease in run.leases)
    assert {lease.deliveries for lease in run.leases} == {11}
    assert await dead_letters(redis, service) == []
    assert all(len(ledger.handed[stream]) == 1 for stream in streams)
    await run.__aexit__(None, None, None)


# Progress.


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
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()

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
            let_go.set()
            await wait_until(lambda: not run.working, "the handler ends")
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
