"""Changes of owner, decided by Redis: what each compares, what it sets, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._protocol.replies import Adopted, Delivered, Refusal, Taken, Won
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_a_dead_consumers_stream_is_claimed_under_a_new_fence(a: Consumer, b: Consumer) -> None:
    [lbs_id] = await b.take()
    await b.die()
    assert await a.deliveries.claim(lbs_id, b.id, SOON) == Won(2, [FIELD.encode(), encode("call-0")])
    assert await a.all_pending() == {lbs_id: (a.id, 2)}


async def test_a_released_stream_is_claimable_at_once(a: Consumer, b: Consumer) -> None:
    [lbs_id] = await b.take()
    await b.deliveries.release([(lbs_id, 1)], SOON)
    assert isinstance(await a.deliveries.claim(lbs_id, NOBODY, SOON), Won)


@pytest.mark.parametrize(
    "fails", ["my lock", "pending: done", "pending: undelivered", "owner", "owner: me", "owner's lock"]
)
async def test_a_claim_compares_all_of_its_conditions_and_says_which_one_fails(
    redis: Connection, a: Consumer, b: Consumer, fails: str
) -> None:
    [lbs_id] = await b.take()
    owner, expected = b.id, Refusal("gone")
    await b.die()
    match fails:
        case "my lock":
            expected = Refusal("lapsed")
            await a.die()
        case "pending: done":
            await b.deliveries.done([(lbs_id, 1, "call-0")], SOON)
        case "pending: undelivered":
            [lbs_id] = await a.announce()
        case "owner":
            await redis.xclaim(b.keys.lbs, b.keys.group, "peer", 0, [lbs_id])
            expected = Refusal("owner", "peer", 2)
        case "owner: me":
            await redis.xclaim(b.keys.lbs, b.keys.group, a.id, 0, [lbs_id])
            expected = Refusal("owner", a.id, 2)
        case _:
            await b.lock.join(SOON)
            expected = Refusal("alive", b.id)
    before = await a.snapshot()
    assert await a.deliveries.claim(lbs_id, owner, SOON) == expected
    assert await a.snapshot() == before


async def test_of_two_claimers_one_wins_and_the_other_learns_who(
    redis: Connection, service: str, a: Consumer, b: Consumer
) -> None:
    [lbs_id] = await b.take()
    await b.die()
    async with Consumer(redis, service, "c") as c:
        assert isinstance(await a.deliveries.claim(lbs_id, b.id, SOON), Won)
        assert await c.deliveries.claim(lbs_id, b.id, SOON) == Refusal("owner", a.id, 2)
        assert await c.deliveries.claim(lbs_id, a.id, SOON) == Refusal("alive", a.id)


async def test_many_streams_of_one_dead_consumer_are_claimed_at_once(a: Consumer, b: Consumer) -> None:
    lbs_ids = await b.take(5)
    await b.die()
    fields = [[FIELD.encode(), encode(f"call-{n}")] for n in range(5)]
    every = [Delivered(lbs_id, 2, field) for lbs_id, field in zip(lbs_ids, fields, strict=True)]
    assert await a.deliveries.claim_many(b.id, 3, SOON) == Taken(every[:3], left=2, more=False)
    assert await a.deliveries.claim_many(b.id, 3, SOON) == Taken(every[3:], left=0)
    assert await a.deliveries.claim_many(b.id, 3, SOON) == Taken([], left=0)
    assert await a.all_pending() == dict.fromkeys(lbs_ids, (a.id, 2))


async def test_claiming_many_leaves_to_live_peers_what_is_theirs(
    redis: Connection, service: str, a: Consumer, b: Consumer
) -> None:
    async with Consumer(redis, service, "c") as c, Consumer(redis, service, "dead") as dead:
        await c.take(3)
        lbs_ids = await b.take(8)
        await b.die()
        await dead.die()
        others = [b.id, c.id, dead.id]
        level = await a.deliveries.claim_many(b.id, 250, SOON, level_with=others)
        assert isinstance(level, Taken)
        assert [entry.lbs_id for entry in level.entries] == lbs_ids[:6]  # 11 streams, 2 live members, none of ours
        assert level.left == 2
        assert await a.deliveries.claim_many(b.id, 250, SOON, level_with=others) == Taken([], left=2)
        assert await c.deliveries.claim_many(b.id, 250, SOON, level_with=[a.id, b.id, dead.id]) != Taken(
            [], left=2
        )


async def test_claiming_many_raises_those_that_have_the_fewest(
    redis: Connection, service: str, a: Consumer, b: Consumer
) -> None:
    async with Consumer(redis, service, "tall") as tall, Consumer(redis, service, "dead") as dead:
        await tall.take(50)
        await b.take(2)
        await dead.take(8)
        await dead.die()
        for member, share in ((tall, 0), (a, 5), (b, 3)):
            others = [other.id for other in (a, b, tall, dead) if other is not member]
            taken = await member.deliveries.claim_many(dead.id, 250, SOON, level_with=others)
            assert isinstance(taken, Taken)
            assert len(taken.entries) == share


async def test_claiming_many_shares_by_weight(redis: Connection, service: str) -> None:
    async with (
        Consumer(redis, service, "heavy", weight=2.0) as heavy,
        Consumer(redis, service, "light") as light,
        Consumer(redis, service, "full", weight=50.0, max_streams=5) as full,
        Consumer(redis, service, "dead") as dead,
    ):
        await redis.set(heavy.keys.lock("older"), '{"ttl": 60000}', px=60_000)
        await redis.xgroup_createconsumer(heavy.keys.lbs, heavy.keys.group, "older")
        await full.take(5)
        await dead.take(41)
        await dead.die()
        everybody = [heavy.id, light.id, full.id, dead.id, "older"]
        for member, share in ((light, 11), (heavy, 20), (light, 0)):
            others = [name for name in everybody if name != member.id]
            taken = await member.deliveries.claim_many(dead.id, 250, SOON, level_with=others)
            assert isinstance(taken, Taken)
            assert len(taken.entries) == share
            assert taken.left >= 10


async def test_claiming_many_goes_on_behind_what_was_trimmed_and_says_whether_more_is_left(
    a: Consumer, b: Consumer
) -> None:
    lbs_ids = await b.take(700)
    await a.trim(*lbs_ids[:690])
    await b.die()
    looked = await a.deliveries.claim_many(b.id, 250, SOON)
    assert looked == Taken([], left=200, more=True)  # a call looks at 500 entries
    taken = await a.deliveries.claim_many(b.id, 250, SOON)
    assert isinstance(taken, Taken)
    assert [entry.lbs_id for entry in taken.entries] == lbs_ids[690:]
    assert (taken.left, taken.more) == (0, False)


async def test_claiming_many_leaves_alone_what_it_is_told(a: Consumer, b: Consumer) -> None:
    lbs_ids = await b.take(5)
    await b.die()
    taken = await a.deliveries.claim_many(b.id, 2, SOON, but=[lbs_ids[0], lbs_ids[2]])
    assert isinstance(taken, Taken)
    assert [entry.lbs_id for entry in taken.entries] == [lbs_ids[1], lbs_ids[3]]
    assert taken.left == 3


@pytest.mark.parametrize(("alive", "why"), [("both", "alive"), ("neither", "lapsed")])
async def test_claiming_many_needs_my_lock_and_the_owners_absence(
    a: Consumer, b: Consumer, alive: str, why: str
) -> None:
    await b.take(2)
    if alive == "neither":
        await a.die()
        await b.die()
    before = await a.snapshot()
    refusal = await a.deliveries.claim_many(b.id, 10, SOON)
    assert isinstance(refusal, Refusal)
    assert refusal.why == why
    assert await a.snapshot() == before


async def test_adopting_gives_a_new_fence_to_what_is_mine_with_that_count(
    redis: Connection, a: Consumer, b: Consumer
) -> None:
    mine, recounted, finished, trimmed = await a.take(4)
    [anothers] = await b.take()
    await redis.xclaim(a.keys.lbs, a.keys.group, a.id, 0, [recounted])
    await a.deliveries.done([(finished, 1, "call-0")], SOON)
    await a.trim(trimmed)
    entries = [(lbs_id, 1) for lbs_id in (mine, recounted, finished, trimmed, anothers)]
    adopted = await a.deliveries.adopt(entries, SOON)
    assert adopted == Adopted([Delivered(mine, 2, [FIELD.encode(), encode("call-0")])], left=0)
    assert await a.all_pending() == {mine: (a.id, 2), recounted: (a.id, 2), anothers: (b.id, 1)}


async def test_nothing_is_adopted_without_a_lock(a: Consumer) -> None:
    [lbs_id] = await a.take()
    await a.die()
    assert await a.deliveries.adopt([(lbs_id, 1)], SOON) is None
    assert await a.all_pending() == {lbs_id: (a.id, 1)}


async def end(consumer: Consumer, how: str, lbs_id: str, count: int) -> str:
    match how:
        case "done":
            return (await consumer.deliveries.done([(lbs_id, count, "call-0")], SOON))[0]
        case "release":
            return (await consumer.deliveries.release([(lbs_id, count)], SOON))[0]
        case "bury":
            return await consumer.deliveries.bury(lbs_id, count, "why", SOON)
        case _:
            return await consumer.deliveries.lift(lbs_id, count, count + 5, SOON)


ENDS = [
    ("done", "done", None),
    ("release", "released", (NOBODY, 1)),
    ("bury", "buried", None),
    ("lift", "lifted", ("a", 6)),
]


@pytest.mark.parametrize(("how", "said", "after"), ENDS, ids=[end[0] for end in ENDS])
async def test_the_owner_may_end_it_under_its_fence(
    redis: Connection, a: Consumer, how: str, said: str, after: tuple[str, int] | None
) -> None:
    lbs_id, other = await a.take(2)
    assert await end(a, how, lbs_id, 1) == said
    expected = {other: (a.id, 1)}
    if after is not None:
        expected[lbs_id] = (a.id if after[0] == "a" else after[0], after[1])
    assert await a.all_pending() == expected
    assert await redis.xlen(a.keys.lbs) == len(expected)


@pytest.mark.parametrize("how", [end[0] for end in ENDS])
@pytest.mark.parametrize("stale", ["a peer has it", "a newer lease of mine", "a count that never was"])
async def test_nothing_is_changed_under_a_stale_fence_and_the_owner_is_named(
    redis: Connection, a: Consumer, how: str, stale: str
) -> None:
    [lbs_id] = await a.take()
    owner, count = a.id, 1
    match stale:
        case "a peer has it":
            owner = "peer"  # with the same count, so that the name alone makes the difference
            await redis.xclaim(a.keys.lbs, a.keys.group, owner, 0, [lbs_id], justid=True)
        case "a newer lease of mine":
            await a.deliveries.adopt([(lbs_id, 1)], SOON)
        case _:
            count = 7
    if how == "release" and stale == "a newer lease of mine":
        owner = "released"  # it was, and came back: the trace of an earlier call
    before = await a.snapshot()
    assert await end(a, how, lbs_id, count) == owner
    assert await a.snapshot() == before


@pytest.mark.parametrize("how", [end[0] for end in ENDS])
async def test_what_is_not_pending_is_gone(a: Consumer, how: str) -> None:
    [lbs_id] = await a.take()
    await a.deliveries.done([(lbs_id, 1, "call-0")], SOON)
    before = await a.snapshot()
    assert await end(a, how, lbs_id, 1) == "gone"
    assert await a.snapshot() == before


async def test_many_are_ended_in_one_call_each_with_its_own_answer(redis: Connection, a: Consumer) -> None:
    mine, peers, finished = await a.take(3)
    await redis.xclaim(a.keys.lbs, a.keys.group, "peer", 0, [peers])
    await a.deliveries.done([(finished, 1, "call-0")], SOON)
    entries = [(mine, 1, "call-0"), (peers, 1, "call-1"), (finished, 1, "call-2")]
    assert await a.deliveries.done(entries, SOON) == ["done", "peer", "gone"]


async def test_a_release_that_is_repeated_succeeds_also_when_a_peer_has_claimed_since(
    a: Consumer, b: Consumer
) -> None:
    lbs_ids = await a.take(2)
    entries = [(lbs_id, 1) for lbs_id in lbs_ids]
    await a.deliveries.release(entries, SOON)
    assert isinstance(await b.deliveries.claim(lbs_ids[0], NOBODY, SOON), Won)
    before = await a.snapshot()
    assert await a.deliveries.release(entries, SOON) == ["released", "released"]
    assert await a.snapshot() == before


async def test_a_count_is_only_ever_raised(a: Consumer) -> None:
    [lbs_id] = await a.take()
    assert await a.deliveries.lift(lbs_id, 1, 5, SOON) == "lifted"
    for to in (5, 4, 1):
        assert await a.deliveries.lift(lbs_id, 5, to, SOON) == a.id
    assert await a.all_pending() == {lbs_id: (a.id, 5)}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({b"other": b"\x00\xff\r\n", b"": b""}, id="binary"),
        pytest.param({b"lbs-input": bytes(range(256)) * 4096}, id="1 MB"),
        pytest.param({b"%d" % n: b"\xff" for n in range(1999)}, id="1999 fields"),
        pytest.param({b"%d" % n: b"\xff" for n in range(5000)}, id="5000 fields"),
    ],
)
async def test_a_dead_letter_keeps_the_announcement_byte_for_byte_and_says_why(
    redis: Connection, a: Consumer, fields: dict[bytes, bytes]
) -> None:
    lbs_id = (await redis.xadd(a.keys.lbs, fields)).decode()
    await a.announcements.share(1, False, [], SOON)
    assert await a.deliveries.bury(lbs_id, 1, "it is broken", SOON) == "buried"
    [(_, letter)] = await redis.xrange(a.keys.dead)
    head = {
        b"reason": b"it is broken",
        b"lbs-id": lbs_id.encode(),
        b"consumer": a.id.encode(),
        b"deliveries": b"1",
    }
    packed = letter.pop(b"fields-msgpack", None)
    if packed is None:
        assert letter == head | fields
        assert list(letter)[4:] == list(fields)
    else:
        assert letter == head
        flat = [word for field in fields.items() for word in field]
        assert await redis.eval("return cmsgpack.unpack(ARGV[1])", 0, packed) == flat
    assert await redis.xlen(a.keys.lbs) == 0


async def test_a_trimmed_announcement_cannot_be_claimed_and_its_record_is_cleaned_up(
    a: Consumer, b: Consumer
) -> None:
    lbs_ids = await b.take(3)
    await a.trim(*lbs_ids)
    await b.die()
    assert await a.deliveries.claim(lbs_ids[0], b.id, SOON) == Refusal("gone")
    assert await a.deliveries.claim_many(b.id, 10, SOON) == Taken([], left=0)
    assert await a.all_pending() == {}


@pytest.mark.parametrize(("how", "said"), [("done", "done"), ("bury", "gone")])
async def test_ending_a_trimmed_announcement_cleans_its_record_up(a: Consumer, how: str, said: str) -> None:
    [lbs_id] = await a.take()
    await a.trim(lbs_id)
    assert await end(a, how, lbs_id, 1) == said
    assert await a.snapshot() == ([], {}, [])


async def announce_once(a: Consumer, *streams: str) -> list[str]:
    """Announce as producers do, and have it delivered; returns the announcements' ids."""
    lbs_ids = await LoadBalancerStream(a.redis, a.options.keys.service).add_many(streams)
    share = await a.announcements.share(len(streams), False, [], SOON)
    assert share is not None
    assert [entry.lbs_id for entry in share.entries] == lbs_ids
    return lbs_ids


