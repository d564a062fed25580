"""`run(handle_signals=True)`: SIGTERM and SIGINT drain, a second one releases at once, and handlers come back."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import ClientClosed, Lease, RedisStreamClient, RedisUnavailable
from tests.harness.runs import Ledger, Running, RunWorker, add, idle, write
from tests.harness.waiting import wait_until
from tests.run.test_run import returns
from tests.run.test_run_drain import CALL, STREAMS, TTL, released_all, returned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker


@pytest.fixture
def previous_handlers() -> Iterator[list[int]]:
    """Handlers of a program's own, which are to be there afterwards."""
    called: list[int] = []

    def handler(number: int, frame: object) -> None:
        called.append(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    yield called
    assert all(signal.getsignal(number) is handler for number in before)
    for number, previous in before.items():
        signal.signal(number, previous)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_signal_drains_and_a_second_one_releases_at_once(
    server: Server,
    redis: Connection,
    service: str,
    previous_handlers: list[int],
    number: signal.Signals,
    times: int,
) -> None:
    await write(server.url, CALL, 1)
    working, go_on = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        await anext(lease.entries())
        working.set()
        await go_on.wait()

    async with Running(server.url, service, handle, handle_signals=True, **TTL) as run:
        await add(redis, service, [CALL])
        await working.wait()
        signal.raise_signal(number)
        await asyncio.sleep(0.05)
        assert run.leases[0].owned
        assert not run.task.done()
        if times == 2:
            signal.raise_signal(number)
        else:
            go_on.set()
        await returned(run, 0.6)
        assert run.client.statistics().streams_done == (1 if times == 1 else 0)
        assert await released_all(redis, service, times - 1)
    assert previous_handlers == []
    signal.raise_signal(number)
    assert previous_handlers == [number]


@pytest.mark.parametrize("use", ["run", "running"])
async def test_a_signal_while_it_joins_ends_it(
    proxy: TcpProxy, redis: Connection, service: str, previous_handlers: list[int], use: str
) -> None:
    proxy.freeze()
    client = RedisStreamClient.from_url(proxy.url, service, connect_timeout=60.0)

    async def enter() -> None:
        async with client.running(idle, handle_signals=True):
            raise AssertionError("it has entered the block")

    joining = client.run(idle, handle_signals=True) if use == "run" else enter()
    task = asyncio.create_task(joining)
    await wait_until(lambda: proxy.open, "it has begun to join")
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(5.0):
        if use == "run":
            await task  # as after a drain
        else:
            with pytest.raises(ClientClosed):
                await task
    assert previous_handlers == []
    signal.raise_signal(signal.SIGTERM)
    assert previous_handlers == [signal.SIGTERM]
    proxy.heal()
    assert await redis.keys("*:lock:*") == []


async def test_a_client_that_cannot_join_leaves_the_former_handlers(
    service: str, previous_handlers: list[int]
) -> None:
    client = RedisStreamClient.from_url("redis://127.0.0.1:1", service, connect_timeout=0.05)
    with pytest.raises(RedisUnavailable):
        await client.run(idle, handle_signals=True)
    signal.raise_signal(signal.SIGINT)
    assert previous_handlers == [signal.SIGINT]


async def test_the_first_signal_after_a_drain_is_not_the_second_signal(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    working, go_on = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        await anext(lease.entries())
        working.set()
        await go_on.wait()

    async with Running(server.url, service, handle, handle_signals=True, **TTL) as run:
        await add(redis, service, [CALL])
        await working.wait()
        run.client.drain()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        go_on.set()
        await returned(run, 0.6)
        assert run.client.statistics().streams_done == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_asked_to_end_hands_over_and_exits_with_0(
    server: Server,
    redis: Connection,
    service: str,
    start_worker: Callable[..., Awaitable[Worker]],
    number: signal.Signals,
) -> None:
    streams = [*STREAMS, "deaf-1"]
    for stream in STREAMS:
        await write(server.url, stream, 2)
    old = await (await start_worker(RunWorker, drain_timeout=0.2)).joined()
    await add(redis, service, streams)
    await wait_until(
        lambda: sum(e.event == "accepted" for e in old.events) == 2 * len(STREAMS), "all entries are processed"
    )
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **TTL) as heir:
        old.process.send_signal(number)
        assert await old.exit_code() == 0
        assert old.events[-1].event == "left"
        await heir.handles(*streams)
        assert ledger.handed == {}
        assert {lease.attempts for lease in heir.leases} <= {0, 1}
    assert old.errors == ""


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
