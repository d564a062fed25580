"""The records of progress: who may begin, advance and settle one, and who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.gaps import Added
from redis_stream_client._protocol.progress_records import (
    Begin,
    Begun,
    Checkpoint,
    Foreign,
    Owner,
    Records,
    Refused,
    Settle,
)
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import KeyRejected
from tests.protocol.consumer import SOON

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine

    from tests.harness.connection import Connection

RECORD = "{call-1}:calls:progress"


def owner(deliveries: int, consumer: str = "a") -> Owner:
    return Owner(str(Fence(1, 0, deliveries)), consumer)


FIRST, SECOND = owner(1, "a"), owner(2, "b")


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return start_task(work, "a batch")


def no_result(*_: object) -> None:
    """Nobody hears it but whoever awaits it."""


@pytest.fixture
async def records(redis: Connection) -> AsyncIterator[Records]:
    """All in one slot."""
    connection = SharedConnection(endpoint_for(redis, RECORD))
    records = Records(connection, lambda _: 0, spawn, lambda: ClientClosed("closed"), SOON)
    yield records
    await records.close()


async def checkpoint(records: Records, owner: Owner, id: str, added: int | None = None) -> Refused | bool:
    return await records.checkpoint(Checkpoint(RECORD, owner, id, added), no_result)


def _without_trouble(answer: object) -> Begun:
    assert isinstance(answer, Begun)
    assert answer.trouble is not None
    return answer._replace(trouble=None)


async def test_who_begins_owns_the_record_and_an_older_owner_is_refused(records: Records) -> None:
    assert await records.begin(Begin(RECORD, FIRST, look_only=True)) is None
    assert await records.begin(Begin(RECORD, FIRST)) == Begun(None, 1, Added(0, sure=True))
    assert await records.begin(Begin(RECORD, FIRST)) == Begun(None, 1)  # a repeat
    assert _without_trouble(await records.begin(Begin(RECORD, SECOND))) == Begun(None, 2)
    assert await records.begin(Begin(RECORD, FIRST)) == Refused(SECOND)
    assert _without_trouble(await records.begin(Begin(RECORD, FIRST, replaces=SECOND))) == Begun(None, 3)


async def test_a_record_advances_for_its_owner_only_and_never_back(records: Records) -> None:
    assert await checkpoint(records, FIRST, "1-0") == Refused(Owner("", ""))
    await records.begin(Begin(RECORD, FIRST))
    assert await checkpoint(records, FIRST, "5-0", 5) is True
    assert await checkpoint(records, FIRST, "5-0", 5) is False
    assert await checkpoint(records, FIRST, "4-9", 4) is False
    assert await checkpoint(records, SECOND, "6-0", 6) == Refused(FIRST)
    assert await records.begin(Begin(RECORD, SECOND)) == Begun("5-0", 1, Added(5, sure=False))


async def test_who_settles_cleanly_counts_as_no_attempt(redis: Connection, records: Records) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await checkpoint(records, FIRST, "5-0", 5)
    settle = Settle(RECORD, FIRST, lifetime=60.0, clean=True)
    assert await records.settle([settle, settle._replace(owner=SECOND)], SOON) == [1, 0]
    assert 0 < await redis.pttl(RECORD) <= 60_000
    assert await records.begin(Begin(RECORD, SECOND)) == Begun("5-0", 1, Added(5, sure=True))
    assert await redis.pttl(RECORD) == -1


async def test_what_is_no_record_of_ours_is_told_apart(redis: Connection, records: Records) -> None:
    await redis.hset(RECORD, mapping={"fence": "42"})
    [foreign] = await records.begin_many([Begin(RECORD, FIRST)])
    assert isinstance(foreign, Foreign)
    await redis.delete(RECORD)
    await redis.set(RECORD, "text")
    with pytest.raises(KeyRejected):
        await records.begin(Begin(RECORD, FIRST))


async def test_a_record_is_brought_from_its_former_key_if_it_is_this_streams(
    redis: Connection, records: Records
) -> None:
    former = "{call-1}:former"
    await redis.hset(former, mapping={"fence": FIRST.fence, "consumer": "a", "checkpoint": "5-0", "attempts": 1})
    await records.move(RECORD, former, "00000000000000000009-", SOON)
    assert not await records.any_of([RECORD], SOON)
    await records.move(RECORD, former, FIRST.fence[:41], SOON)
    assert await records.any_of([RECORD], SOON)
    assert not await redis.exists(former)
    begun = await records.begin(Begin(RECORD, SECOND))
    assert isinstance(begun, Begun)
    assert (begun.checkpoint, begun.attempts) == ("5-0", 2)


async def test_what_is_asked_at_once_is_answered_each_by_itself(redis: Connection, records: Records) -> None:
    other = "{call-2}:calls:progress"
    await redis.hset(other, mapping={"fence": SECOND.fence, "consumer": SECOND.consumer})
    mine, theirs = records.begin(Begin(RECORD, FIRST)), records.begin(Begin(other, FIRST))
    assert isinstance(await mine, Begun)
    assert await theirs == Refused(SECOND)
