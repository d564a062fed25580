"""Ring 3: wake-ups fail in every way, and entries are read all the same."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client._streams import tracking, tracking_check
from tests.harness.proxy import TcpProxy
from tests.harness.runs import Ledger, Running, add, all_watched, calls, write
from tests.harness.sentinel import replicate
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
CALLS = [f"call-{i}" for i in range(5)]
TTL: dict[str, Any] = {"lock_ttl": 1.0}
MESSAGE = b"$7\r\nmessage\r\n$20\r\n__redis__:invalidate"
"""What a wake-up looks like on the wire."""

SOON = 2.5
"""Seconds within which an entry is read that nothing was heard of, on a busy machine."""


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said about wake-ups, above INFO."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "looked at from time to time" in record.getMessage()
    ]


async def arrives(ledger: Ledger, redis: Connection, stream: str, within: float = SOON) -> float:
    """Add an entry to a stream that is waited for; returns after how many seconds it was accepted."""
    count = len(ledger.accepted[stream])
    started = time.monotonic()
    await redis.xadd(stream, {"n": 1})
    await wait_until(lambda: len(ledger.accepted[stream]) > count, f"an entry of {stream} is read", within)
    return time.monotonic() - started


def mute(proxy: TcpProxy) -> None:
    proxy.drop_replies_after(b"__redis__:invalidate")


def cut(proxy: TcpProxy) -> None:
    proxy.drop_replies_after(b"__redis__:invalidate", cut=True)


def no_identity(proxy: TcpProxy) -> None:
    proxy.drop_replies_after(b"CLIENT\r\n$2\r\nID")


def no_tracking(proxy: TcpProxy) -> None:
    proxy.drop_replies_after(b"TRACKING")


@pytest.fixture(autouse=True)
def _warned_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_check, "WARN_AFTER", 0.5)


@pytest.mark.parametrize("fault", [mute, cut, no_identity, no_tracking])
async def test_entries_are_read_without_wake_ups_and_with_them_when_they_work_again(
    proxy: TcpProxy,
    redis: Connection,
    server: Server,
    service: str,
    fault: Callable[[TcpProxy], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    ledger = Ledger()
    fault(proxy)
    for stream in CALLS:
        await write(server.url, stream, 1)
    async with Running(proxy.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, CALLS)
        await ledger.reached(dict.fromkeys(CALLS, 1), timeout=SOON)
        for _ in range(3):
            await arrives(ledger, redis, CALL)
        await wait_until(lambda: warnings(caplog), "one warning says so")
        reads = await calls(redis, "xread")
        beats = run.client.statistics().beats
        await wait_until(lambda: run.client.statistics().beats >= beats + 8, "two seconds pass")
        assert await calls(redis, "xread") - reads < 30
        proxy.heal()
        await wait_until(lambda: "work again" in caplog.text, "they work again", timeout=25)
        assert await arrives(ledger, redis, CALL) < SOON
        assert len(warnings(caplog)) == 1
        assert run.client.statistics().lapses == 0


async def test_wake_ups_are_back_together_with_the_server_and_are_not_told_of(
    own_server: Callable[..., Server],
    service: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However long the pause between two attempts has grown while the server was away."""
    monkeypatch.setattr(tracking, "FIRST_PAUSE", tracking.LONGEST_PAUSE)
    server, ledger = own_server(), Ledger()
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        async with Redis.from_url(server.url) as redis:
            await add(redis, service, [CALL])
            await arrives(ledger, redis, CALL)
            await wait_until(lambda: all_watched(redis, 1), "it is waited for with wake-ups")
        await asyncio.to_thread(server.stop, keep_data=True)
        await wait_until(lambda: not run.client.alive, "the server is missed")
        await asyncio.to_thread(server.start)
        async with Redis.from_url(server.url) as redis:
            await wait_until(lambda: all_watched(redis, 1), "there are wake-ups again", timeout=5)
            await arrives(ledger, redis, CALL)
    assert not warnings(caplog)


async def test_a_server_without_the_commands_for_wake_ups(
    own_server: Callable[..., Server], service: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server("--rename-command", "CLIENT", "")
    ledger = Ledger()
    async with Redis.from_url(server.url) as redis, Running(server.url, service, ledger.follow, **TTL):
        await add(redis, service, [CALL])
        for _ in range(3):
            await arrives(ledger, redis, CALL)
        await wait_until(lambda: warnings(caplog), "one warning says so")
        await arrives(ledger, redis, CALL)
        assert len(warnings(caplog)) == 1


async def test_wake_ups_that_never_arrive_are_noticed(
    proxy: TcpProxy, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is answered, and no message is delivered."""
    caplog.set_level(logging.INFO, "redis_stream_client")
    ledger = Ledger()
    fault = proxy.forget_replies_with(MESSAGE)
    async with Running(proxy.url, service, ledger.follow, **TTL):
        await add(redis, service, [CALL])
        for _ in range(3):
            await arrives(ledger, redis, CALL)
        await wait_until(lambda: warnings(caplog), "one warning says so")
        await arrives(ledger, redis, CALL)
        fault.release()
        await wait_until(lambda: "work again" in caplog.text, "they work again", timeout=25)
        assert await arrives(ledger, redis, CALL) < 1.0
        assert len(warnings(caplog)) == 1


async def test_wake_ups_that_cease_to_arrive_are_noticed(proxy: TcpProxy, redis: Connection, service: str) -> None:
    ledger = Ledger()
    async with Running(proxy.url, service, ledger.follow, **TTL):
        await add(redis, service, [CALL])
        await arrives(ledger, redis, CALL)
        proxy.forget_replies_with(MESSAGE)
        await arrives(ledger, redis, CALL, within=10)
        await arrives(ledger, redis, CALL)


@pytest.mark.parametrize("clients", [0, 3000])
async def test_the_old_master_lives_on_as_a_replica(service: str, clients: int) -> None:
    """No connection is cut; new ones lead to the new master, on which the old ids may be strangers'."""
    with replicate() as pair:
        for _ in range(clients):
            pair.master.command("PING")
        async with TcpProxy(pair.master.port) as proxy:
            ledger = Ledger()
            async with Running(proxy.url, service, ledger.follow, lock_ttl=2.0) as run:
                async with Redis.from_url(pair.master.url) as redis:
                    await add(redis, service, [CALL])
                    await arrives(ledger, redis, CALL)
                await asyncio.to_thread(pair.in_step)
                pair.replica.command("REPLICAOF", "NO", "ONE")
                proxy.upstream_port = pair.replica.port
                pair.master.command("REPLICAOF", "127.0.0.1", pair.replica.port)
                async with Redis.from_url(pair.replica.url) as redis:
                    await arrives(ledger, redis, CALL, within=4.0)
                    for _ in range(3):
                        await arrives(ledger, redis, CALL)
                assert run.client.statistics().leases == 1


async def test_a_full_tracking_table(own_server: Callable[..., Server], service: str) -> None:
    """Redis forgets keys, and says of each that it has changed."""
    server = own_server("--tracking-table-max-keys", "3")
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(50)]
    async with Redis.from_url(server.url) as redis, Running(server.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, streams)
        await run.handles(*streams)
        for stream in streams[::10]:
            await arrives(ledger, redis, stream)
        reads = await calls(redis, "xread")
        beats = run.client.statistics().beats
        await wait_until(lambda: run.client.statistics().beats >= beats + 4, "a second passes")
        assert await calls(redis, "xread") - reads < 150
