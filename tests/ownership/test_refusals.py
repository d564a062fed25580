"""Ring 2: records of progress that this library has not written, or that belong to two streams by their name.

What cannot be told apart is left alone, is said, and costs next to nothing; other streams do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import Fence, NotOwner, RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import Keys
from redis_stream_client._ownership import refusals
from tests.harness.fleet import Member
from tests.harness.runs import Ledger, Running, add, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
MINE = str(Fence(1, 2, 3))
TTL: dict[str, Any] = {"lock_ttl": 1.0}

FOREIGN: list[dict[str, str | bytes]] = [
    {"fence": "9-0-1", "consumer": "other"},
    {"fence": "what is this?"},
    {"fence": ""},
    {"fence": b"\xff\x00\xfe", "consumer": b"\xff"},
    {"fence": MINE + "-v2", "consumer": "newer version"},
    {"fence": "9" * 20 + MINE[20:], "consumer": "no such id"},
    {"fence": MINE[:42] + "9" * 20, "consumer": "no such count"},
    {"fence": "x" * 1_000_000, "consumer": "huge"},
    {"fence": MINE, "consumer": "other", "checkpoint": "yesterday"},
    {"fence": MINE, "consumer": "other", "checkpoint": "007-1"},
    {"checkpoint": "18446744073709551616-0"},
]
NAMES = [
    "unpadded",
    "text",
    "empty",
    "binary",
    "longer",
    "no id",
    "no count",
    "huge",
    "no position",
    "zeros",
    "no owner",
]


@pytest.mark.parametrize("stored", FOREIGN, ids=NAMES)
async def test_a_foreign_record_is_left_alone_and_said_once(
    server: Server, redis: Connection, service: str, stored: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    key = Keys(service).progress(CALL)
    await redis.hset(key, mapping=stored)
    before = await redis.hgetall(key)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        for _ in range(2):
            with pytest.raises(RedisRejected, match=f"was not written by this library.*{key}") as refused:
                await lease.checkpoint("1-0")
            assert len(str(refused.value)) < 1_000
            assert refused.value.stream == CALL
        assert lease.owned
        assert member.client.alive
    assert await redis.hgetall(key) == before
    assert [r.levelname for r in caplog.records if "was not written by this library" in r.message] == ["ERROR"]


async def test_a_handler_of_a_foreign_record_costs_next_to_nothing_and_others_go_on(
    proxy: TcpProxy, server: Server, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    await redis.hset(Keys(service).progress(CALL), mapping=FOREIGN[0])
    await write(server.url, CALL, 1)
    await write(server.url, "call-2", 1)

    async def insists(lease: Any) -> None:
        if lease.stream != CALL:
            await ledger.follow(lease)
            return
        while True:
            try:
                await ledger.follow(lease)
            except RedisRejected:
                await asyncio.sleep(0)

    async with Running(proxy.url, service, insists, lock_ttl=0.5) as run:
        before = await calls(redis)
        await add(redis, service, [CALL, "call-2"])
        await ledger.reached({"call-2": 1})
        await asyncio.sleep(1.0)  # nothing happens: there is nothing to wait for
        assert await calls(redis) - before < 60
        assert ledger.handed[CALL] == []
        await redis.delete(Keys(service).progress(CALL))
        await ledger.reached({CALL: 1})
        assert run.client.alive


async def calls(redis: Connection) -> int:
    """Script calls of all clients, those of the fleet's own upkeep included."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_stream_with_a_foreign_record_goes_to_the_dead_letters(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    await redis.hset(keys.progress(CALL), mapping=FOREIGN[0])
    async with Running(server.url, service, max_attempts=2, lock_ttl=0.5):
        await add(redis, service, [CALL])
        await wait_until(lambda: redis.xlen(keys.dead), "it is given up", 20.0)
    [(_, letter)] = await redis.xrange(keys.dead)
    assert b"was not written by this library" in letter[b"reason"]
    assert keys.progress(CALL).encode() in letter[b"reason"]


