"""Ring 2: an outage of what handlers depend on is not many poisoned streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import PoisonError, RetryLater
from redis_stream_client._model.keys import Keys
from redis_stream_client._run.breaker import LONGEST_PROBE, SURE
from tests.harness.runs import Running, add, dead_letters, finished, owners, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from redis_stream_client import Lease
    from redis_stream_client._run.handler import Handler
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

RULES: dict[str, Any] = {"lock_ttl": 1.0, "max_attempts": 3}
"""Three failures without patience: whatever counts in an outage is soon buried."""

BACK = 8.0
"""Seconds after which everything must go on: the longest pause between probes, and some to take streams."""


class Away(Exception):
    """The handlers' database is."""


class Database:
    """What handlers depend on, and what they did while it was there, or was away."""

    def __init__(self) -> None:
        self.away_for: set[str] | None = set()
        """The clients that cannot reach it; None: nobody can."""
        self.tried: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def handler(self, name: str) -> Handler:
        """A handler that writes every entry to the database, in the client of this name."""

        async def handle(lease: Lease) -> None:
            async for entry in lease.entries():
                self.tried[lease.stream] += 1
                if self.away_for is None or name in self.away_for:
                    raise Away(f"no route from {name}")
                self.written[lease.stream] += 1
                await lease.checkpoint(entry.id)

        return handle

    async def writes(self, streams: Iterable[str], timeout: float = BACK) -> None:
        """Wait until an entry of each stream was written, from now on."""
        before = self.written.copy()
        await wait_until(
            lambda: all(self.written[stream] > before[stream] for stream in streams),
            "an entry of each is written",
            timeout,
        )


@contextlib.asynccontextmanager
async def produced(url: str, streams: list[str], every: float = 0.2) -> AsyncGenerator[None]:
    """While the block goes on, each stream gets an entry again and again."""

    over = asyncio.Event()

    async def produce() -> None:
        while not over.is_set():
            for stream in streams:
                await write(url, stream, 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await over.wait()

    producer = asyncio.create_task(produce(), name="producer")
    try:
        yield
    finally:
        over.set()
        await producer


@contextlib.asynccontextmanager
async def fleet(server: Server, service: str, database: Database, **options: Any) -> AsyncGenerator[list[Running]]:
    """Three members."""
    members = [
        Running(server.url, service, database.handler(name), **{**RULES, **options}) for name in ("a", "b", "c")
    ]
    async with contextlib.AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member)
        yield members


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.levelname for record in caplog.records if text in record.getMessage()]


