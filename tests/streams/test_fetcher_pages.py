"""Ring 3: what is large, or comes all at once, is read through a slow line and small output buffers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client._model import health
from tests.harness.proxy import TcpProxy
from tests.harness.runs import Running, add, all_watched
from tests.harness.servers import SMALL_OUTPUT_BUFFERS
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

TTL: dict[str, Any] = {"lock_ttl": 5.0}
SMALL = "small"


class Reader:
    """What handlers have read, and how long the entries of the stream `SMALL` took."""

    def __init__(self) -> None:
        self.large = 0
        self.small: list[float] = []

    async def follow(self, lease: Lease) -> None:
        async for entry in lease.entries():
            if lease.stream == SMALL:
                self.small.append(time.monotonic() - float(entry.fields[b"sent"]))
            else:
                self.large += 1
            await lease.checkpoint(entry.id)

    async def reads(self, redis: Connection, entries: int, timeout: float) -> None:
        """Wait for so many large entries, and write small ones meanwhile."""
        deadline = time.monotonic() + timeout
        while self.large < entries:
            assert time.monotonic() < deadline, f"{self.large} of {entries} entries in {timeout:g} s"
            await redis.xadd(SMALL, {"sent": time.monotonic()})
            await asyncio.sleep(0.25)


@pytest.mark.parametrize(
    ("streams", "size", "each", "rate"),
    [
        (120, 250_000, 1, 15e6),  # 30 MB in one command
        (4, 7_000_000, 1, 15e6),  # few of which exceed what the server holds
        (1, 3_500_000, 7, 15e6),  # so does one piece of one stream
    ],
)
async def test_what_exceeds_the_server_s_output_buffers_is_read_in_smaller_pieces(
    own_server: Callable[..., Server], service: str, streams: int, size: int, each: int, rate: float
) -> None:
    server = own_server(*SMALL_OUTPUT_BUFFERS)
    names = [f"call-{i}" for i in range(streams)]
    reader = Reader()
    async with (
        TcpProxy(server.port) as proxy,
        Redis.from_url(server.url) as redis,
        Running(proxy.url, service, reader.follow, **TTL) as run,
    ):
        await add(redis, service, [*names, SMALL])
        await run.handles(*names, SMALL)
        await wait_until(lambda: all_watched(redis, len(names) + 1), "all wait for entries")
        proxy.bandwidth(replies=rate)
        async with redis.pipeline(transaction=True) as pipe:  # all at once
            for name in names:
                for _ in range(each):
                    pipe.xadd(name, {"x": b"x" * size})
            await pipe.execute()
        await reader.reads(redis, streams * each, timeout=40)
        proxy.bandwidth()
        assert run.client.statistics().leases == streams + 1


@pytest.mark.long
async def test_one_large_entry_on_a_slow_line_does_not_keep_the_others_waiting(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    reader = Reader()
    async with Running(proxy.url, service, reader.follow, **TTL) as run:
        await add(redis, service, ["call-1", SMALL])
        await run.handles("call-1", SMALL)
        await wait_until(lambda: all_watched(redis, 2), "both wait for entries")
        proxy.bandwidth(replies=1e6)
        await redis.xadd("call-1", {"x": b"x" * 5_000_000})
        await reader.reads(redis, 1, timeout=30)
        proxy.bandwidth()
        await wait_until(lambda: len(reader.small) > 10, "small ones were read meanwhile")
        assert max(reader.small) < 3.0
        assert run.client.statistics().lapses == 0


async def test_an_outage_shrinks_nothing_for_long(proxy: TcpProxy, redis: Connection, service: str) -> None:
    reader = Reader()
    async with Running(proxy.url, service, reader.follow, lock_ttl=1.0) as run:
        await add(redis, service, [SMALL])
        await run.handles(SMALL)
        await proxy.refuse()
        proxy.cut()
        await wait_until(lambda: run.client.statistics().lapses, "the lock has lapsed")
        assert run.client.statistics().requests_shrunk <= 3
        await proxy.accept()
        await run.lease(SMALL, nth=2)
        await redis.xadd(SMALL, {"sent": time.monotonic()})
        await wait_until(lambda: reader.small, "entries are read again")


async def test_who_waits_for_an_entry_is_not_stuck_and_who_is_not_read_is(
    proxy: TcpProxy, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SLACK", -2.5 * TTL["lock_ttl"])  # whatever waits at all is stuck
    reader = Reader()
    async with Running(proxy.url, service, reader.follow, **TTL) as run:
        await add(redis, service, [SMALL])
        await redis.xadd(SMALL, {"sent": time.monotonic()})
        await wait_until(lambda: reader.small, "an entry is read")
        await wait_until(lambda: run.client.health().oldest_wakeup is None, "nothing is due")
        proxy.drop_requests_matching(b"XREAD\r\n")
        await redis.xadd(SMALL, {"sent": time.monotonic()})
        stuck = await wait_until(lambda: run.client.health().stuck, "something is due")
        assert [(one.what, one.stream) for one in stuck] == [("wake-up", SMALL)]
        assert run.client.health().oldest_wakeup is not None
        proxy.heal()
        await wait_until(lambda: len(reader.small) == 2, "it is read")
