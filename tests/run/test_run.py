"""Ring 2: what `run()` promises about handlers, without faults of the network or of processes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed, Lease, NotOwner, RedisStreamClient
from tests.harness.fleet import Member
from tests.harness.runs import Ledger, Running, add, dead_letters, fail_alone, finished, idle, owners, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def returns(lease: Lease) -> None:
    """Finish at once."""


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
            case "good":
                await idle(lease)

    streams = ["cancelled", "not-owner", "closed", "stop", "surrogate", "base", "generator"]
    async with Running(server.url, service, handle, max_attempts=1, **TTL) as run:
        await add(redis, service, ["good"])
        await fail_alone(run, redis, service, streams)
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
