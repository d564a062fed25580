"""How far data streams were processed: checkpoints, and how many entries come after them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import RedisCluster

from redis_stream_client import RedisRejected
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import positions
from redis_stream_client._protocol.positions import Position, Positions
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls
from tests.harness.cluster import start_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection


def positions_of(redis: Connection, service: str) -> Positions:
    keys = Keys(service)
    return Positions(ScriptCalls(redis, Pooled(redis, keys.lbs), keys.lbs), keys)


async def look(redis: Connection, service: str, *streams: str) -> Sequence[Position | Exception]:
    known, _ = await positions_of(redis, service).look(streams, ())
    return [known[stream] for stream in streams]


async def fill(redis: Connection, service: str, stream: str, entries: int, **record: Any) -> list[str]:
    ids = [(await redis.xadd(stream, {"n": n})).decode() for n in range(entries)]
    if record:
        await redis.hset(Keys(service).progress(stream), mapping=record)
    return ids


def lag_of(position: Position | Exception) -> tuple[int, bool]:
    assert isinstance(position, Position), position
    assert (position.behind > 0) == (position.entries > 0)
    return position.entries, position.more


async def test_the_greatest_id_is_an_id_as_any_other(redis: Connection, service: str) -> None:
    """Redis refuses to look behind it."""
    greatest = "18446744073709551615-18446744073709551615"
    for stream, checkpoint in (("before", "1-0"), ("at", greatest)):
        await redis.xadd(stream, {"n": 1}, id="1-0")
        await redis.xadd(stream, {"n": 2}, id=greatest)
        await redis.hset(Keys(service).progress(stream), "checkpoint", checkpoint)
    before, at = await look(redis, service, "before", "at")
    assert isinstance(before, Position), before
    assert isinstance(at, Position), at
    assert ((before.entries, before.more), (at.entries, at.more)) == ((1, False), (0, False))


async def test_entries_after_the_checkpoint_count(redis: Connection, service: str) -> None:
    first, *_ = await fill(redis, service, "some", 10)
    await redis.hset(Keys(service).progress("some"), "checkpoint", first)
    await fill(redis, service, "all", 250)
    *_, last = await fill(redis, service, "none", 3)
    await redis.hset(Keys(service).progress("none"), "checkpoint", last)
    assert [lag_of(one) for one in await look(redis, service, "some", "all", "none", "nothing")] == [
        (9, False),
        (250, False),
        (0, False),
        (0, False),
    ]


@pytest.mark.parametrize(
    ("entries", "counted"), [(100, (99, False)), (101, (100, False)), (102, (100, True)), (300, (100, True))]
)
async def test_so_many_are_counted(
    redis: Connection, service: str, entries: int, counted: tuple[int, bool]
) -> None:
    first, *_ = await fill(redis, service, "call-1", entries)
    await redis.hset(Keys(service).progress("call-1"), "checkpoint", first)
    [found] = await look(redis, service, "call-1")
    assert lag_of(found) == counted


async def test_large_entries_are_not_all_counted(
    redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "COUNTED_BYTES", 1_000)
    for stream in ("a", "b"):
        for _ in range(30):
            await redis.xadd(stream, {"n": "x" * 400})
        await redis.hset(Keys(service).progress(stream), "checkpoint", "0-1")
    found = await look(redis, service, "a", "b")
    assert [lag_of(one) for one in found] == [(5, True), (5, True)]


async def test_one_call_counts_so_many_and_the_rest_is_asked_again(
    redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "ALL_COUNTED", 10)
    streams = [f"call-{n}" for n in range(7)]
    for stream in streams:
        await fill(redis, service, stream, 6, checkpoint="0-1")
    assert [lag_of(one) for one in await look(redis, service, *streams, *streams)] == [(6, False)] * 14


async def test_the_age_of_the_oldest(redis: Connection, service: str) -> None:
    now = round(time.time() * 1000)
    await redis.xadd("old", {"n": 1}, id=f"{now - 60_000}-0")
    await redis.xadd("old", {"n": 1})
    await redis.xadd("future", {"n": 1}, id=f"{now + 60_000}-0")
    old, future = await look(redis, service, "old", "future")
    assert isinstance(old, Position)
    assert isinstance(future, Position)
    assert old.behind == pytest.approx(60, abs=5)
    assert (future.behind, future.entries) == (0.0, 1)


async def test_attempts_and_failures_are_those_of_one_announcement(redis: Connection, service: str) -> None:
    fence = str(Fence.of("12-3", 2, "0000000000000001-00000000"))
    for failed in (f"{fence} 7-1", f"{fence[:41]} 7-1"):
        known = {"checkpoint": "7-1", "attempts": 2, "failures": 4, "failing": 1000, "error": "E"}
        await fill(redis, service, "call-1", 0, fence=fence, consumer="c", failed=failed, **known)
        [found] = await look(redis, service, "call-1")
        assert isinstance(found, Position)
        assert (found.attempts_at("12-3"), found.attempts_at("12-4"), found.attempts_at("1-23")) == (2, 0, 0)
        assert (found.fails_at("12-3"), found.fails_at("12-4")) == (True, False)
        assert (found.failures, found.failing_ms, found.error) == (4, 1000, "E")
    await redis.hset(Keys(service).progress("call-1"), "checkpoint", "7-2")
    [found] = await look(redis, service, "call-1")
    assert isinstance(found, Position)
    assert not found.fails_at("12-3")


async def test_what_nobody_of_us_wrote(redis: Connection, service: str) -> None:
    await fill(
        redis, service, "a", 1, fence="x", attempts="-1", failures="9" * 30, failing="²", failed="", error=b"\xff"
    )
    await fill(redis, service, "b", 1, checkpoint="yesterday")
    await redis.set("c", "text")
    await redis.set(Keys(service).progress("d"), "text")
    a, b, c, d = await look(redis, service, "a", "b", "c", "d")
    assert isinstance(a, Position)
    assert (a.attempts, a.failures, a.failing_ms, a.attempts_at("1-1"), a.fails_at("1-1")) == (
        0,
        0,
        None,
        0,
        False,
    )
    assert "its data stream cannot be read: " in str(b)
    assert "its data stream cannot be read: " in str(c)
    assert "its progress record cannot be read: " in str(d)
    assert all(isinstance(one, RedisRejected) for one in (b, c, d))


async def test_who_lives(redis: Connection, service: str) -> None:
    await redis.set(Keys(service).lock("a"), "text")
    _, living = await positions_of(redis, service).look((), ["a", "b", b"\xff".decode(errors="surrogateescape")])
    assert living == {"a"}


# A cluster.


async def test_streams_are_followed_to_their_nodes(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis:
        streams = [f"{service}-{n}" for n in range(50)]
        for stream in streams:
            await fill(redis, service, stream, 2)
        cluster.move(streams[0])
        assert [lag_of(one) for one in await look(redis, service, *streams)] == [(2, False)] * 50


async def test_a_node_that_is_away_is_asked_once(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "PATIENCE", 1.0)
    with start_cluster() as cluster:
        async with RedisCluster.from_url(cluster.url) as redis:
            lbs = cluster.owner_of(Keys(service).lbs)
            dead = next(node for node in cluster.masters if node is not lbs)
            lost = [cluster.key_on(dead, f"lost-{k}-{{}}") for k in range(3)]
            there = cluster.key_on(lbs)
            asker = positions_of(redis, service)
            assert not [one for one in (await asker.look(lost, ()))[0].values() if isinstance(one, Exception)]
            dead.kill()
            known, _ = await asker.look([*lost, there], ())
            assert [isinstance(known[stream], Unanswered) for stream in (*lost, there)] == [True] * 3 + [False]
            monkeypatch.setattr(positions, "PATIENCE", 60.0)
            before = time.monotonic()
            known, _ = await asker.look([cluster.key_on(lbs, "x-{}"), *lost], ())
            assert time.monotonic() - before < 20
            assert all(isinstance(known[stream], Unanswered) for stream in lost)
