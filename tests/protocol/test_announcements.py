"""Reading the load balancer stream: what is delivered is ours, and each gets a fair share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._protocol.replies import Delivered
from tests.harness.waiting import wait_until
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection


async def test_the_servers_clock_is_told_in_seconds(redis: Connection, a: Consumer) -> None:
    seconds, microseconds = await redis.time()
    assert 0 <= await a.announcements.server_time(SOON) - (seconds + microseconds / 1e6) < SOON


async def test_a_read_delivers_one_announcement_and_makes_it_mine(a: Consumer) -> None:
    first, _ = await a.announce(2)
    assert await a.announcements.read(0.1, SOON) == [Delivered(first, 1, [FIELD.encode(), encode("call-0")])]
    assert await a.all_pending() == {first: (a.id, 1)}


async def test_a_read_with_nothing_to_read_ends_by_itself(a: Consumer) -> None:
    assert await a.announcements.read(0.05, SOON) == []


async def test_a_nudge_is_answered_after_the_read(redis: Connection, a: Consumer) -> None:
    read = asyncio.create_task(a.announcements.read(20.0, 20.0))

    async def blocked() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await wait_until(blocked, "the read blocks")
    nudge = asyncio.create_task(a.announcements.nudge(SOON))
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
        pytest.param(0, [100, 0], 20, True, 100, 10, 3, id="one has much more: half, for the third one"),
        pytest.param(0, [100, 50, 1, 0], 20, True, 100, 7, 5, id="two have much more: a third"),
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
    share = await a.announcements.share(most, patient, [other.id for other in [*peers, dead]], SOON)
    assert share is not None
    assert [entry.lbs_id for entry in share.entries] == lbs_ids[:takes]
    assert share.waiting == waiting - takes
    assert share.members == members


async def test_nothing_is_shared_without_a_lock(a: Consumer) -> None:
    await a.announce(3)
    await a.die()
    before = await a.snapshot()
    assert await a.announcements.share(10, False, [], SOON) is None
    assert await a.snapshot() == before


@pytest.mark.parametrize(
    ("weight", "mine", "theirs", "waiting", "patient", "takes", "satisfied"),
    [
        pytest.param(2.0, 0, {1.0: 0, 1.001: 0}, 400, True, 200, False, id="half"),
        pytest.param(1.0, 0, {2.0: 0, 1.001: 0}, 400, True, 100, False, id="a quarter"),
        pytest.param(1.0, 101, {2.0: 0, 1.001: 0}, 299, True, 0, True, id="the others' share"),
        pytest.param(1.0, 101, {2.0: 0, 1.001: 0}, 300, False, 75, True, id="they had their chance"),
        pytest.param(2.0, 1, {1.0: 1}, 0, True, 0, False, id="the next one is ours"),
        pytest.param(1.0, 1, {2.0: 1}, 0, True, 0, True, id="the next one is not ours"),
        pytest.param(1.0, 3, {1.0: 1}, 0, True, 0, False, id="equal weights: whoever is next in the queue"),
        pytest.param(0.1, 0, {0.3: 0}, 40, True, 10, False, id="no rounding errors"),
    ],
)
async def test_a_share_is_by_weight(
    redis: Connection,
    service: str,
    weight: float,
    mine: int,
    theirs: dict[float, int],
    waiting: int,
    patient: bool,
    takes: int,
    satisfied: bool,
) -> None:
    peers = [Consumer(redis, service, f"peer-{heavy}", weight=heavy) for heavy in theirs]
    for peer, count in zip(peers, theirs.values(), strict=True):
        async with peer:
            if count:
                await peer.take(count)
    async with Consumer(redis, service, "me", weight=weight) as me:
        if mine:
            await me.take(mine)
        await me.announce(waiting)
        share = await me.announcements.share(1000, patient, [peer.id for peer in peers], SOON)
        assert share is not None
        # Weights of 1.001 tell the peers apart, and must not matter here.
        assert abs(len(share.entries) - takes) <= waiting / 1000
        assert share.satisfied == satisfied


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        '{"ttl": 4000, "host": "x"}',
        '{"ttl": 4000, "weight": 0.0, "max_streams": null}',
        '{"ttl": 4000, "weight": ., "max_streams": 0x}',
        '{"ttl": 4000, "weight": null, "max_streams": null}',
    ],
)
async def test_members_of_older_versions_weigh_one(redis: Connection, a: Consumer, value: str) -> None:
    await redis.set(a.keys.lock("older"), value, px=60_000)
    await redis.xgroup_createconsumer(a.keys.lbs, a.keys.group, "older")
    await a.announce(10)
    share = await a.announcements.share(100, True, ["older"], SOON)
    assert share is not None
    assert (len(share.entries), share.members, share.satisfied) == (5, 2, False)


async def test_a_member_without_room_is_left_out_of_the_shares(
    redis: Connection, service: str, a: Consumer
) -> None:
    async with Consumer(redis, service, "full", weight=100.0, max_streams=3) as full:
        await full.take(3)
        await a.announce(10)
        share = await a.announcements.share(100, True, [full.id], SOON)
        assert share is not None
        assert (len(share.entries), share.members, share.satisfied) == (10, 2, False)
