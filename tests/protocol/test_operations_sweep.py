"""What the fleet asks Redis and tidies up: shares of a backlog, who lives, what is orphaned or forgotten."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._protocol import operations
from redis_stream_client._protocol.operations import Delivered, Refusal, Won
from tests.harness.waiting import wait_until
from tests.protocol.test_operations import SOON, Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection


@pytest.fixture
async def a(redis: Connection, service: str) -> AsyncIterator[Consumer]:
    async with Consumer(redis, service, "a") as consumer:
        yield consumer


@pytest.fixture
async def b(redis: Connection, service: str) -> AsyncIterator[Consumer]:
    async with Consumer(redis, service, "b") as consumer:
        yield consumer


class Hints:
    """What is said on the control channel of a service."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._pubsub = consumer.redis.pubsub()

    async def __aenter__(self) -> Hints:
        await self._pubsub.subscribe(self._consumer.keys.control)
        assert await self._pubsub.get_message(timeout=SOON), "the confirmation"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pubsub.aclose()

    async def heard(self) -> list[str]:
        """What was said since the last call."""
        await self._consumer.redis.publish(self._consumer.keys.control, "mark")
        hints: list[str] = []
        while True:
            message = await self._pubsub.get_message(timeout=SOON)
            assert message is not None
            if message["data"] == b"mark":
                return hints
            hints.append(message["data"].decode())


# Reading.


async def test_a_read_delivers_one_announcement_and_makes_it_mine(a: Consumer) -> None:
    first, _ = await a.announce(2)
    assert await a.does.read(0.1, SOON) == [Delivered(first, 1, [FIELD.encode(), encode("call-0")])]
    assert await a.pending() == {first: (a.id, 1)}


async def test_a_read_with_nothing_to_read_ends_by_itself(a: Consumer) -> None:
    assert await a.does.read(0.05, SOON) == []


async def test_a_nudge_is_answered_after_the_read(redis: Connection, a: Consumer) -> None:
    read = asyncio.create_task(a.does.read(20.0, 20.0))

    async def blocked() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await wait_until(blocked, "the read blocks")
    nudge = asyncio.create_task(a.does.nudge(SOON))
    [lbs_id] = await a.announce()
    assert [entry.lbs_id for entry in await read] == [lbs_id]
    await nudge


@pytest.mark.parametrize(
    ("mine", "theirs", "waiting", "patient", "most", "takes", "members"),
    [
        pytest.param(0, [], 10, True, 100, 10, 1, id="alone: all"),
        pytest.param(0, [], 10, True, 4, 4, 1, id="alone: what there is room for"),
        pytest.param(0, [0], 10, True, 100, 5, 2, id="half"),
        pytest.param(0, [0, 0], 10, True, 100, 4, 3, id="a third, rounded up"),
        pytest.param(4, [0], 10, True, 100, 3, 2, id="what makes us level"),
        pytest.param(0, [6], 4, True, 100, 4, 2, id="they have more: all"),
        pytest.param(8, [0], 4, True, 100, 0, 2, id="we have more: nothing"),
        pytest.param(8, [0], 4, False, 100, 2, 2, id="we have more, they had their chance: half"),
        pytest.param(0, [0, 0], 7, False, 100, 3, 3, id="they had their chance: a third"),
        pytest.param(0, [0], 10, True, 2, 2, 2, id="room for less than our share"),
        pytest.param(0, [0], 0, True, 100, 0, 2, id="nothing waits"),
        pytest.param(0, [0], 1, True, 100, 1, 2, id="one waits"),
    ],
)
async def test_a_share_of_a_backlog_brings_level_with_the_live_members(
    redis: Connection,
    service: str,
    a: Consumer,
    mine: int,
    theirs: list[int],
    waiting: int,
    patient: bool,
    most: int,
    takes: int,
    members: int,
) -> None:
    peers = [Consumer(redis, service, f"peer{number}") for number in range(len(theirs))]
    for peer, count in zip(peers, theirs, strict=True):
        async with peer:
            if count:
                await peer.take(count)
    dead = Consumer(redis, service, "dead")
    async with dead:
        await dead.take(3)
        await dead.die()
    if mine:
        await a.take(mine)
    lbs_ids = await a.announce(waiting)
    share = await a.does.share(most, patient, [other.id for other in [*peers, dead]], SOON)
    assert share is not None
    assert [entry.lbs_id for entry in share.entries] == lbs_ids[:takes]
    assert share.waiting == waiting - takes
    assert share.members == members


async def test_nothing_is_shared_without_a_lock(a: Consumer) -> None:
    await a.announce(3)
    await a.die()
    before = await a.snapshot()
    assert await a.does.share(10, False, [], SOON) is None
    assert await a.snapshot() == before


# Looking.


