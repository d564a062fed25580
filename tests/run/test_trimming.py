"""Ring 2: what is trimmed of a data stream while it is read, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client._run import trimming
from tests.harness.retention import Reader, Slow, done, ids, warnings
from tests.harness.runs import Running, add, calls, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"


async def test_a_stream_is_trimmed_while_it_is_read_and_never_beyond_its_checkpoint(
    server: Server,
    redis: Connection,
    service: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trimming, "LOOK", 0.05)
    monkeypatch.setattr(trimming, "MANY", 100)
    monkeypatch.setattr(trimming, "LONG", 0.3)
    slow = Slow(behind=20)
    behind: list[str] = []
    async with Running(server.url, service, slow, on_done="delete", trim=True) as running:
        await add(redis, service, [CALL])
        for round_ in range(1, 6):
            await write(server.url, CALL, 400)
            await wait_until(lambda: len(slow.read) == 400 * round_, "all are read")
            behind = slow.read[-20:]

            async def trimmed() -> bool:
                return await ids(redis, CALL) == behind

            await wait_until(trimmed, "what has a checkpoint is trimmed, and nothing else")
        assert slow.lease is not None
        assert slow.lease.gaps == ()
        running.client.drain()
        await running.task
    rest = Reader()
    async with Running(server.url, service, rest, on_done="delete") as running:  # the next owner
        await write(server.url, CALL, 1, end=True)
        await done(running)
        assert rest.read[:-1] == behind
        assert rest.leases[-1].gaps == ()
    assert await redis.keys(f"*{CALL}*") == []
    assert warnings(caplog) == []


async def test_few_entries_are_trimmed_after_a_time(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "LOOK", 0.05)
    monkeypatch.setattr(trimming, "LONG", 0.3)
    async with Running(server.url, service, Reader(), on_done="trim", trim=True) as running:
        await add(redis, service, [CALL])
        await running.handles(CALL)
        for _ in range(2):
            await write(server.url, CALL, 3)

            async def empty() -> bool:
                return not await ids(redis, CALL)

            await wait_until(empty, "they are trimmed")
        assert await redis.exists(CALL)


async def test_trimming_costs_few_commands(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stream with thousands of entries."""
    monkeypatch.setattr(trimming, "LOOK", 0.05)
    async with Running(server.url, service, Slow(behind=0), on_done="trim", trim=True) as running:
        await add(redis, service, [CALL])
        await running.handles(CALL)
        await redis.config_resetstat()
        for _ in range(5):
            await write(server.url, CALL, 1_000)

            async def trimmed() -> bool:
                return bool(await redis.xlen(CALL) < 100)

            await wait_until(trimmed, "they are trimmed")
        trims = await calls(redis, "xtrim") / 2  # beside a look at the record, in one script call
    assert trims <= 5 + 1
