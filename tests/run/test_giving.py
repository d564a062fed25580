"""Giving: which streams go to a peer that has fewer, and which stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_stream_client import Lease, Rebalance
from redis_stream_client._consumer import on_their_way
from redis_stream_client._run import giving
from tests.harness.runs import Ledger, RunningFleet, add, loads, owners, shared_out
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

SOON = Rebalance(settle=0.3)


def names(count: int, word: str = "call") -> list[str]:
    return [f"{word}-{i}" for i in range(count)]


async def at_work(redis: Connection, service: str, fleet: RunningFleet, streams: list[str]) -> None:
    """Share out these streams, each of which has an entry."""
    for stream in streams:
        await redis.xadd(stream, {"n": 1})
    await shared_out(redis, service, fleet.now, streams)


async def test_a_pinned_stream_stays_until_it_is_free_again(
    server: Server, redis: Connection, service: str
) -> None:
    async def pins(lease: Lease) -> None:
        if lease.stream.startswith("pinned"):
            lease.pin()
        await Ledger().follow(lease)

    async with RunningFleet(server, service, pins, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, names(6, "pinned") + names(2))
        (second,) = await fleet.join()
        await second.handles(*names(2))
        await asyncio.sleep(1.0)  # nothing more moves
        assert first.owned == names(6, "pinned")
        for lease in first.client.leases.values():
            lease.pin(False)
        await fleet.even(8)


async def test_a_stream_that_is_pinned_on_its_way_stays_until_its_client_drains(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_their_way, "UNWILLING", 2.0)
    ledger, go_on = Ledger(), asyncio.Event()

    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            ledger.handed[lease.stream].append(entry.id)
            await go_on.wait()
            lease.pin()
            await lease.checkpoint(entry.id)
            ledger.accepted[lease.stream].append(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        streams = names(6)
        await at_work(redis, service, fleet, streams)
        (second,) = await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going, "one is on its way")
        go_on.set()
        await ledger.reached(dict.fromkeys(streams, 1))
        await asyncio.sleep(0.5)  # nothing moves
        assert first.owned == streams
        assert first.client.statistics().streams_going, "or there is nothing to test"
        await fleet.leave(first)
        await second.handles(*streams)
        assert all(len(ids) == 1 for ids in ledger.handed.values())


async def test_idle_streams_go_first(server: Server, redis: Connection, service: str) -> None:
    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            if lease.stream.startswith("busy"):
                await asyncio.sleep(30)
            await lease.checkpoint(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        busy, idle = names(5, "busy"), names(5, "idle")
        await at_work(redis, service, fleet, [*busy, *idle])
        (second,) = await fleet.join()
        await fleet.even(10)
        assert second.owned == idle
        assert first.owned == busy


async def test_few_streams_at_a_time_are_without_an_owner(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 streams a member has 10 on their way at a time; their handlers do not all stop at once."""
    monkeypatch.setattr(giving, "AT_ONCE", 2)
    stopped = 0
    between: list[int] = []

    async def waits(lease: Lease) -> None:
        nonlocal stopped
        try:
            await Ledger().follow(lease)
        finally:
            stopped += 1
            between.append(stopped - fleet.now[0].client.statistics().streams_given)

    async with RunningFleet(server, service, waits, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, names(200))
        (second,) = await fleet.join()
        await wait_until(lambda: len(second.owned) >= 40, "forty have come")
        given = first.client.statistics().streams_given
        assert given >= 40
        assert max(between[:given]) <= 2


async def test_a_stream_that_is_to_go_and_is_pinned_before_its_turn_stays(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "AT_ONCE", 1)

    async def waits(lease: Lease) -> None:
        try:
            await Ledger().follow(lease)
        finally:
            for other in fleet.now[0].client.leases.values():
                other.pin()

    async with RunningFleet(server, service, waits, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, names(40))
        (second,) = await fleet.join()
        await wait_until(lambda: second.owned, "one has come")
        await wait_until(lambda: not first.client.statistics().streams_going, "no other is to go")
        assert loads(fleet.now) == [39, 1]