async def test_what_is_pending_for_me_is_listed_page_by_page(a: Consumer, b: Consumer) -> None:
    lbs_ids = await a.take(25)
    await b.take(1)
    for _ in range(9):
        a.does._windows["pending entries"].unanswered()
    seen: list[tuple[str, int]] = []
    last: str | None = None
    most = 10
    while True:
        page = await a.does.pending(last, SOON)
        assert len(page.found) <= most
        most *= 2
        seen += page.found
        last = page.last
        if last is None:
            break
    assert seen == [(lbs_id, 1) for lbs_id in lbs_ids]


async def test_inspecting_names_the_owner_and_cleans_up_what_was_trimmed(a: Consumer, b: Consumer) -> None:
    mine, finished, trimmed = await a.take(3)
    [theirs] = await b.take()
    [waiting] = await a.announce()
    await a.does.done([(finished, 1)], SOON)
    await a.trim(trimmed)
    owners = await a.does.inspect([mine, theirs, finished, trimmed, waiting, "1-1"], SOON)
    assert owners == [a.id, b.id, "", "", "", ""]
    assert await a.pending() == {mine: (a.id, 1), theirs: (b.id, 1)}


@pytest.mark.parametrize("waiting", [0, 3])
async def test_a_census_tells_how_many_are_missing_or_too_many(a: Consumer, waiting: int) -> None:
    async def balance() -> int | None:
        return (await a.does.census(SOON)).balance

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
    monkeypatch.setattr(operations, "WAITING_COUNTED", 16)
    await a.announce(15)
    assert (await a.does.census(SOON)).balance == 0
    await a.announce(1)
    assert (await a.does.census(SOON)).balance is None


async def test_members_are_visible_before_they_own_anything(a: Consumer, b: Consumer) -> None:
    await b.take(2)
    members = {member.name: member.pending for member in await a.does.members(SOON)}
    assert members == {a.id: 0, b.id: 2}


async def test_looking_tells_who_lives(a: Consumer, b: Consumer) -> None:
    assert await a.does.look([b.id, "nobody-ever", a.id], SOON) == [True, False, True]
    await b.die()
    assert await a.does.look([b.id], SOON) == [False]


@pytest.mark.parametrize("lifetime", [10_000_000, None], ids=["too long", "endless"])
async def test_a_lock_that_would_outlive_its_holders_wish_is_shortened(
    redis: Connection, a: Consumer, lifetime: int | None
) -> None:
    await redis.set(a.keys.lock("other"), json.dumps({"ttl": 4000, "host": "x"}), px=lifetime)
    assert await a.does.look(["other"], SOON) == [True]
    assert 0 < await redis.pttl(a.keys.lock("other")) <= 4000


async def test_a_turn_that_would_outlive_its_length_is_shortened(redis: Connection, a: Consumer) -> None:
    await a.does.beat_and_turn(0.2, SOON)
    await redis.pexpire(a.keys.sweep, 10_000_000)
    await a.does.look([a.id], SOON)
    assert 0 < await redis.pttl(a.keys.sweep) <= 200


@pytest.mark.parametrize("value", ["", "{}", '{"ttl": 4000}'])
async def test_a_lock_with_a_shorter_lifetime_or_none_of_its_own_is_left_alone(
    redis: Connection, a: Consumer, value: str
) -> None:
    await redis.set(a.keys.lock("other"), value, px=3000)
    assert await a.does.look(["other"], SOON) == [True]
    assert 1000 < await redis.pttl(a.keys.lock("other")) <= 3000


async def test_orphans_are_listed_page_by_page_and_trimmed_ones_cleaned_up(
    a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "PAGE", 2)
    lbs_ids = await b.take(6)
    await b.die()
    await a.trim(lbs_ids[0], lbs_ids[1], lbs_ids[4])
    found, last = [], None
    while True:
        page = await a.does.orphans(b.id, last, SOON)
        assert not page.alive
        found += page.found
        last = page.last
        if last is None:
            break
    fields = {lbs_id: [FIELD.encode(), encode(f"call-{n}")] for n, lbs_id in enumerate(lbs_ids)}
    assert found == [Delivered(lbs_ids[n], 1, fields[lbs_ids[n]]) for n in (2, 3, 5)]
    assert set(await a.pending()) == {lbs_ids[2], lbs_ids[3], lbs_ids[5]}


async def test_what_a_live_consumer_has_are_no_orphans(a: Consumer, b: Consumer) -> None:
    await b.take(2)
    page = await a.does.orphans(b.id, None, SOON)
    assert (page.alive, page.found, page.last) == (True, [], None)


# Sweeping.


