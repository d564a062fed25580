"""Ring 2: whether wake-ups are to be believed, on connections of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest_asyncio
from redis.asyncio import Redis

from redis_stream_client._concurrency import clock
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams import tracking_check
from redis_stream_client._streams.intervals import REASSURANCE, UNPROVEN
from redis_stream_client._streams.tracking import Tracking
from redis_stream_client._streams.tracking_check import TrackingCheck
from tests.harness.logs import LOG, outage
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

QUIET = 1.0
LOCK = b"{orders-input}:lock:me"


class Pair:
    """The connection that reads, and the one that hears of changes."""

    def __init__(self, server: Server) -> None:
        endpoint = endpoint_for(Redis.from_url(server.url), "orders-input")
        identity = ServerIdentity()
        self.paired = 0
        self.heard: list[bytes] = []
        self.connection = SharedConnection(endpoint, greet=identity, role="entries")
        self.tracking = Tracking(endpoint, QUIET, self._hear, lambda: None, LOG)
        self.check = TrackingCheck(self.connection, self.tracking, identity, QUIET, self._paired, outage(), LOG)

    def _paired(self) -> None:
        self.paired += 1

    def _hear(self, keys: object) -> None:
        if isinstance(keys, list):
            self.heard += keys
            self.check.heard(keys)

    async def pair(self) -> None:
        await wait_until(lambda: self.tracking.id is not None, "it listens")
        await self.check.tend(answered_at=0.0)
        assert self.check.token is not None


@pytest_asyncio.fixture
async def pair(server: Server) -> AsyncGenerator[Pair]:
    pair = Pair(server)
    listening = asyncio.create_task(pair.tracking.run())
    try:
        yield pair
    finally:
        await stop(listening)
        await pair.connection.close()


async def test_a_change_of_what_was_read_is_heard_of_and_proves_it(pair: Pair, redis: Connection) -> None:
    await pair.pair()
    assert pair.paired == 1
    assert pair.check.unproven
    assert pair.check.period < REASSURANCE
    await pair.connection.request("XREAD", "STREAMS", "call-1", "0", timeout=1)
    await redis.xadd("call-1", {"n": 1})
    await wait_until(lambda: pair.heard == [b"call-1"], "it was heard of")
    assert not pair.check.unproven
    assert pair.check.period == REASSURANCE


async def test_an_entry_that_was_not_heard_of_refutes_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_check, "DEAF", -1.0)
    await pair.pair()
    pair.check.found(b"call-1")
    await pair.check.tend(answered_at=0.0)
    assert pair.check.token is None
    assert pair.connection.losses == 1
    await wait_until(lambda: pair.tracking.id is not None, "both are opened anew")
    await pair.pair()
    assert pair.check.period == UNPROVEN, "once bitten"


async def test_an_entry_that_was_heard_of_after_all_refutes_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_check, "DEAF", -1.0)
    await pair.pair()
    pair.check.found(b"call-1")
    pair.check.heard([b"call-1"])
    await pair.check.tend(answered_at=0.0)
    assert pair.check.token is not None


async def test_beats_of_our_own_lock_that_nothing_was_heard_of_refute_it(pair: Pair) -> None:
    await pair.pair()
    for _ in range(2):
        pair.check.rang(LOCK, 1_000)
        assert pair.check.token is not None
        pair.check.rang(LOCK, 2_000)
    assert pair.check.token is None


async def test_where_our_lock_is_on_the_server_nothing_else_proves_it(pair: Pair) -> None:
    await pair.pair()
    pair.check.rang(LOCK, 1_000)
    pair.check.heard([b"call-1"])
    assert pair.check.unproven
    pair.check.heard([LOCK])
    assert not pair.check.unproven


async def test_what_there_is_no_wake_up_for_counts_from_when_reads_are_answered_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of the server has a line of its own; that wake-ups come back a moment later needs none."""
    monkeypatch.setattr(tracking_check, "WARN_AFTER", 0.2)
    pair = Pair(server)  # nobody listens
    pair.tracking.failed(Unanswered("cannot connect", maybe_executed=False))
    before = clock.now()

    async def lasts() -> bool:
        await pair.check.tend(answered_at=before)
        return clock.now() > before + 0.3

    await wait_until(lasts, "the outage of the server lasts")
    answered = clock.now()
    await pair.check.tend(answered)
    assert not caplog.records

    async def told() -> bool:
        await pair.check.tend(answered)
        return "since" in caplog.text

    await wait_until(told, "it is told of")
    assert clock.now() > answered + 0.2


async def test_a_connection_that_is_gone_is_paired_anew(pair: Pair) -> None:
    await pair.pair()
    before = pair.check.token
    pair.check.lost()
    assert pair.check.token is None
    await pair.pair()
    assert pair.check.token is not before