async def test_an_outage_buries_nothing_and_all_goes_on_soon_after(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    database, streams = Database(), [f"call-{i}" for i in range(20)]
    async with fleet(server, service, database) as members, produced(server.url, streams):
        await add(redis, service, streams)
        await database.writes(streams)
        database.away_for = None
        await wait_until(lambda: all(m.client.statistics().outage for m in members), "all know of it")
        outage = members[0].client.statistics().outage
        assert outage is not None
        assert outage.error.startswith("Away: no route from ")
        tried = database.tried.total()
        await asyncio.sleep(3.0)  # it lasts
        assert database.tried.total() - tried < 30, "streams are tried one at a time"
        database.away_for = set()
        await database.writes(streams)
        await wait_until(lambda: not any(m.client.statistics().outage for m in members), "it is over for all")
        assert await dead_letters(redis, service) == []
        assert min(len(m.owned) for m in members) >= 2, "each took its share"
    assert said(caplog, "as in an outage") == ["WARNING"] * 3
    assert said(caplog, "handlers progress again") == ["INFO"] * 3
    assert len(said(caplog, "the handler of")) < 20, "not every failure is shown"


async def test_a_member_whose_way_alone_is_broken_holds_nobody_up(
    server: Server, redis: Connection, service: str
) -> None:
    database, streams = Database(), [f"call-{i}" for i in range(20)]
    async with fleet(server, service, database) as members, produced(server.url, streams):
        await add(redis, service, streams)
        await database.writes(streams)
        database.away_for = {"a"}
        await wait_until(lambda: members[0].client.statistics().outage, "it knows of it")
        await database.writes(streams, 3.0)
        assert len(members[0].owned) <= 1
        new = [f"new-{i}" for i in range(10)]
        for stream in new:
            await write(server.url, stream, 1)
        await add(redis, service, new)
        await wait_until(lambda: all(database.written[stream] for stream in new), "the others do", 3.0)
        assert all(member.client.statistics().outage is None for member in members[1:])
        assert await dead_letters(redis, service) == []
        database.away_for = set()

        async def over() -> bool:
            """One of the streams that come is its probe, sooner or later."""
            (stream,) = next_one = [f"more-{len(more)}"]
            more.append(stream)
            await write(server.url, stream, 1)
            await add(redis, service, next_one)
            return members[0].client.statistics().outage is None

        more: list[str] = []
        await wait_until(over, "it knows that it is over", BACK)


@pytest.mark.parametrize("poisoned", [1, 5])
async def test_poisoned_streams_among_others_that_progress_are_buried_in_time(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture, poisoned: int
) -> None:
    database, healthy = Database(), [f"call-{i}" for i in range(3)]
    poison = [f"poison-{i}" for i in range(poisoned)]

    async def handle(lease: Lease) -> None:
        if lease.stream in poison:
            raise ValueError("no such luck")
        await database.handler("a")(lease)

    async with Running(server.url, service, handle, **RULES) as run, produced(server.url, healthy, 0.05):
        await add(redis, service, healthy)
        await database.writes(healthy)
        await add(redis, service, poison)

        async def buried() -> bool:
            return len(await dead_letters(redis, service)) == poisoned

        await wait_until(buried, "all are buried, and nothing else", 10.0)
        await database.writes(healthy)
        assert run.client.statistics().outage is None
    assert said(caplog, "as in an outage") == []


async def test_in_an_outage_what_arrives_is_not_started_and_waits_for_no_fault_of_the_client(
    server: Server, redis: Connection, service: str
) -> None:
    """Of hundreds of streams that come in an outage, those that are not started are left to others."""
    started: Counter[str] = Counter()
    away = True

    async def handle(lease: Lease) -> None:
        started[lease.stream] += 1
        if away:
            raise Away
        await lease.done()

    async with Running(server.url, service, handle, lock_ttl=0.5, max_attempts=1) as run:
        await add(redis, service, [f"first-{i}" for i in range(3)])
        await wait_until(lambda: run.client.statistics().outage, "it knows of it")
        before = started.total()
        await add(redis, service, [f"call-{i}" for i in range(300)])
        await asyncio.sleep(2.0)  # it lasts
        assert started.total() - before <= 10
        assert len(run.owned) <= 10
        assert run.client.health().stuck == ()
        assert await dead_letters(redis, service) == []
        away = False
        await wait_until(lambda: finished(redis, service), "all are finished", BACK)
        assert run.client.statistics().outage is None


async def test_a_burst_that_fails_is_released_and_not_started(
    server: Server, redis: Connection, service: str
) -> None:
    """What had arrived when the outage began, too."""
    started: Counter[str] = Counter()

    async def handle(lease: Lease) -> None:
        started[lease.stream] += 1
        raise Away

    async with Running(server.url, service, handle, lock_ttl=1.0, max_attempts=1) as run:
        await add(redis, service, [f"call-{i}" for i in range(2000)])
        await wait_until(lambda: run.client.statistics().outage, "it knows of it")
        await wait_until(lambda: len(run.owned) <= 1, "it has released what it has")
        assert started.total() <= 1000
        assert await dead_letters(redis, service) == []
        run.client.drain()
        async with asyncio.timeout(2):
            await run.task


@pytest.mark.parametrize("how", ["buried", "postponed", "released"])
async def test_a_probe_that_neither_fails_nor_progresses_holds_nobody_up(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    """It is buried at once, asks for a rest, or is given back: what waits behind it does not wait for it."""
    away = True

    async def handle(lease: Lease) -> None:
        match lease.stream.partition("-")[0]:
            case "call" if away:
                raise Away
            case "buried":
                raise PoisonError("an entry that nobody can read")
            case "postponed":
                raise RetryLater(30)
            case "released":
                await lease.release()
            case _:
                pass

    async with Running(server.url, service, handle, lock_ttl=1.0) as run:
        await add(redis, service, ["call-1", "call-2", "call-3"])
        await wait_until(lambda: run.client.statistics().outage, "it knows of the outage")
        tried = {f"{how}-{i}" for i in range(5)}
        await add(redis, service, sorted(tried))
        await wait_until(
            lambda: {lease.stream for lease in run.leases} >= tried, "each was the probe", 2 * LONGEST_PROBE
        )
        away = False


async def test_a_poisoned_stream_that_is_older_than_all_others_does_not_keep_an_outage_up(
    server: Server, redis: Connection, service: str
) -> None:
    """It fails whenever it is tried; and then the others have their turn."""
    away = True

    async def handle(lease: Lease) -> None:
        if away or lease.stream.startswith("poison"):
            raise Away

    async with Running(server.url, service, handle, lock_ttl=1.0) as run:
        await add(redis, service, ["poison-1", "poison-2", "poison-3", "call-1", "call-2", "call-3"])
        await wait_until(lambda: run.client.statistics().outage, "it knows of the outage")
        await asyncio.sleep(2.0)  # it lasts
        away = False
        await wait_until(lambda: run.client.statistics().streams_done == 3, "all others are finished", 4 * BACK)


async def test_an_outage_that_ends_at_once_is_not_told(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(lease: Lease) -> None:
        if lease.deliveries == 1:
            raise Away

    async with Running(server.url, service, handle, lock_ttl=1.0) as run:
        await add(redis, service, [f"call-{i}" for i in range(5)])
        await wait_until(lambda: finished(redis, service), "all are finished", SURE * 3)
        assert run.client.statistics().outage is None
    assert said(caplog, "as in an outage") == []


async def test_in_an_outage_hundreds_of_losses_do_not_hide_the_stream_behind_them(
    server: Server, redis: Connection, service: str
) -> None:
    """They were taken one by one, as probes are: for half a minute an owned stream waited for its handler."""
    keys, idle, peer = Keys(service), [f"idle-{i}" for i in range(600)], "redis-consumer-peer-1"
    called: set[str] = set()

    async def handle(lease: Lease) -> None:
        called.add(lease.stream)
        if lease.stream.startswith("bad"):
            raise ConnectionError("database is away")
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    async def all_to_the_peer() -> None:
        await redis.xclaim(keys.lbs, keys.group, peer, 0, [*await owners(redis, service)])

    async with Running(server.url, service, handle, lock_ttl=1.0) as run:
        await add(redis, service, idle)
        await wait_until(lambda: called >= {*idle}, "all are handled")
        await add(redis, service, [f"bad-{i}" for i in range(3)])
        await wait_until(lambda: run.client.statistics().outage, "there is an outage")
        await redis.set(keys.lock(peer), "1", px=60_000)
        await all_to_the_peer()
        for quiet in ("quiet-1", "quiet-2"):  # neither fails nor progresses, so that the next may be tried at once
            await add(redis, service, [quiet])
            await wait_until(lambda: quiet in called, "it is tried", 2 * LONGEST_PROBE)
        await all_to_the_peer()
        await redis.delete(keys.lock(run.client.id))
        await wait_until(lambda: not run.client.leases, "the streams are lost")
        await add(redis, service, ["new"])
        await wait_until(lambda: "new" in called, "it is tried", 2 * LONGEST_PROBE)