async def announced(a: Consumer) -> dict[str, str]:
    """The newest announcements, as Redis has them."""
    found = await a.redis.hgetall(a.keys.announced)
    return {stream.decode(): lbs_id.decode() for stream, lbs_id in found.items()}


async def test_what_is_finished_or_buried_is_announced_no_more(a: Consumer) -> None:
    first, second, third, _ = await announce_once(a, "first", "second", "third", "peer's")
    await a.deliveries.bury(second, 1, "why", SOON, stream="second")
    assert await a.deliveries.done([(first, 1, "first"), (third, 2, "third")], SOON) == ["done", a.id]
    assert list(await announced(a)) == ["third", "peer's"]


@pytest.mark.parametrize("how", ["done", "bury"])
async def test_a_newer_announcement_of_the_stream_stays_known(a: Consumer, how: str) -> None:
    [first] = await announce_once(a, "call-0")
    await a.redis.hset(a.keys.announced, "call-0", "99999999999999-0")
    if how == "done":
        await a.deliveries.done([(first, 1, "call-0")], SOON)
    else:
        await a.deliveries.bury(first, 1, "why", SOON, stream="call-0")
    assert await announced(a) == {"call-0": "99999999999999-0"}


@pytest.mark.parametrize("how", ["done", "bury"])
@pytest.mark.parametrize("hindered", ["another type", "no permission"])
async def test_an_owner_can_finish_whatever_the_hash_is(
    server: Server, redis: Connection, a: Consumer, how: str, hindered: str
) -> None:
    [lbs_id] = await announce_once(a, "call-0")
    if hindered == "another type":
        await redis.delete(a.keys.announced)
        await redis.set(a.keys.announced, "text")
    else:
        server.command("ACL", "SETUSER", "default", "-hmget", "-hget", "-hdel")
    try:
        if how == "done":
            assert await a.deliveries.done([(lbs_id, 1, "call-0")], SOON) == ["done"]
        else:
            assert await a.deliveries.bury(lbs_id, 1, "why", SOON, stream="call-0") == "buried"
    finally:
        server.command("ACL", "SETUSER", "default", "+@all")
    assert await redis.xlen(a.keys.lbs) == 0
