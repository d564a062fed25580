"""Writing entries: on one server in one step, elsewhere in three, with what may happen between any two of them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.announcement import encode
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.fence import Fence, announcement_of
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.options import PROGRESS_TTL
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.writing import (
    CHUNK,
    CHUNK_BYTES,
    ROUNDS,
    NewEntry,
    Writer,
    Writing,
    chunks,
)
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls
from tests.harness.cluster_proxies import ClusterProxies
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy

NEXT_ID = "99999999999999-0"


class Place:
    """Where a service and its streams are."""

    def __init__(self, redis: Connection, service: str, stream: str, other: str) -> None:
        self.redis = redis
        self.keys = Keys(service)
        self.stream, self.other = stream, other
        self.record = self.keys.progress(stream)
        self.writer = Writer(self.keys, ScriptCalls(redis, Pooled(redis, self.keys.lbs), self.keys.lbs))

    def entry(self, n: object = 1, *, stream: str | None = None, id: str = "*") -> NewEntry:
        stream = stream or self.stream
        return NewEntry(stream, encode(stream), [b"n", str(n).encode()], id)

    async def write(self, *entries: NewEntry, maxlen: int | None = None) -> list[Writing]:
        """Write the entries; what became of those of each stream."""
        places = await self.writer.write(entries, maxlen)
        return list({id(place): place for place, _ in places}.values())

    async def written(self, *entries: NewEntry, maxlen: int | None = None) -> list[str | None]:
        [writing] = await self.write(*entries, maxlen=maxlen)
        assert writing.fault is None
        return writing.ids

    async def refused(self, *entries: NewEntry) -> Writing:
        [writing] = await self.write(*entries)
        assert writing.fault is not None
        return writing

    async def announced(self) -> list[str]:
        """The ids of the announcements, oldest first."""
        return [id.decode() for id, _ in await self.redis.xrange(self.keys.lbs)]

    async def believed(self) -> str | None:
        """What the hash says about the stream."""
        found = await self.redis.hget(self.keys.announced, self.stream)
        return None if found is None else found.decode()

    async def finish(self, *, mark: bool) -> None:
        """End the announcement as its owner does; with a mark as one that has put the stream to sleep."""
        [lbs_id] = await self.announced()
        fence = str(Fence.of(lbs_id, 1, "1764345600000000-0a1b2c3d"))
        fields = {"fence": fence, "consumer": "c"} | ({"asleep": announcement_of(lbs_id)} if mark else {})
        await self.redis.hset(self.record, mapping=fields)
        await self.redis.xdel(self.keys.lbs, lbs_id)
        await self.redis.hdel(self.keys.announced, self.stream)


@pytest.fixture(params=["one server", "one slot", "apart"])
async def place(request: pytest.FixtureRequest, service: str) -> AsyncIterator[Place]:
    if request.param == "one server":
        async with Redis.from_url(request.getfixturevalue("server").url) as one:
            yield Place(one, service, "call-1", "call-2")
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    async with RedisCluster.from_url(cluster.url) as redis:
        lbs = Keys(service).lbs
        if request.param == "one slot":
            yield Place(redis, service, f"{{{lbs}}}:call-1", f"{{{lbs}}}:call-2")
        else:
            stream = cluster.key_apart_from(lbs, f"{service}-{{}}")
            yield Place(redis, service, stream, f"{{{stream}}}:other")


async def test_an_entry_is_added_and_its_stream_is_announced_once(place: Place) -> None:
    [first] = await place.written(place.entry(1))
    [lbs_id] = await place.announced()
    assert await place.believed() == lbs_id
    [second, third] = await place.written(place.entry(2), place.entry(3))
    assert await place.announced() == [lbs_id]
    assert await place.redis.xrange(place.stream) == [
        (id.encode(), {b"n": n}) for id, n in ((first, b"1"), (second, b"2"), (third, b"3")) if id is not None
    ]


@pytest.mark.parametrize("mark", [False, True])
async def test_a_stream_that_is_finished_is_announced_anew(place: Place, mark: bool) -> None:
    await place.written(place.entry())
    await place.finish(mark=mark)
    await place.written(place.entry())
    assert len(await place.announced()) == 1
    assert await place.redis.xlen(place.stream) == 2


async def test_what_the_hash_says_is_verified(place: Place) -> None:
    await place.redis.hset(place.keys.announced, place.stream, "1-1")
    await place.written(place.entry())
    assert [await place.believed()] == await place.announced() != ["1-1"]


async def test_an_announcement_whose_owner_looks_no_more_does_not_count(place: Place) -> None:
    await place.written(place.entry())
    [over] = await place.announced()
    await place.redis.hset(place.record, "asleep", announcement_of(over))
    await place.written(place.entry())
    first, second = await place.announced()
    assert first == over
    assert await place.believed() == second
    await place.written(place.entry())
    assert await place.announced() == [first, second]


async def test_a_mark_of_a_load_balancer_stream_that_is_no_more_stops_nobody(place: Place) -> None:
    await place.redis.hset(place.record, "asleep", announcement_of("99999999999999-9"))
    await place.written(place.entry())
    assert await place.redis.xlen(place.stream) == 1
    assert await place.announced()
    assert len(await place.announced()) <= 2


async def test_an_id_of_the_caller_that_is_there_is_a_repeat(place: Place) -> None:
    assert await place.written(place.entry(id=NEXT_ID)) == [NEXT_ID]
    await place.finish(mark=True)
    assert await place.written(place.entry(id=NEXT_ID)) == [NEXT_ID]
    assert await place.redis.xlen(place.stream) == 1
    assert len(await place.announced()) == 1, "it is made sure of again"


async def test_an_id_that_is_too_small_is_refused(place: Place) -> None:
    await place.written(place.entry(id=NEXT_ID))
    refused = await place.refused(place.entry(id="5-5"))
    assert isinstance(refused.fault, RedisRejected)
    assert "equal or smaller" in str(refused.fault)
    assert (refused.ids, refused.unknown) == ([None], False)
    assert await place.redis.xlen(place.stream) == 1


async def test_what_was_refused_on_one_server_has_changed_nothing(redis: Connection, service: str) -> None:
    place = Place(redis, service, "call-1", "call-2")
    await redis.xadd("call-1", {"n": 1}, id=NEXT_ID)
    await place.refused(place.entry(id="5-5"))
    assert await place.announced() == []


@pytest.mark.parametrize("wrong", ["stream", "record", "lbs", "announced"])
async def test_a_key_of_another_type_is_refused_and_nothing_is_written(place: Place, wrong: str) -> None:
    key = getattr(place if wrong in ("stream", "record") else place.keys, wrong)
    await place.redis.set(key, "text")
    refused = await place.refused(place.entry())
    assert isinstance(refused.fault, RedisRejected)
    assert "another type" in str(refused.fault)
    assert (refused.ids, refused.unknown) == ([None], False)
    assert await place.redis.get(key) == b"text"
    for other in {place.stream, place.record} - {key}:
        assert not await place.redis.exists(other)


async def test_a_refused_entry_stops_the_later_ones_of_its_stream_and_no_others(place: Place) -> None:
    await place.redis.xadd(place.stream, {"n": 0}, id="7-7")
    first, second = await place.write(
        place.entry(1), place.entry(2, id="5-5"), place.entry(1, stream=place.other), place.entry(3)
    )
    assert first.fault is not None
    assert first.ids[0] is not None
    assert first.ids[1:] == [None, None]
    assert second.fault is None
    assert await place.redis.xlen(place.stream) == 2
    assert await place.redis.xlen(place.other) == 1
    assert len(await place.announced()) == 2


async def test_about_so_many_entries_are_kept(place: Place) -> None:
    for _ in range(3):
        await place.written(*(place.entry(n) for n in range(CHUNK)), maxlen=100)
    assert 100 <= await place.redis.xlen(place.stream) < 2 * CHUNK


async def test_as_many_words_as_an_entry_may_have(place: Place) -> None:
    words = [str(n).encode() for n in range(7_000)]
    await place.written(NewEntry(place.stream, encode(place.stream), words))
    await place.written(NewEntry(place.stream, encode(place.stream), words), maxlen=10)
    assert [len(fields) for _, fields in await place.redis.xrange(place.stream)] == [3_500, 3_500]


async def test_large_announcements_are_looked_at_in_several_calls(place: Place) -> None:
    """To see that one is outstanding, Redis must read it; one call reads so much only."""
    streams = [f"{{{place.stream}}}:{n}" for n in range(40)]
    for large in (250_000, 0):
        entries = [NewEntry(one, encode(one, {"x": "y" * large}), [b"n", b"1"]) for one in streams]
        for entry in entries if large else [entries]:
            await place.write(*(entry if isinstance(entry, list) else [entry]))
    assert len(await place.announced()) == 40
    assert [await place.redis.xlen(stream) for stream in streams] == [2] * 40


# The record of a stream that wakes.


async def test_a_record_does_not_expire_while_its_stream_wakes(place: Place) -> None:
    await place.written(place.entry())
    await place.finish(mark=True)
    await place.redis.pexpire(place.record, 5_000)
    await place.written(place.entry())
    assert await place.redis.pttl(place.record) == -1


async def test_an_entry_that_wakes_nothing_leaves_the_record_as_it_is(place: Place) -> None:
    await place.written(place.entry())
    await place.redis.hset(place.record, "fence", "f")
    await place.redis.pexpire(place.record, 5_000)
    await place.written(place.entry())
    assert 0 < await place.redis.pttl(place.record) <= 5_000


async def test_without_a_record_the_entry_that_wakes_a_stream_is_noted(place: Place) -> None:
    await place.redis.xadd(place.stream, {"n": 0})
    [first, _] = await place.written(place.entry(1), place.entry(2))
    assert await place.redis.hgetall(place.record) == {b"since": str(first).encode()}
    assert 0 < await place.redis.pttl(place.record) <= PROGRESS_TTL * 1000
    await place.redis.delete(place.keys.lbs)
    await place.written(place.entry(3))
    assert await place.redis.hgetall(place.record) == {b"since": str(first).encode()}
    assert await place.redis.pttl(place.record) > 0


async def test_a_stream_that_begins_has_no_note_of_an_entry(place: Place) -> None:
    await place.written(place.entry(1), place.entry(2))
    await place.written(place.entry(3))
    assert await place.redis.hget(place.record, "since") in (None, b"-")


# Chunks.


def test_chunks_are_bounded_by_number_and_by_bytes() -> None:
    few = [NewEntry("s", b"", [b"n", b"1"]) for _ in range(2 * CHUNK + 1)]
    assert [len(chunk) for chunk in chunks(few)] == [CHUNK, CHUNK, 1]
    large = [NewEntry("s", b"p" * 10, [b"n", b"x" * (CHUNK_BYTES // 3)]) for _ in range(5)]
    assert [len(chunk) for chunk in chunks(large)] == [2, 2, 1]
    assert [len(chunk) for chunk in chunks([NewEntry("s", b"", [b"n", b"x" * 2 * CHUNK_BYTES])] * 2)] == [1, 1]


# Between two steps, in a cluster.


@pytest.fixture
async def apart(cluster: Cluster, service: str) -> AsyncIterator[tuple[Place, TcpProxy, TcpProxy]]:
    """A place behind proxies, those before the load balancer stream and before the data stream."""
    proxies = ClusterProxies(cluster)
    lbs = Keys(service).lbs
    stream = cluster.key_apart_from(lbs, f"{service}-{{}}")
    async with proxies.opened() as through, RedisCluster.from_url(cluster.url) as redis:
        place = Place(redis, service, stream, "")
        place.writer = Writer(place.keys, ScriptCalls(through, Pooled(through, lbs), lbs))
        await place.written(place.entry("before"))
        await place.redis.delete(stream)
        await place.redis.delete(lbs)
        yield place, proxies.before(lbs), proxies.before(stream)


ANNOUNCE, APPEND = scripts.load("announce").sha.encode(), scripts.load("append").sha.encode()


async def stopped_after(proxy: TcpProxy, sha: bytes, place: Place) -> tuple[asyncio.Task[list[Writing]], Any]:
    """A call of a script has been executed, and its reply does not come."""
    fault = proxy.hold_replies_after(sha, connections=1)
    writing = asyncio.create_task(place.write(place.entry()))
    changes = place.keys.lbs if sha == ANNOUNCE else place.stream
    await wait_until(partial(place.redis.exists, changes), "it is executed")
    return writing, fault


@pytest.mark.parametrize("mark", [False, True], ids=["done", "asleep"])
async def test_an_announcement_that_ends_before_the_entry_is_added_is_followed_by_another(
    apart: tuple[Place, TcpProxy, TcpProxy], mark: bool
) -> None:
    place, lbs, _ = apart
    writing, fault = await stopped_after(lbs, ANNOUNCE, place)
    await place.finish(mark=mark)
    fault.release()
    [done] = await writing
    assert done.fault is None
    [lbs_id] = await place.announced()
    assert await place.believed() == lbs_id
    assert await place.redis.xlen(place.stream) == 1


async def test_nothing_is_added_while_the_announcement_is_over(
    apart: tuple[Place, TcpProxy, TcpProxy],
) -> None:
    """The writer dies then: there is no entry that nobody reads, and at worst an announcement too many."""
    place, lbs, _ = apart
    writing, fault = await stopped_after(lbs, ANNOUNCE, place)
    await place.finish(mark=True)
    dead = lbs.drop_requests_matching(ANNOUNCE)
    fault.release()
    await wait_until(lambda: dead.matched, "it wants to announce anew")
    writing.cancel()
    await asyncio.wait((writing,))
    assert writing.cancelled()
    assert await place.redis.xlen(place.stream) == 0


async def test_an_announcement_that_ends_after_the_entry_was_added_is_followed_by_another(
    apart: tuple[Place, TcpProxy, TcpProxy],
) -> None:
    place, _, data = apart
    writing, fault = await stopped_after(data, APPEND, place)
    await place.finish(mark=False)
    fault.release()
    [done] = await writing
    assert done.fault is None
    assert len(await place.announced()) == 1


@pytest.mark.parametrize("old", [0, 1])
async def test_a_writer_that_another_one_overtakes_names_no_entry(
    apart: tuple[Place, TcpProxy, TcpProxy], old: int
) -> None:
    """Its entry woke the stream, and is not the first: an owner must not begin with it."""
    place, lbs, _ = apart
    for n in range(old):
        await place.redis.xadd(place.stream, {"old": n})
    fault = lbs.hold_replies_after(ANNOUNCE, connections=1)
    writing = asyncio.create_task(place.write(place.entry("slow")))
    await wait_until(partial(place.redis.exists, place.keys.lbs), "it has announced the stream")
    await Place(place.redis, place.keys.lbs.removesuffix("-input"), place.stream, "").written(place.entry("fast"))
    fault.release()
    [done] = await writing
    assert done.fault is None
    assert await place.redis.xlen(place.stream) == old + 2
    assert await place.redis.hget(place.record, "since") == b"-"


@pytest.mark.parametrize("step", ["announce", "append"])
async def test_a_writer_that_dies_leaves_no_entry_without_an_announcement(
    apart: tuple[Place, TcpProxy, TcpProxy], step: str
) -> None:
    place, lbs, data = apart
    writing, _ = await stopped_after(lbs if step == "announce" else data, step_sha(step), place)
    writing.cancel()
    await asyncio.wait((writing,))
    assert writing.cancelled()
    assert len(await place.announced()) == 1
    assert await place.redis.xlen(place.stream) == (step == "append")


def step_sha(step: str) -> bytes:
    return {"announce": ANNOUNCE, "append": APPEND}[step]


async def test_a_lost_reply_says_what_may_have_been_written(apart: tuple[Place, TcpProxy, TcpProxy]) -> None:
    place, lbs, data = apart
    lbs.drop_replies_after(ANNOUNCE, connections=1, cut=True)
    first = await place.refused(place.entry())
    assert isinstance(first.fault, Unanswered)
    assert (first.ids, first.unknown) == ([None], False)
    data.drop_replies_after(APPEND, connections=1, cut=True)
    second = await place.refused(place.entry())
    assert (second.ids, second.unknown) == ([None], True)
    assert await place.redis.xlen(place.stream) == 1


async def test_an_entry_that_is_there_has_its_id_although_the_last_step_failed(
    apart: tuple[Place, TcpProxy, TcpProxy],
) -> None:
    place, lbs, data = apart
    writing, fault = await stopped_after(data, APPEND, place)
    lbs.drop_replies_after(ANNOUNCE, cut=True)
    fault.release()
    [failed] = await writing
    assert isinstance(failed.fault, Unanswered)
    [(entry_id, _)] = await place.redis.xrange(place.stream)
    assert failed.ids == [entry_id.decode()]


async def test_a_stream_whose_announcements_are_all_over_is_given_up(
    apart: tuple[Place, TcpProxy, TcpProxy],
) -> None:
    place, lbs, _ = apart
    fault = lbs.hold_replies_after(ANNOUNCE, connections=1)
    refused = asyncio.create_task(place.refused(place.entry()))
    for number in range(1, ROUNDS + 1):

        async def again(number: int = number) -> bool:
            return len(await place.announced()) == number

        await wait_until(again, "it is announced again")
        newest = (await place.announced())[-1]
        await place.redis.hset(place.record, "asleep", announcement_of(newest))
        held, fault = fault, lbs.hold_replies_after(ANNOUNCE, connections=1)
        held.release()
    assert "was over" in str((await refused).fault)
    assert await place.redis.xlen(place.stream) == 0
