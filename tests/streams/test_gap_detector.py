"""Ring 2: entries that were trimmed or deleted before they were read are said and counted, and no others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import EntriesTrimmed, Gap
from tests.harness.binaries import chosen
from tests.harness.fleet import Member
from tests.harness.leases import state_of
from tests.harness.runs import Ledger, Running, add, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_stream_client import Entry, Lease
    from redis_stream_client._leases.entry_iterator import Entries, OnGap
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}

counts = pytest.mark.skipif(chosen() == "redis-6.2", reason="Redis 6.2 does not count what was ever added")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "before they were read" in record.getMessage()]


async def read(entries: Entries, count: int) -> list[Entry]:
    async with asyncio.timeout(10):
        return [await anext(entries) for _ in range(count)]


async def trim_by_adding(redis: Connection, ids: list[str]) -> None:
    del ids
    await redis.xadd(CALL, {"n": 1}, maxlen=4, approximate=False)


async def trim_to_length(redis: Connection, ids: list[str]) -> None:
    await redis.xtrim(CALL, maxlen=len(ids) - 7, approximate=False)


async def trim_below(redis: Connection, ids: list[str]) -> None:
    await redis.xtrim(CALL, minid=ids[7], approximate=False)


async def delete(redis: Connection, ids: list[str]) -> None:
    await redis.xdel(CALL, *ids[2:7])


async def delete_everything(redis: Connection, ids: list[str]) -> None:
    await redis.xdel(CALL, *ids)


@counts
@pytest.mark.parametrize(
    ("loss", "after", "before", "count"),
    [
        (trim_by_adding, 1, 7, 5),
        (trim_to_length, 1, 7, 5),
        (trim_below, 1, 7, 5),
        (delete, 1, None, 5),
        (delete_everything, 1, None, 8),
    ],
)
async def test_what_was_lost_between_two_owners(
    server: Server,
    redis: Connection,
    service: str,
    loss: Callable[[Connection, list[str]], Any],
    after: int,
    before: int | None,
    count: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = await write(server.url, CALL, 10)
    async with Member(server.url, service, **TTL) as first:
        await add(redis, service, [CALL])
        await first.owns(CALL)
        entries = await read(first.lease(CALL).entries(), 2)
        await first.lease(CALL).checkpoint(entries[-1].id)
    await loss(redis, ids)
    async with Member(server.url, service, **TTL) as second:
        await second.owns(CALL)
        lease = second.lease(CALL)
        rest = await redis.xrange(CALL, min=f"({ids[1]}")
        reading = lease.entries()
        assert [entry.id.encode() for entry in await read(reading, len(rest))] == [id for id, _ in rest]
        step = asyncio.ensure_future(anext(reading))
        await wait_until(lambda: lease.gaps, "the gap is known")
        (gap,) = lease.gaps
        assert gap.entries == count
        assert ids.index(gap.after) >= after
        assert gap.before == (ids[before] if before is not None else None)
        assert len(said(caplog)) == 1
        assert f"{count} entries of {CALL}" in said(caplog)[0]
        statistics = second.client.statistics()
        assert (statistics.gaps, statistics.entries_skipped) == (1, count)
        step.cancel()
        await asyncio.wait((step,))


@counts
async def test_who_must_stop_is_stopped_before_the_entries_behind_the_gap(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 10)
    await redis.xtrim(CALL, maxlen=3, approximate=False)
    async with Member(server.url, service, **TTL) as member:
        (lbs_id,) = await add(redis, service, [CALL])
        await member.owns(CALL)
        entries = member.lease(CALL).entries(on_gap="raise")
        with pytest.raises(EntriesTrimmed) as trimmed:
            await anext(entries)
        assert trimmed.value.gap == Gap("0-0", ids[7], 7)
        assert (trimmed.value.stream, trimmed.value.lbs_id) == (CALL, lbs_id)
        assert "7 entries" in str(trimmed.value)
        assert [entry.id for entry in await read(entries, 3)] == ids[7:]
        with pytest.raises(ValueError, match="on_gap"):
            member.lease(CALL).entries(on_gap="ignore")  # type: ignore[arg-type]


@counts
@pytest.mark.parametrize("on_gap", ["warn", "raise"])
async def test_a_batch_ends_before_a_gap_for_who_must_stop_and_goes_across_it_for_others(
    server: Server, redis: Connection, service: str, on_gap: OnGap, caplog: pytest.LogCaptureFixture
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        batches = lease.batches(max_entries=4, within=60.0, on_gap=on_gap)
        step = asyncio.ensure_future(anext(batches))
        before = await write(server.url, CALL, 1)
        await wait_until(lambda: state_of(lease).collecting, "it has entries, and waits")
        async with redis.pipeline(transaction=True) as pipe:
            for _ in range(30):
                pipe.xadd(CALL, {"n": 1}, maxlen=4, approximate=False)
            *_, behind = await pipe.execute()
        batch = await step
        assert [entry.id for entry in batch[:1]] == before
        assert state_of(lease).settled is False
        if on_gap == "raise":
            assert len(batch) == 1
            with pytest.raises(EntriesTrimmed, match="26 entries") as trimmed:
                await anext(batches)
            assert trimmed.value.hint == "the next step of these batches() goes on behind the gap"
            batch = await anext(batches)
        assert len(batch) == 4
        await lease.checkpoint(batch[-1].id)
        if on_gap == "raise":
            assert batch[-1].id == behind.decode()
            assert [gap.entries for gap in lease.gaps] == [26]
            return
        async with asyncio.timeout(10):
            while not lease.gaps:
                await write(server.url, CALL, 4)
                assert len(await anext(batches)) == 4
        assert [gap.entries for gap in lease.gaps] == [26]
        assert len(said(caplog)) == 1


@counts
async def test_who_must_stop_is_stopped_in_a_stream_that_was_idle(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        entries = member.lease(CALL).entries(on_gap="raise")
        step = asyncio.ensure_future(anext(entries))
        await redis.xadd(CALL, {"n": 1})
        await step
        step = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(1.2)  # it is idle
        async with redis.pipeline(transaction=True) as pipe:
            for _ in range(30):
                pipe.xadd(CALL, {"n": 1}, maxlen=4, approximate=False)
            await pipe.execute()
        with pytest.raises(EntriesTrimmed, match="26 entries"):
            await step
        assert len(await read(entries, 4)) == 4


@counts
async def test_what_is_lost_while_an_owner_is_busy(server: Server, redis: Connection, service: str) -> None:
    await write(server.url, CALL, 2)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        entries = lease.entries()
        await read(entries, 2)
        for _ in range(50):
            await redis.xadd(CALL, {"n": 1}, maxlen=5, approximate=False)
        await read(entries, 5)
        step = asyncio.ensure_future(anext(entries))
        await wait_until(lambda: lease.gaps, "the gap is known")
        assert sum(gap.entries for gap in lease.gaps) == 45
        await redis.xadd(CALL, {"n": 1})
        await step


async def test_whoever_trims_what_was_processed_hears_nothing(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By id, by length while the owner keeps up, and one by one; before the checkpoint and behind it."""
    streams = {"minid": "call-1", "maxlen": "call-2", "deleted-before": "call-3", "deleted-behind": "call-4"}
    ledger = Ledger()

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries(on_gap="raise"):
            if lease.stream == streams["deleted-before"]:
                await redis.xdel(lease.stream, entry.id)
            await lease.checkpoint(entry.id)
            ledger.accepted[lease.stream].append(entry.id)
            if lease.stream == streams["minid"]:
                await redis.xtrim(lease.stream, minid=entry.id, approximate=False)
            elif lease.stream == streams["deleted-behind"]:
                await redis.xdel(lease.stream, entry.id)

    for _ in range(2):
        async with Running(server.url, service, handle, **TTL) as run:
            if not ledger.accepted:
                await add(redis, service, streams.values())
            await run.handles(*streams.values())
            for _ in range(15):
                count = len(ledger.accepted[streams["maxlen"]])
                for stream in streams.values():
                    await redis.xadd(stream, {"n": 1}, maxlen=3 if stream == streams["maxlen"] else None)
                await wait_until(lambda c=count: len(ledger.accepted[streams["maxlen"]]) > c, "it is read")  # type: ignore[misc]
                await asyncio.sleep(0.1)
            statistics = run.client.statistics()
            assert (statistics.gaps, statistics.handlers_failed) == (0, 0)
    assert not said(caplog)
    assert {len(accepted) for accepted in ledger.accepted.values()} == {30}


