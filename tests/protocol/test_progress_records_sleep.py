"""Records of streams that sleep: who puts one to sleep, what is left of it, and where it starts when it wakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client._protocol.progress_records import (
    Begin,
    Begun,
    Checkpoint,
    Doze,
    Owner,
    Records,
    Refused,
    Retain,
    Retained,
    Settle,
    Unreadable,
)
from redis_stream_client._redis.error_mapping import WrongType
from tests.protocol.consumer import SOON
from tests.protocol.test_progress_records import RECORD, no_result, owner, records

if TYPE_CHECKING:
    from tests.harness.connection import Connection

__all__ = ["records"]

STREAM = "call-1"
FIRST, SECOND = owner(1, "a"), owner(2, "b")
OVER = FIRST.fence[:41]
"""The mark of their announcement."""


async def doze(records: Records, by: Owner = FIRST) -> Refused | bool:
    return await records.doze(Doze(RECORD, by, STREAM))


async def field(redis: Connection, name: str) -> str | None:
    found = await redis.hget(RECORD, name)
    return found.decode() if found is not None else None


@pytest.mark.parametrize("stream", ["missing", "emptied", "read", "trimmed"])
async def test_a_stream_sleeps_without_an_entry_after_its_checkpoint(
    redis: Connection, records: Records, stream: str
) -> None:
    await records.begin(Begin(RECORD, FIRST))
    if stream != "missing":
        await redis.xadd(STREAM, {"n": 1}, id="5-0")
    if stream == "emptied":
        await redis.xdel(STREAM, "5-0")
    if stream in ("read", "trimmed"):
        await records.checkpoint(Checkpoint(RECORD, FIRST, "5-0"), no_result)
    if stream == "trimmed":
        await redis.xtrim(STREAM, maxlen=0)
    assert await doze(records) is True
    assert await field(redis, "asleep") == OVER
    assert await doze(records) is True  # a repeat
    await redis.delete(STREAM)


async def test_an_entry_keeps_it_awake_and_nothing_is_changed(redis: Connection, records: Records) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await redis.xadd(STREAM, {"n": 1}, id="5-0")
    assert await doze(records) is False
    await records.checkpoint(Checkpoint(RECORD, FIRST, "5-0"), no_result)
    await redis.xadd(STREAM, {"n": 2}, id="5-1")
    assert await doze(records) is False
    assert await field(redis, "asleep") is None


async def test_behind_the_greatest_id_there_is_nothing(redis: Connection, records: Records) -> None:
    """Redis refuses to look there, which must not be taken for a fault of the stream."""
    greatest = "18446744073709551615-18446744073709551615"
    await records.begin(Begin(RECORD, FIRST))
    await redis.xadd(STREAM, {"n": 1}, id=greatest)
    assert await doze(records) is False
    await records.checkpoint(Checkpoint(RECORD, FIRST, greatest), no_result)
    assert await doze(records) is True
    [trimmed] = await records.retain([Retain(RECORD, FIRST, STREAM, "trim", lifetime=60.0)], SOON)
    assert trimmed == Retained("trimmed")
    [deleted] = await records.retain([Retain(RECORD, FIRST, STREAM, "delete", greatest, lifetime=60.0)], SOON)
    assert deleted == Retained("deleted")


async def test_only_who_has_begun_puts_it_to_sleep(redis: Connection, records: Records) -> None:
    assert await doze(records) == Refused(Owner("", ""))
    await records.begin(Begin(RECORD, FIRST))
    assert await doze(records, FIRST._replace(consumer="b")) == Refused(FIRST)
    await records.begin(Begin(RECORD, SECOND))
    assert await doze(records) == Refused(SECOND)
    assert await field(redis, "asleep") is None


async def test_nobody_takes_the_mark_back(redis: Connection, records: Records) -> None:
    """An owner that goes on, one that begins again, a newer and even an older announcement."""
    newer = "9" * len(OVER)
    await records.begin(Begin(RECORD, FIRST))
    assert await doze(records) is True
    await redis.xadd(STREAM, {"n": 1}, id="5-0")
    assert await doze(records) is False
    await records.begin(Begin(RECORD, FIRST))
    await records.begin(Begin(RECORD, SECOND))
    assert await field(redis, "asleep") == OVER
    await records.checkpoint(Checkpoint(RECORD, SECOND, "5-0"), no_result)
    await redis.hset(RECORD, "asleep", newer)
    assert await doze(records, SECOND) is True
    assert await field(redis, "asleep") == newer


async def test_keys_of_another_type_say_which(redis: Connection, records: Records) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await redis.set(STREAM, "no stream")
    with pytest.raises(Unreadable):
        await doze(records)
    await redis.set(RECORD, "no hash")
    with pytest.raises(WrongType):
        await doze(records)


async def test_a_finished_stream_has_the_mark_too(redis: Connection, records: Records) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await records.settle([Settle(RECORD, FIRST, 0)], SOON)
    assert await field(redis, "asleep") is None
    await records.settle([Settle(RECORD, FIRST, 60.0)], SOON)
    assert await field(redis, "asleep") == OVER


@pytest.mark.parametrize("asleep", [True, False])
async def test_of_a_stream_that_is_deleted_in_its_sleep_the_mark_stays_for_a_while(
    redis: Connection, records: Records, asleep: bool
) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await redis.xadd(STREAM, {"n": 1}, id="5-0")
    await records.checkpoint(Checkpoint(RECORD, FIRST, "5-0", 1), no_result)
    assert await doze(records) is True
    ask = Retain(RECORD, FIRST, STREAM, "delete", "5-0", 1, 60.0 if asleep else None)
    for _ in range(2 if asleep else 1):  # a repeat
        assert await records.retain([ask], SOON) == [Retained("deleted")]
        assert not await redis.exists(STREAM)
        left = await redis.hgetall(RECORD)
        expected = {"fence": FIRST.fence, "consumer": "a", "asleep": OVER, "added": "0"} if asleep else {}
        assert {name.decode(): value.decode() for name, value in left.items()} == expected
    if asleep:
        assert 0 < await redis.pttl(RECORD) <= 60_000
        begun = await records.begin(Begin(RECORD, Owner("2" + FIRST.fence[1:], "b")))
        assert isinstance(begun, Begun)
        assert begun.checkpoint is None


# Forgotten.


@pytest.mark.parametrize(
    ("since", "before"),
    [
        ("7-3", "7-2"),
        ("7-10", "7-9"),
        ("7-1000", "7-999"),
        ("7-1", "7-0"),
        ("7-0", "6-18446744073709551615"),
        ("10-0", "9-18446744073709551615"),
        ("1800000000000-0", "1799999999999-18446744073709551615"),
        ("0-1", "0-0"),
    ],
)
async def test_a_forgotten_stream_starts_just_before_the_entry_that_woke_it(
    redis: Connection, records: Records, since: str, before: str
) -> None:
    await redis.hset(RECORD, "since", since)
    await redis.pexpire(RECORD, 60_000)
    for _ in range(2):  # a repeat knows it, too
        begun = await records.begin(Begin(RECORD, FIRST, from_now=True))
        assert begun == Begun(before, 1, since=since)
        assert await field(redis, "checkpoint") == before
    assert await redis.pttl(RECORD) == -1
    await redis.xadd(STREAM, {"n": 1}, id=since)
    assert await doze(records) is False
    await records.checkpoint(Checkpoint(RECORD, FIRST, since), no_result)
    begun = await records.begin(Begin(RECORD, SECOND, from_now=True))
    assert isinstance(begun, Begun)
    assert (begun.checkpoint, begun.since) == (since, None)
    assert await field(redis, "since") is None


async def test_a_forgotten_stream_starts_at_its_start_and_says_that_it_was_forgotten(
    redis: Connection, records: Records
) -> None:
    await redis.hset(RECORD, "since", "7-3")
    assert await records.begin(Begin(RECORD, FIRST, look_only=True)) is None
    assert await records.begin(Begin(RECORD, FIRST)) == Begun(None, 1, since="7-3")
    begun = await records.begin(Begin(RECORD, SECOND, from_now=True))  # a member that was set up differently
    assert isinstance(begun, Begun)
    assert (begun.checkpoint, begun.since, begun.attempts) == ("7-2", "7-3", 2)


@pytest.mark.parametrize("since", ["-", "0-0", "no id", "7", "18446744073709551616-0"])
async def test_what_is_no_id_is_not_believed(redis: Connection, records: Records, since: str) -> None:
    await redis.hset(RECORD, "since", since)
    begun = await records.begin(Begin(RECORD, FIRST, from_now=True))
    assert isinstance(begun, Begun)
    assert (begun.checkpoint, begun.since) == (None, None)