@pytest.mark.parametrize(
    "stored",
    [
        {"fence": MINE},
        {"fence": MINE, "consumer": b"\xff\x00"},
        {"fence": MINE, "consumer": "x", "attempts": "many"},
        {"fence": MINE, "consumer": "x", "attempts": "inf"},
        {"fence": MINE, "consumer": "x", "attempts": "-3", "colour": "blue"},
        {"fence": MINE, "consumer": "x", "attempts": "9" * 5000, "added": "9" * 5000},
        {"fence": MINE, "consumer": "x", "added": b"\xff!"},
        {"fence": str(Fence.of("99999999999999-0", 7)), "consumer": b"\xff\x00"},
        {"consumer": "x", "attempts": "0x10"},
        {"checkpoint": "0-1"},
    ],
)
async def test_an_older_record_is_replaced_whatever_else_is_odd_about_it(
    server: Server, redis: Connection, service: str, stored: dict[str, Any]
) -> None:
    await redis.hset(Keys(service).progress(CALL), mapping=stored)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        await lease.checkpoint("1-0")
        found = await record(redis, service, CALL)
        assert (found["fence"], found["consumer"]) == (str(lease.fence), member.client.id)
        assert (found["checkpoint"], found["attempts"]) == ("1-0", "0")


async def test_a_fence_that_names_another_streams_announcement_ends_nothing(
    server: Server, redis: Connection, service: str
) -> None:
    """It is greater, and its announcement exists: but it is not this stream that was announced again."""
    async with Member(server.url, service, **TTL) as member:
        older, newer = await add(redis, service, [CALL, "call-2"])
        await member.owns(CALL, "call-2")
        stored = {"fence": str(Fence.of(newer, 1)), "consumer": "redis-consumer-x-00c0ffee"}
        await redis.hset(Keys(service).progress(CALL), mapping=stored)
        with pytest.raises(RedisRejected, match="was not written by this library"):
            await member.lease(CALL).checkpoint("1-0")
        await member.owns(CALL, "call-2")
        assert [id.decode() for id, _ in await redis.xrange(Keys(service).lbs)] == [older, newer]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_key_of_another_type_is_not_asked_about_again_and_again(
    server: Server, redis: Connection, service: str, begun: bool
) -> None:
    key = Keys(service).progress(CALL)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        if begun:
            await lease.checkpoint("1-0")
        await redis.delete(key)
        await redis.set(key, "not a hash")
        before, refused = await calls(redis), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    with pytest.raises(RedisRejected, match="another type"):
                        await lease.checkpoint("2-0")
                    refused += 1
        assert 1 <= refused <= 3
        assert await calls(redis) - before < 60
        await redis.delete(key)
        await lease.checkpoint("2-0")
        assert lease.position == "2-0"


async def test_a_record_that_turns_foreign_stops_its_owner(
    server: Server, redis: Connection, service: str
) -> None:
    key = Keys(service).progress(CALL)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        await lease.checkpoint("1-0")
        await redis.hset(key, "fence", "mine!")
        with pytest.raises(RedisRejected, match="was not written"):
            await lease.checkpoint("2-0")
        assert await redis.hget(key, "checkpoint") == b"1-0"
        await redis.delete(key)
        await lease.checkpoint("2-0")


