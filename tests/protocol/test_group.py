"""Who is in the group, who lives, and what the fleet tidies up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.keys import NOBODY
from redis_stream_client._protocol import group
from redis_stream_client._protocol.replies import Holder, Won
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.ports import HOST
from tests.harness.waiting import wait_until
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


@pytest.mark.parametrize("waiting", [0, 3])
async def test_a_census_tells_how_many_are_missing_or_too_many(a: Consumer, waiting: int) -> None:
    async def balance() -> int | None:
        return (await a.group.census(SOON)).balance

    assert await balance() == 0
    lbs_ids = await a.take(5)
    await a.announce(waiting)
    assert await balance() == 0
    await a.redis.xack(a.keys.lbs, a.keys.group, *lbs_ids[:2])
    assert await balance() == 2  # in the stream, but pending for nobody
    await a.trim(*lbs_ids[:2])
    assert await balance() == 0
    await a.trim(*lbs_ids[2:])
    assert await balance() == -3  # pending, but not in the stream


async def test_a_census_does_not_count_a_huge_backlog(a: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "WAITING_COUNTED", 16)
    await a.announce(15)
    assert (await a.group.census(SOON)).balance == 0
    await a.announce(1)
    assert (await a.group.census(SOON)).balance is None


async def test_members_are_visible_before_they_own_anything(a: Consumer, b: Consumer) -> None:
    await b.take(2)
    members = {member.name: member.pending for member in await a.group.members(SOON)}
    assert members == {a.id: 0, b.id: 2}


async def test_looking_tells_who_lives(a: Consumer, b: Consumer) -> None:
    assert await a.group.look([b.id, "nobody-ever", a.id], SOON) == [True, False, True]
    await b.die()
    assert await a.group.look([b.id], SOON) == [False]


async def test_looking_also_reads_what_the_locks_say(redis: Connection, service: str, a: Consumer) -> None:
    await redis.set(a.keys.lock("older"), json.dumps({"ttl": 4000, "host": "x"}), px=4000)
    await redis.set(a.keys.lock("strange"), "", px=4000)
    await redis.lpush(a.keys.lock("stranger"), "no string")
    async with Consumer(redis, service, "heavy", weight=2.5, max_streams=7) as heavy:
        names = [a.id, "nobody-ever", "older", "strange", "stranger", heavy.id]
        unknown = Holder(1.0, None)
        assert await a.group.holders(names, SOON) == [unknown, None, unknown, unknown, unknown, Holder(2.5, 7)]
        assert await a.group.look(names, SOON) == [True, False, True, True, True, True]


@pytest.mark.parametrize("lifetime", [10_000_000, None], ids=["too long", "endless"])
async def test_a_lock_that_would_outlive_its_holders_wish_is_shortened(
    redis: Connection, a: Consumer, lifetime: int | None
) -> None:
    await redis.set(a.keys.lock("other"), json.dumps({"ttl": 4000, "host": "x"}), px=lifetime)
    assert await a.group.look(["other"], SOON) == [True]
    assert 0 < await redis.pttl(a.keys.lock("other")) <= 4000


async def test_a_turn_that_would_outlive_its_length_is_shortened(redis: Connection, a: Consumer) -> None:
    await a.lock.renew(SOON, turn=0.2)
    await redis.pexpire(a.keys.sweep, 10_000_000)
    await a.group.look([a.id], SOON)
    assert 0 < await redis.pttl(a.keys.sweep) <= 200


@pytest.mark.parametrize("value", ["", "{}", '{"ttl": 4000}'])
async def test_a_lock_with_a_shorter_lifetime_or_none_of_its_own_is_left_alone(
    redis: Connection, a: Consumer, value: str
) -> None:
    await redis.set(a.keys.lock("other"), value, px=3000)
    assert await a.group.look(["other"], SOON) == [True]
    assert 1000 < await redis.pttl(a.keys.lock("other")) <= 3000


async def idle(consumer: Consumer, name: str) -> int:
    return next(member.idle_ms for member in await consumer.group.members(SOON) if member.name == name)


async def test_a_consumer_long_dead_and_idle_that_owns_nothing_is_forgotten(a: Consumer, b: Consumer) -> None:
    await b.die()

    async def idle_enough() -> bool:
        return await idle(a, b.id) >= 50

    await wait_until(idle_enough, "it is idle")
    assert await a.group.forget(b.id, 0.05, SOON) is True
    assert await a.group.forget(b.id, 0.05, SOON) is False
    assert [member.name for member in await a.group.members(SOON)] == [a.id]


@pytest.mark.parametrize("why", ["it lives", "it owns something", "it was busy just now"])
async def test_nobody_is_forgotten_who_lives_owns_something_or_was_busy_just_now(
    a: Consumer, b: Consumer, why: str
) -> None:
    await b.take(1 if why == "it owns something" else 0)
    if why != "it lives":
        await b.die()
    before = await a.snapshot()
    assert await a.group.forget(b.id, 3600.0 if why == "it was busy just now" else 0.0, SOON) is False
    assert await a.snapshot() == before
    assert len(await a.group.members(SOON)) == 2


@pytest.mark.parametrize("operator", ["XGROUP DELCONSUMER", "XACK"])
async def test_what_was_delivered_but_is_pending_for_nobody_becomes_claimable_under_a_greater_fence(
    redis: Connection, a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr(group, "PAGE", 2)
    lost = await b.take(5)
    for count in (1, 2, 3):
        await b.deliveries.adopt([(lbs_id, count) for lbs_id in lost], SOON)
    [kept] = await a.take()
    await a.announce()
    await a.deliveries.adopt([(kept, 1)], SOON)
    if operator == "XACK":
        await redis.xack(b.keys.lbs, b.keys.group, *lost)
    else:
        await redis.xgroup_delconsumer(b.keys.lbs, b.keys.group, b.id)
    rescued, last = 0, None
    while True:
        count, last = await a.group.rescue(last, SOON)
        rescued += count
        if last is None:
            break
    assert rescued == 5
    pending = await a.all_pending()
    assert pending.pop(kept) == (a.id, 2)
    assert [(lbs_id, owner) for lbs_id, (owner, _) in pending.items()] == [(lbs_id, NOBODY) for lbs_id in lost]
    won = await a.deliveries.claim(lost[0], NOBODY, SOON)
    assert isinstance(won, Won)
    assert won.deliveries > 4


async def test_where_nothing_is_lost_nothing_is_rescued(a: Consumer) -> None:
    await a.take(3)
    await a.announce(2)
    before = await a.snapshot()
    assert await a.group.rescue(None, SOON) == (0, None)
    assert await a.snapshot() == before


async def test_a_census_tells_whether_more_is_known_to_be_announced_than_is(
    redis: Connection, a: Consumer
) -> None:
    assert (await a.group.census(SOON)).surplus == 0
    await redis.hset(a.keys.announced, mapping={"call-1": "1-1", "call-2": "1-2"})
    assert (await a.group.census(SOON)).surplus == 2
    await a.take(1)
    await a.announce(2)
    assert (await a.group.census(SOON)).surplus == -1
    await redis.delete(a.keys.announced)
    await redis.set(a.keys.announced, "text")
    assert (await a.group.census(SOON)).surplus == 1


async def prune_all(a: Consumer) -> tuple[int, int]:
    """Look through the whole hash; returns how many were looked at and forgotten."""
    looked, forgotten, cursor = 0, 0, "0"
    while True:
        page = await a.group.prune(cursor, SOON)
        looked, forgotten, cursor = looked + page.looked, forgotten + page.forgotten, page.cursor
        if cursor == "0":
            return looked, forgotten


@pytest.mark.parametrize("many", [0, 3000], ids=["a page", "many pages"])
async def test_what_is_not_outstanding_any_more_is_forgotten(redis: Connection, a: Consumer, many: int) -> None:
    delivered = await a.take(2)
    waiting = await a.announce(1)
    trimmed = await a.announce(1)
    await a.trim(*trimmed)
    known = {
        "delivered": delivered[0],
        "waiting": waiting[0],
        "trimmed": trimmed[0],
        "garbage": "call",
        "empty": "",
    }
    stale = {f"stale-{n}": f"1-{n}" for n in range(1, many + 1)}
    await redis.hset(a.keys.announced, mapping={**stale, **known})
    looked, forgotten = await prune_all(a)
    assert looked >= many + 5
    assert forgotten == many + 3
    assert await redis.hgetall(a.keys.announced) == {
        b"delivered": delivered[0].encode(),
        b"waiting": waiting[0].encode(),
    }


async def test_an_announcement_that_is_there_but_pending_for_nobody_is_known(
    redis: Connection, a: Consumer
) -> None:
    [lbs_id] = await a.take(1)
    await redis.hset(a.keys.announced, "call-0", lbs_id)
    await redis.xgroup_destroy(a.keys.lbs, a.keys.group)
    assert await prune_all(a) == (1, 0)


async def test_what_is_pending_is_not_read(
    redis: Connection, a: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "SEEN_BYTES", 1)
    for n in range(5):
        await redis.hset(a.keys.announced, f"pending-{n}", (await a.take())[0])
        await redis.hset(a.keys.announced, f"stale-{n}", f"1-{n}")
    assert (await a.group.prune("0", SOON)).forgotten == 5


async def test_large_announcements_that_wait_are_believed_and_not_all_read(
    redis: Connection, a: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "SEEN_BYTES", 100)
    large = await redis.xadd(a.keys.lbs, {"x": "y" * 200})
    await redis.hset(a.keys.announced, mapping={"a": large, **{f"b{n}": "1-1" for n in range(5)}})
    first = [stream async for stream, _ in redis.hscan_iter(a.keys.announced)].index(b"a")
    page = await a.group.prune("0", SOON)
    assert (page.cursor, page.looked, page.forgotten) == ("0", 6, first), "those before the large one"


@pytest.mark.parametrize("problem", ["another type", "-hscan", "-hdel", "-xrange"])
async def test_a_hash_that_cannot_be_looked_through_is_said_and_nothing_worse(
    server: Server, redis: Connection, a: Consumer, problem: str
) -> None:
    if problem == "another type":
        await redis.set(a.keys.announced, "text")
    else:
        await redis.hset(a.keys.announced, "call-1", "1-1")
        server.command("ACL", "SETUSER", "default", problem)
    page = await a.group.prune("0", SOON)
    server.command("ACL", "SETUSER", "default", "+@all")
    assert page.forgotten == 0
    assert bool(page.problem) == (problem != "-xrange"), "of what cannot be verified nothing is forgotten"


async def test_a_replica_that_cannot_forget_is_not_the_right_server(
    server: Server, redis: Connection, a: Consumer
) -> None:
    await redis.hset(a.keys.announced, "call-1", "1-1")
    await redis.replicaof(HOST, 1)
    try:
        with pytest.raises(Unanswered, match="READONLY"):
            await a.group.prune("0", SOON)
    finally:
        await redis.replicaof("NO", "ONE")