async def test_an_owner_that_deletes_without_a_checkpoint_and_dies_leaves_no_gap(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await write(server.url, CALL, 10)
    async with Member(server.url, service, lock_ttl=0.5, claim=False) as first:
        await add(redis, service, [CALL])
        await first.owns(CALL)
        lease = first.lease(CALL)
        await read(entries := lease.entries(), 3)
        await lease.checkpoint(ids[2])
        await read(entries, 3)
        await redis.xdel(CALL, *ids[:6])
        async with Member(server.url, service, lock_ttl=0.5) as second:
            await first.client.aclose()
            await second.owns(CALL)
            heir = second.lease(CALL)
            await read(reading := heir.entries(on_gap="raise"), 4)
            step = asyncio.ensure_future(anext(reading))
            await asyncio.sleep(1.5)  # the second look at what was read
            assert not heir.gaps
            step.cancel()
            await asyncio.wait((step,))
    assert not said(caplog)


async def test_a_stream_that_is_deleted_and_written_anew_has_no_gap(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    await write(server.url, CALL, 5)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        entries = member.lease(CALL).entries(on_gap="raise")
        await read(entries, 5)
        await redis.delete(CALL)
        await write(server.url, CALL, 3)
        await read(entries, 3)
        step = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(1.5)  # the look at what was read
        await redis.xadd(CALL, {"n": 1})
        await step
        assert not member.lease(CALL).gaps
    assert not said(caplog)


@counts
async def test_a_stream_that_is_deleted_and_written_anew_with_smaller_ids_is_named_once(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()

    def warned() -> list[str]:
        return [r.getMessage() for r in caplog.records if "written anew" in r.getMessage()]

    async with Running(server.url, service, ledger.follow, **TTL) as member:
        await add(redis, service, [CALL, "call-2"])
        for id in ("5-1", "5-2", "5-3"):
            await redis.xadd(CALL, {"n": 1}, id)
            await redis.xadd("call-2", {"n": 1}, id)
        await ledger.reached({CALL: 3, "call-2": 3})
        await redis.xdel("call-2", "5-2", "5-3")  # by whoever has read them: this is no other stream
        await redis.delete(CALL)
        for id in ("1-1", "1-2", "1-3", "1-4"):
            await redis.xadd(CALL, {"n": 1}, id)
        await wait_until(warned, "it is said")
        await redis.xadd(CALL, {"n": 1}, "5-4")
        await ledger.reached({CALL: 4})
        await member.handles(CALL, "call-2")
    assert warned() == [
        f"{CALL} was deleted and written anew, up to 1-4: entries with ids up to 5-3 are never read"
    ]
