"""Looking at what is pending, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.entry import GREATEST
from redis_stream_client._protocol import pending
from redis_stream_client._protocol.replies import Delivered, Taken
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    import pytest


async def test_what_is_pending_for_me_is_listed_page_by_page(a: Consumer, b: Consumer) -> None:
    lbs_ids = await a.take(25)
    await b.take(1)
    for _ in range(9):
        a.sizes.pending.unanswered()
    seen: list[tuple[str, int]] = []
    last: str | None = None
    most = 10
    while True:
        page = await a.pending.mine(last, SOON)
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
    await a.deliveries.done([(finished, 1, "call-0")], SOON)
    await a.trim(trimmed)
    owners = await a.pending.inspect([mine, theirs, finished, trimmed, waiting, "1-1"], SOON)
    assert owners == [a.id, b.id, "", "", "", ""]
    assert await a.all_pending() == {mine: (a.id, 1), theirs: (b.id, 1)}


async def test_orphans_are_listed_page_by_page_and_trimmed_ones_cleaned_up(
    a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "PAGE", 2)
    lbs_ids = await b.take(6)
    await b.die()
    await a.trim(lbs_ids[0], lbs_ids[1], lbs_ids[4])
    found, last = [], None
    while True:
        page = await a.pending.orphans(b.id, last, SOON)
        assert not page.alive
        found += page.found
        last = page.last
        if last is None:
            break
    fields = {lbs_id: [FIELD.encode(), encode(f"call-{n}")] for n, lbs_id in enumerate(lbs_ids)}
    assert found == [Delivered(lbs_ids[n], 1, fields[lbs_ids[n]]) for n in (2, 3, 5)]
    assert set(await a.all_pending()) == {lbs_ids[2], lbs_ids[3], lbs_ids[5]}


async def test_no_page_begins_behind_the_greatest_id(
    a: Consumer, b: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = 100  # also of claim_many
    monkeypatch.setattr(pending, "PAGE", page)
    b.sizes.pending.size = page
    await b.take(page - 1)
    await b.redis.xadd(b.keys.lbs, {FIELD: encode("last")}, id=GREATEST)
    share = await b.announcements.share(1, False, [], SOON)
    assert share is not None
    assert [entry.lbs_id for entry in share.entries] == [GREATEST]
    mine = await b.pending.mine(None, SOON)
    assert (len(mine.found), mine.last) == (page, None)
    await b.die()
    orphans = await a.pending.orphans(b.id, None, SOON)
    assert (len(orphans.found), orphans.last) == (page, None)
    taken = await a.deliveries.claim_many(b.id, 2 * page, SOON)
    assert isinstance(taken, Taken)
    assert (len(taken.entries), taken.left, taken.more) == (page, 0, False)


async def test_what_a_live_consumer_has_are_no_orphans(a: Consumer, b: Consumer) -> None:
    await b.take(2)
    page = await a.pending.orphans(b.id, None, SOON)
    assert (page.alive, page.found, page.last) == (True, [], None)
