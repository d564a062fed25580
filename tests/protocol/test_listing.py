"""The announcements in pages: all, or those of one consumer; and the newest one of a stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._protocol import listing
from redis_stream_client._protocol.listing import Listed, Listing
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls

if TYPE_CHECKING:
    from tests.protocol.consumer import Consumer


def listing_of(a: Consumer) -> Listing:
    return Listing(ScriptCalls(a.redis, Pooled(a.redis, a.keys.lbs), a.keys.lbs), a.keys)


async def everything(a: Consumer, consumer: str | None = None) -> tuple[list[Listed], int]:
    """All that is listed, and how many pages that took."""
    lists, newest = listing_of(a), await listing_of(a).newest()
    found: list[Listed] = []
    pages, after = 0, None
    while newest is not None:
        page = await lists.page(after, newest, consumer)
        found += page.found
        pages, after = pages + 1, page.last
        if after is None:
            break
    return found, pages


@pytest.mark.parametrize("most", [1, 3, 250])
async def test_all_and_those_of_one(a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(listing, "PAGE", most)
    mine, theirs, trimmed = await a.take(40), await b.take(2), await a.take(3)
    waiting = await a.announce(2)
    await a.trim(*trimmed[:2])
    ours = [*mine, trimmed[2]]
    found, pages = await everything(a)
    assert [one.lbs_id for one in found] == [*mine, *theirs, trimmed[2], *waiting]
    assert [one.consumer for one in found] == [a.id] * 40 + [b.id] * 2 + [a.id] + [""] * 2
    assert [one.deliveries for one in found] == [1] * 43 + [0] * 2
    assert [one.stream for one in found[:2]] == ["call-0", "call-1"]
    assert (pages > 10) == (most < 4)
    assert [one.lbs_id for one in (await everything(a, a.id))[0]] == ours
    assert [one.lbs_id for one in (await everything(a, b.id))[0]] == theirs
    assert await everything(a, "nobody that is known") == ([], 1)


async def test_pages_are_bounded_by_bytes_too(a: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    await a.announce(20)
    monkeypatch.setattr(listing, "PAGE_BYTES", 100)
    found, pages = await everything(a)
    assert (len(found), pages) == (20, 7)


async def test_what_came_later_is_not_listed(a: Consumer) -> None:
    first = await a.announce(3)
    page = await listing_of(a).page(None, first[1], None)
    assert ([one.lbs_id for one in page.found], page.last) == (first[:2], None)


async def test_without_a_group_all_wait(a: Consumer) -> None:
    await a.redis.flushdb()
    assert await everything(a) == ([], 0)
    lbs_ids = await a.announce(2)
    found, _ = await everything(a)
    assert found == [Listed(lbs_id, f"call-{n}", "", 0) for n, lbs_id in enumerate(lbs_ids)]
    assert await everything(a, a.id) == ([], 1)


async def test_what_is_malformed(a: Consumer) -> None:
    lbs_id = (await a.redis.xadd(a.keys.lbs, {FIELD: b"\xff"})).decode()
    assert (await everything(a))[0] == [Listed(lbs_id, None, "", 0)]


async def test_another_type(a: Consumer) -> None:
    await a.redis.set(a.keys.lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await listing_of(a).newest()
    with pytest.raises(RedisRejected, match="another type"):
        await listing_of(a).page(None, "1-1", None)


# Finding one.

NAMES = ["call-17", "gespräch-7", "通話", 'a"b\\c', "<b>&", "x" * 300, "\\u0041", "{tag}:1"]


@pytest.mark.parametrize("most", [1, 2_000])
@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_is_found_whoever_announced_it(
    a: Consumer, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    """JSON has several ways to write a name. The newest announcement counts."""
    monkeypatch.setattr(listing, "SEARCHED", most)
    await a.announce(3)
    shortest = json.dumps({"DataStreamName": name}, ensure_ascii=False)
    ascii_only = "".join(f"\\u{ord(char):04x}" for char in name)
    for payload in (shortest, encode(name), f'{{"DataStreamName":"{ascii_only}"}}'):
        lbs_id = (await a.redis.xadd(a.keys.lbs, {FIELD: payload})).decode()
        await a.announce(2)
        assert await listing_of(a).find(name) == Listed(lbs_id, name, "", 0)
    assert await listing_of(a).find(f"{name}0") is None


async def test_the_hash_is_believed_where_the_entry_confirms_it(a: Consumer) -> None:
    lbs_id, other = await a.take(2)
    find = listing_of(a).find
    for belief in (lbs_id, other, "1-1", "nonsense", b"\xff"):
        await a.redis.hset(a.keys.announced, "call-0", belief)
        assert await find("call-0") == Listed(lbs_id, "call-0", a.id, 1)
    await a.redis.delete(a.keys.announced)
    await a.redis.set(a.keys.announced, "text")
    assert await find("call-0") == Listed(lbs_id, "call-0", a.id, 1)
    assert await find("call-9") is None
