"""What stays of data streams and records: under which fence they are trimmed and deleted, and up to where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import RedisRejected
from redis_stream_client._protocol.progress_records import Begin, Checkpoint, Owner, Records, Retain, Retained
from tests.protocol.consumer import SOON
from tests.protocol.test_progress_records import FIRST, RECORD, SECOND, no_result, records

if TYPE_CHECKING:
    from redis_stream_client._model.retention import OnDone
    from tests.harness.connection import Connection

__all__ = ["records"]

CALL = "call-1"
TOP = 2**64 - 1


def ask(what: OnDone, upto: str = "", *, owner: Owner = FIRST, **more: Any) -> Retain:
    return Retain(RECORD, owner, CALL, what, upto, **more)


async def retain(records: Records, ask: Retain) -> Retained | Exception:
    [result] = await records.retain([ask], SOON)
    return result


async def write(redis: Connection, *ids: str) -> None:
    for id in ids:
        await redis.xadd(CALL, {"n": 1}, id)


async def ids(redis: Connection) -> list[str]:
    return [id.decode() for id, _ in await redis.xrange(CALL)]


async def begin(records: Records, checkpoint: str | None = None, added: int | None = None) -> None:
    await records.begin(Begin(RECORD, FIRST))
    if checkpoint is not None:
        await records.checkpoint(Checkpoint(RECORD, FIRST, checkpoint, added), no_result)


async def test_trimmed_is_what_has_a_checkpoint_and_nothing_more(redis: Connection, records: Records) -> None:
    await write(redis, "1-0", "1-1", "2-0", "2-1", "3-0")
    await begin(records)
    assert await retain(records, ask("trim")) == Retained("kept")  # there is no checkpoint
    await begin(records, "2-0")
    assert await retain(records, ask("trim")) == Retained("trimmed", 3)
    assert await retain(records, ask("trim")) == Retained("trimmed", 0)
    assert await ids(redis) == ["2-1", "3-0"]


@pytest.mark.parametrize(
    ("checkpoint", "behind"),
    [
        ("1-9", "1-10"),
        ("1-999", "1-1000"),
        (f"1-{2**53}", f"1-{2**53 + 1}"),
        (f"{2**53}-{TOP}", f"{2**53 + 1}-0"),
        (f"999-{TOP}", "1000-0"),
        (f"{TOP}-{TOP - 1}", f"{TOP}-{TOP}"),
    ],
)
async def test_the_entry_next_to_the_checkpoint_stays(
    redis: Connection, records: Records, checkpoint: str, behind: str
) -> None:
    await write(redis, "1-1", checkpoint, behind)
    await begin(records, checkpoint)
    assert await retain(records, ask("trim")) == Retained("trimmed", 2)
    assert await ids(redis) == [behind]


@pytest.mark.parametrize("what", ["keep", "trim", "delete"])
async def test_nothing_is_touched_under_another_owners_fence(
    redis: Connection, records: Records, what: OnDone
) -> None:
    await write(redis, "1-0")
    await begin(records, "1-0")
    older = Owner(FIRST.fence, "another")
    for owner in (older, SECOND):
        assert await retain(records, ask(what, "1-0", owner=owner, lifetime=0)) == Retained("refused")
    await records.begin(Begin(RECORD, SECOND))
    assert await retain(records, ask(what, "1-0", lifetime=0)) == Retained("refused")
    assert await ids(redis) == ["1-0"]
    assert await redis.pttl(RECORD) == -1


async def test_stream_and_record_are_deleted_together_and_once(redis: Connection, records: Records) -> None:
    await write(redis, "1-0", "2-0")
    await begin(records, "1-0")
    assert await retain(records, ask("delete", "2-0")) == Retained("deleted")
    assert await redis.keys() == []
    await write(redis, "1-0")  # by a producer whose clock is behind
    assert await retain(records, ask("delete", "2-0")) == Retained("refused")
    assert await ids(redis) == ["1-0"]


async def test_entries_that_came_after_are_kept_and_the_next_owner_begins_with_them(
    redis: Connection, records: Records
) -> None:
    await write(redis, "1-0", "2-0", "3-0")
    await begin(records, "1-0", 1)
    for trimmed in (2, 0):
        assert await retain(records, ask("delete", "2-0", added=2)) == Retained("newer", trimmed)
    assert await ids(redis) == ["3-0"]
    begun = await records.begin(Begin(RECORD, SECOND))
    assert begun is not None
    assert (begun.checkpoint, begun.added.number) == ("2-0", 2)  # type: ignore[union-attr]


async def test_what_was_processed_is_not_taken_for_the_end_of_another_stream(
    redis: Connection, records: Records
) -> None:
    """Redis has lost what was read, or the stream was deleted and written anew."""
    await write(redis, "8-0")
    await begin(records)
    assert await retain(records, ask("delete", "9-0")) == Retained("other")
    assert await ids(redis) == ["8-0"]


async def test_entries_that_the_owner_deleted_itself_are_no_obstacle(redis: Connection, records: Records) -> None:
    await write(redis, "1-0", "2-0")
    await begin(records, "1-0")
    await redis.xdel(CALL, "1-0", "2-0")
    assert await retain(records, ask("delete", "2-0")) == Retained("deleted")
    assert await redis.keys() == []


@pytest.mark.parametrize("begins", [True, False])
async def test_of_a_stream_that_nobody_read_only_an_empty_one_is_deleted(
    redis: Connection, records: Records, *, begins: bool
) -> None:
    if begins:
        await begin(records)
    await write(redis, "1-0")
    assert await retain(records, ask("delete", "0-0")) == Retained("newer")
    await redis.xdel(CALL, "1-0")
    assert await redis.exists(CALL)
    assert await retain(records, ask("delete", "0-0")) == Retained("deleted")
    assert await redis.keys() == []
    await records.begin(Begin(RECORD, SECOND))
    assert await retain(records, ask("delete", "0-0")) == Retained("refused")


@pytest.mark.parametrize(("lifetime", "left"), [(None, -1), (60.0, 60_000), (0.0, -2)])
async def test_the_record_expires_as_was_asked(
    redis: Connection, records: Records, lifetime: float | None, left: int
) -> None:
    await write(redis, "1-0")
    await begin(records, "1-0")
    assert await retain(records, ask("keep", lifetime=lifetime)) == Retained("kept")
    found = await redis.pttl(RECORD)
    assert found == left if left < 0 else left - 5000 < found <= left
    assert await ids(redis) == ["1-0"]


async def test_very_many_entries_are_trimmed_by_several_calls(redis: Connection, records: Records) -> None:
    count = 260_000
    async with redis.pipeline(transaction=False) as pipe:
        for i in range(1, count + 1):
            pipe.execute_command("XADD", CALL, f"{i}-0", "n", 1)
        await pipe.execute()
    await begin(records, f"{count - 5}-0")
    await redis.config_resetstat()
    assert await retain(records, ask("trim")) == Retained("trimmed", count - 5)
    assert await redis.xlen(CALL) == 5
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] >= 3


async def test_a_key_of_another_type_is_its_streams_fault_alone(redis: Connection, records: Records) -> None:
    await redis.set(CALL, "text")
    await begin(records, "1-0")
    assert isinstance(await retain(records, ask("trim")), RedisRejected)
    assert isinstance(await retain(records, ask("delete", "1-0")), RedisRejected)
    assert await redis.exists(CALL, RECORD) == 2
    await redis.set(RECORD, "text")
    assert isinstance(await retain(records, ask("trim")), RedisRejected)
