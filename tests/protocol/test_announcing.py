"""Announcing once: what counts as outstanding, and what happens where Redis refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import announcing
from redis_stream_client._protocol.announcing import CHUNK, CHUNK_BYTES, Announced, Wanted, announce, chunks
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


class Producer:
    """Announces streams by the script."""

    def __init__(self, redis: Connection, service: str) -> None:
        self.keys = Keys(service)
        self.redis = redis
        self._calls = ScriptCalls(redis, Pooled(redis, self.keys.lbs), self.keys.lbs)

    async def announce(self, *streams: str | Wanted) -> list[Announced]:
        wanted = [Wanted(one, encode(one)) if isinstance(one, str) else one for one in streams]
        return await announce(self._calls, self.keys, wanted)

    async def known(self) -> dict[str, str]:
        """The hash."""
        found = await self.redis.hgetall(self.keys.announced)
        return {stream.decode(): lbs_id.decode() for stream, lbs_id in found.items()}

    async def entries(self) -> list[str]:
        return [lbs_id.decode() for lbs_id, _ in await self.redis.xrange(self.keys.lbs)]


@pytest.fixture
def producer(redis: Connection, service: str) -> Producer:
    return Producer(redis, service)


async def test_a_stream_is_announced_once_while_its_announcement_is_there(producer: Producer) -> None:
    [first] = await producer.announce("call-1")
    assert first == Announced(first.lbs_id, True)
    assert await producer.announce("call-1", "call-1") == [Announced(first.lbs_id, False)] * 2
    assert await producer.entries() == [first.lbs_id]
    assert await producer.known() == {"call-1": first.lbs_id}


async def test_of_two_with_the_same_name_the_first_is_announced(producer: Producer) -> None:
    again = Wanted("call-1", encode("call-1", {"n": 2}))
    first, second, other = await producer.announce("call-1", again, "call-2")
    assert (first.now, second.now, other.now) == (True, False, True)
    assert second.lbs_id == first.lbs_id
    [(_, fields), _] = await producer.redis.xrange(producer.keys.lbs)
    assert fields == {FIELD.encode(): encode("call-1")}


async def test_many_producers_at_once_announce_it_once(redis: Connection, service: str) -> None:
    results = await asyncio.gather(*(Producer(redis, service).announce("call-1") for _ in range(5)))
    assert len({result.lbs_id for [result] in results}) == 1
    assert sum(result.now for [result] in results) == 1


@pytest.mark.parametrize(
    "belief",
    ["finished", "0-1", "", "call", "-", "+", "99999999999999999999-0"],
    ids=lambda belief: belief or "empty",
)
async def test_what_the_hash_says_counts_only_if_the_entry_is_there(producer: Producer, belief: str) -> None:
    [first] = await producer.announce("call-1")
    if belief == "finished":
        await producer.redis.xdel(producer.keys.lbs, first.lbs_id)
    else:
        await producer.redis.hset(producer.keys.announced, "call-1", belief)
    [second] = await producer.announce("call-1")
    assert second.now
    assert await producer.known() == {"call-1": second.lbs_id}


async def test_an_announcement_that_does_not_count_is_followed_by_another(producer: Producer) -> None:
    [first] = await producer.announce("call-1")
    assert first.lbs_id is not None
    unless = Wanted("call-1", encode("call-1"), but=first.lbs_id)
    [second] = await producer.announce(unless)
    assert second.now
    assert await producer.announce(unless) == [Announced(second.lbs_id, False)], "another one counts"
    assert await producer.entries() == [first.lbs_id, second.lbs_id]


@pytest.mark.parametrize("name", ["a b", "ümlaut", "a\x00b", "*", "a\r\nb", "{a}b", "x" * 5000], ids=repr)
async def test_any_name_will_do(producer: Producer, name: str) -> None:
    [first] = await producer.announce(name)
    assert await producer.announce(name) == [Announced(first.lbs_id, False)]
    assert list(await producer.known()) == [name]


async def test_a_hash_of_another_type_is_said_and_nothing_is_announced(producer: Producer) -> None:
    await producer.redis.set(producer.keys.announced, "text")
    results = await producer.announce("a", "b")
    assert [(one.lbs_id, one.now) for one in results] == [(None, False)] * 2
    assert all("WRONGTYPE" in str(one.error) for one in results)
    assert await producer.entries() == []


async def test_a_load_balancer_stream_of_another_type_is_said_and_nothing_is_believed(producer: Producer) -> None:
    await producer.redis.set(producer.keys.lbs, "text")
    await producer.redis.hset(producer.keys.announced, "b", "1-1")
    for one in await producer.announce("a", "b"):
        assert one.lbs_id is None
        assert "WRONGTYPE" in str(one.error)
    assert await producer.known() == {"b": "1-1"}


async def test_a_full_redis_takes_none_but_says_what_is_outstanding(producer: Producer) -> None:
    [first] = await producer.announce("a")
    await producer.redis.config_set("maxmemory-policy", "noeviction")
    await producer.redis.config_set("maxmemory", 1)
    outstanding, refused = await producer.announce("a", "b")
    await producer.redis.config_set("maxmemory", 0)
    assert outstanding == Announced(first.lbs_id, False)
    assert refused.lbs_id is None
    assert await producer.known() == {"a": first.lbs_id}


ALL = ["+eval", "+evalsha", "+xadd", "+xrange", "+hget", "+hset"]


@pytest.mark.parametrize("word", ALL[2:])
async def test_without_a_permission_there_is_an_error_for_each(
    server: Server, producer: Producer, word: str
) -> None:
    await producer.announce("outstanding")
    permitted = [other for other in ALL if other != word]
    server.command("ACL", "SETUSER", "guest", "on", "nopass", "~*", *permitted)
    try:
        guest = Producer(Redis.from_url(server.url.replace("//", "//guest:@")), producer.keys.service)
        async with guest.redis:
            new, outstanding = await guest.announce("new", "outstanding")
    finally:
        server.command("ACL", "DELUSER", "guest")
    assert (outstanding.error is None) == (word in ("+xadd", "+hset"))
    assert (new.error is None) == (word == "+xrange")
    assert (new.lbs_id is not None) == (word in ("+xrange", "+hset")), "announced, and not known to be"


async def test_a_call_that_must_read_much_stops_early(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Wanted(f"call-{n}", encode(f"call-{n}", {"x": "y" * 1000})) for n in range(5)]
    results = await producer.announce(*wanted)
    monkeypatch.setattr(announcing, "SEEN_BYTES", 2500)
    assert await producer.announce(*wanted) == [one._replace(now=False) for one in results[:3]]


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        ([Wanted("a", b"")] * (2 * CHUNK + 1), [CHUNK, CHUNK, 1]),
        ([Wanted("a", b"x" * CHUNK_BYTES)] * 2, [1, 1]),
        ([Wanted("a" * 1000, b"x" * 1000)] * 200, [131, 69]),
        ([Wanted("é" * 500, b"x" * 1000)] * 200, [131, 69]),
    ],
    ids=["number", "large", "names count", "as bytes"],
)
def test_a_request_is_bounded_by_number_and_bytes(wanted: list[Wanted], sizes: list[int]) -> None:
    cut = list(chunks(wanted))
    assert [len(chunk) for chunk in cut] == sizes
    assert [one for chunk in cut for one in chunk] == wanted