async def test_who_waits_for_a_refused_record_hears_of_a_loss_at_once(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FIRST_REST", 60.0)
    monkeypatch.setattr(refusals, "LONGEST_REST", 60.0)
    keys = Keys(service)
    await redis.hset(keys.progress(CALL), mapping=FOREIGN[0])
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        with pytest.raises(RedisRejected):
            await lease.checkpoint("1-0")
        step = asyncio.create_task(anext(lease.entries()))
        await redis.set(keys.lock("redis-consumer-thief-00c0ffee"), "{}", ex=60)
        await redis.xclaim(keys.lbs, keys.group, "redis-consumer-thief-00c0ffee", 0, [lease.lbs_id])
        await redis.delete(keys.lock(member.client.id))
        with pytest.raises(NotOwner):
            async with asyncio.timeout(10):
                await step


async def test_a_record_that_keeps_changing_is_given_up_with_pauses(
    server: Server, redis: Connection, service: str
) -> None:
    """Somebody writes a greater fence of the same announcement between any two looks at it."""
    key = Keys(service).progress(CALL)
    async with Member(server.url, service, lock_ttl=0.5) as member:
        (lbs_id,) = await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        await lease.checkpoint("1-0")
        over = asyncio.Event()

        async def interfere() -> None:
            async with Redis.from_url(server.url) as other:
                while not over.is_set():
                    rival = Fence.of(lbs_id, lease.deliveries + 5)
                    await other.hset(key, mapping={"fence": str(rival), "consumer": "x"})

        interfering = asyncio.create_task(interfere())
        before = await calls(redis)
        with contextlib.suppress(RedisUnavailable):  # or it slips through
            await lease.checkpoint("2-0")
        assert await calls(redis) - before < 100
        over.set()
        await interfering


# Names.


@pytest.mark.parametrize(
    "pair",
    [
        (("{s}", CALL), ("{s}", f"{{{CALL}}}")),
        (("{s}", f"{{{CALL}}}:b"), ("b:{s}", CALL)),
    ],
)
async def test_two_streams_whose_records_had_one_key_get_on_side_by_side(
    server: Server, redis: Connection, service: str, pair: tuple[tuple[str, str], tuple[str, str]]
) -> None:
    ledgers = [Ledger(), Ledger()]
    ids: list[list[str]] = []
    for _, stream in pair:
        ids.append([])
        for number in range(1, 6):
            ids[-1].append((await redis.xadd(stream, {"n": number}, f"{number}-0")).decode())
    services = [name.replace("{s}", service) for name, _ in pair]
    async with (
        Running(server.url, services[0], ledgers[0].follow, **TTL) as first,
        Running(server.url, services[1], ledgers[1].follow, **TTL) as second,
    ):
        for name, (_, stream) in zip(services, pair, strict=True):
            await add(redis, name, [stream])
        for (_, stream), wanted in zip(pair, ids, strict=True):
            await reached_by_one_of(ledgers, stream, wanted)
        assert first.client.statistics().streams_disowned == second.client.statistics().streams_disowned == 0


async def reached_by_one_of(ledgers: list[Ledger], stream: str, ids: list[str]) -> None:
    """Wait until these entries are accepted, by one of them and once."""
    await wait_until(
        lambda: [ledger.accepted[stream] for ledger in ledgers].count(ids) == 1, f"all of {stream} is accepted"
    )


@pytest.mark.parametrize("ours", [True, False])
async def test_a_record_comes_along_from_where_it_was_if_it_is_certainly_this_streams(
    server: Server, redis: Connection, service: str, ours: bool
) -> None:
    stream, keys = f"{{{CALL}}}", Keys(service)
    former = keys.former_progress(stream)
    assert former is not None
    for number in range(1, 4):
        await redis.xadd(stream, {"n": number}, f"{number}-0")
    stored = {
        "fence": str(Fence.of("1000-0" if ours else "999-0", 1)),
        "consumer": "x",
        "checkpoint": "2-0",
        "attempts": "4",
    }
    await redis.hset(former, mapping=stored)
    await redis.xgroup_create(keys.lbs, keys.group, id="0", mkstream=True)
    await redis.xadd(keys.lbs, {"lbs-input": json.dumps({"DataStreamName": stream})}, "1000-0")
    await redis.xreadgroup(keys.group, "redis-consumer-dead-00000001", {keys.lbs: ">"})
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        await ledger.reached({stream: 1 if ours else 3})
        lease = await run.lease(stream)
        assert ledger.handed[stream] == (["3-0"] if ours else ["1-0", "2-0", "3-0"])
        assert lease.position == "3-0"
        assert await redis.exists(former) == (0 if ours else 1)
        assert (await record(redis, service, stream))["fence"] == str(lease.fence)