async def test_a_turn_to_sweep_is_given_to_one_member_and_again_when_it_is_over(a: Consumer, b: Consumer) -> None:
    assert await a.does.beat_and_turn(0.2, SOON) == (True, True)
    assert await b.does.beat_and_turn(0.2, SOON) == (True, False)

    async def next_turn() -> bool:
        _, won = await b.does.beat_and_turn(0.2, SOON)
        return won

    await wait_until(next_turn, "the next turn")


async def test_who_asks_for_the_turn_renews_the_lock_with_it(a: Consumer, redis: Connection) -> None:
    await redis.pexpire(a.lock, 1000)
    await a.does.beat_and_turn(0.2, SOON)
    assert await redis.pttl(a.lock) > 1000
    await redis.delete(a.lock)
    alive, _ = await a.does.beat_and_turn(0.2, SOON)
    assert not alive


async def test_a_full_redis_that_cannot_write_the_turn_down_gives_it_and_renews_the_lock(
    a: Consumer, redis: Connection
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    try:
        assert await a.does.beat_and_turn(0.2, SOON) == (True, True)
    finally:
        await redis.config_set("maxmemory", 0)


async def idle(consumer: Consumer, name: str) -> int:
    return next(member.idle_ms for member in await consumer.does.members(SOON) if member.name == name)


async def test_a_consumer_long_dead_and_idle_that_owns_nothing_is_forgotten(a: Consumer, b: Consumer) -> None:
    await b.die()

    async def idle_enough() -> bool:
        return await idle(a, b.id) >= 50

    await wait_until(idle_enough, "it is idle")
    assert await a.does.forget(b.id, 0.05, SOON) is True
    assert await a.does.forget(b.id, 0.05, SOON) is False
    assert [member.name for member in await a.does.members(SOON)] == [a.id]


@pytest.mark.parametrize("why", ["it lives", "it owns something", "it was busy just now"])
async def test_nobody_is_forgotten_who_lives_owns_something_or_was_busy_just_now(
    a: Consumer, b: Consumer, why: str
) -> None:
    await b.take(1 if why == "it owns something" else 0)
    if why != "it lives":
        await b.die()
    before = await a.snapshot()
    assert await a.does.forget(b.id, 3600.0 if why == "it was busy just now" else 0.0, SOON) is False
    assert await a.snapshot() == before
    assert len(await a.does.members(SOON)) == 2


@pytest.mark.parametrize("operator", ["XGROUP DELCONSUMER", "XACK"])
async def test_what_was_delivered_but_is_pending_for_nobody_becomes_claimable_under_a_greater_fence(
    redis: Connection, a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr(operations, "PAGE", 2)
    lost = await b.take(5)
    for count in (1, 2, 3):
        await b.does.adopt([(lbs_id, count) for lbs_id in lost], SOON)
    [kept] = await a.take()
    await a.announce()
    await a.does.adopt([(kept, 1)], SOON)
    if operator == "XACK":
        await redis.xack(b.keys.lbs, b.keys.group, *lost)
    else:
        await redis.xgroup_delconsumer(b.keys.lbs, b.keys.group, b.id)
    rescued, last = 0, None
    while True:
        count, last = await a.does.rescue(last, SOON)
        rescued += count
        if last is None:
            break
    assert rescued == 5
    pending = await a.pending()
    assert pending.pop(kept) == (a.id, 2)
    assert [(lbs_id, owner) for lbs_id, (owner, _) in pending.items()] == [(lbs_id, NOBODY) for lbs_id in lost]
    won = await a.does.claim(lost[0], NOBODY, SOON)
    assert isinstance(won, Won)
    assert won.deliveries > 4


async def test_where_nothing_is_lost_nothing_is_rescued(a: Consumer) -> None:
    await a.take(3)
    await a.announce(2)
    before = await a.snapshot()
    assert await a.does.rescue(None, SOON) == (0, None)
    assert await a.snapshot() == before


async def test_peers_are_told_of_what_was_released_claimed_and_left(a: Consumer, b: Consumer) -> None:
    first, second, third = await b.take(3)
    async with Hints(a) as hints:
        await b.does.release([(first, 1), (second, 9)], SOON)
        assert await hints.heard() == [f"released {first}"]
        assert isinstance(await a.does.claim(first, NOBODY, SOON), Won)
        assert isinstance(await a.does.claim(second, b.id, SOON), Refusal)
        assert await hints.heard() == [f"claimed {first}"]
        await b.does.leave(SOON)
        assert await hints.heard() == [f"left {b.id}"]
        await a.does.claim_many(b.id, 10, SOON)
        assert await hints.heard() == [f"claimed {second} {third}"]
        await a.redis.xack(a.keys.lbs, a.keys.group, first)
        await a.does.rescue(None, SOON)
        assert await hints.heard() == [f"released {first}"]
        await a.does.tell("dead x", SOON)
        assert await hints.heard() == ["dead x"]