async def test_a_handler_that_reaches_no_checkpoint_is_left_alone(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on undisturbed, even past its next checkpoint; and after a while it is asked again."""
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.4)
    monkeypatch.setattr(on_their_way, "ALONE", 2.5)
    checkpoint, ledger = asyncio.Event(), Ledger()

    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            await checkpoint.wait()
            await lease.checkpoint(entry.id)
            ledger.accepted[lease.stream].append(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        streams = names(6)
        await at_work(redis, service, fleet, streams)
        await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going, "it is asked to give")
        await wait_until(lambda: not first.client.statistics().streams_going, "it is left alone")
        checkpoint.set()
        await ledger.reached(dict.fromkeys(streams, 1))
        assert first.owned == streams
        await fleet.even(6, timeout=20)
        assert first.client.statistics().streams_given == 3


async def test_a_stream_goes_when_all_that_was_handed_over_is_checkpointed(
    server: Server, redis: Connection, service: str
) -> None:
    """A handler that checkpoints every third entry keeps its stream in between, while it waits for more."""
    ledger = Ledger()

    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            ledger.handed[lease.stream].append(entry.id)
            if len(ledger.handed[lease.stream]) % 3 == 0:
                await lease.checkpoint(entry.id)
                ledger.accepted[lease.stream].append(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        streams = names(6)
        await at_work(redis, service, fleet, streams)
        await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going, "it is asked to give")
        for _ in range(4):
            for stream in streams:
                await redis.xadd(stream, {"n": 1})
            await asyncio.sleep(0.1)  # at two of them a stream could go too early
        await ledger.reached(dict.fromkeys(streams, 1))
        for _ in range(4):
            for stream in streams:
                await redis.xadd(stream, {"n": 1})
        await fleet.even(6)
        await ledger.reached(dict.fromkeys(streams, 3))
        assert all(len(ids) == len(set(ids)) == 9 for ids in ledger.handed.values())


async def test_a_handler_that_reads_nothing_by_entries_keeps_its_stream(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.2)
    cancelled = 0

    async def works(lease: Lease) -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, names(4))
        await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going, "it is asked to give")
        await wait_until(lambda: not first.client.statistics().streams_going, "it is left alone")
        assert cancelled == 0
        assert loads(fleet.now) == [4, 0]


async def test_a_handler_that_fails_while_its_stream_goes_has_failed(
    server: Server, redis: Connection, service: str
) -> None:
    async def works(lease: Lease) -> None:
        try:
            await Ledger().follow(lease)
        except asyncio.CancelledError:
            raise LookupError("in its clean-up") from None

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        await fleet.join()
        await shared_out(redis, service, fleet.now, names(6))
        (second,) = await fleet.join()
        await fleet.even(6)
        assert {lease.attempts for lease in second.leases} == {1}


async def test_no_more_than_a_twentieth_is_on_its_way(server: Server, redis: Connection, service: str) -> None:
    go_on = asyncio.Event()

    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            await go_on.wait()
            await lease.checkpoint(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        streams = names(60)
        await at_work(redis, service, fleet, streams)
        await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going == 3, "three of sixty")
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert first.client.statistics().streams_going == 3
        go_on.set()
        await fleet.even(60)


async def test_a_drain_in_the_middle_takes_all_along(server: Server, redis: Connection, service: str) -> None:
    ledger, go_on = Ledger(), asyncio.Event()

    async def works(lease: Lease) -> None:
        async for entry in lease.entries():
            ledger.handed[lease.stream].append(entry.id)
            await go_on.wait()
            await lease.checkpoint(entry.id)

    async with RunningFleet(server, service, works, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        streams = names(8)
        await at_work(redis, service, fleet, streams)
        (second,) = await fleet.join()
        await wait_until(lambda: first.client.statistics().streams_going, "one is on its way")
        first.client.drain()
        assert not first.client.statistics().streams_going
        go_on.set()
        async with asyncio.timeout(5):
            await first.task
        fleet.now.remove(first)
        await second.handles(*streams)
        assert all(len(ids) == 1 for ids in ledger.handed.values())
        assert {lease.attempts for lease in second.leases} == {1}


async def test_what_nobody_takes_comes_back(server: Server, redis: Connection, service: str) -> None:
    """Who asked dies, or is full: the giver takes its stream again."""
    async with RunningFleet(server, service, rebalance=SOON, lock_ttl=0.5) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, names(8))
        (second,) = await fleet.join(max_streams=1)
        await second.client.aclose()
        fleet.now.remove(second)
        await first.handles(*names(8))
        assert set((await owners(redis, service)).values()) == {first.client.id}


async def test_an_outage_of_what_handlers_need_stops_giving(
    server: Server, redis: Connection, service: str
) -> None:
    async def fails(lease: Lease) -> None:
        raise ConnectionError("no database")

    async with RunningFleet(server, service, fails, rebalance=SOON) as fleet:
        (first,) = await fleet.join()
        await add(redis, service, names(8))
        await wait_until(lambda: first.client.statistics().outage, "it looks like an outage")
        await fleet.join()
        await asyncio.sleep(1.0)
        assert fleet.total("streams_given") == 0
