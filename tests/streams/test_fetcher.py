"""Ring 2: a fetcher by itself, without leases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from redis_stream_client import ClientClosed
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.entry import START
from redis_stream_client._model.gaps import UNKNOWN, Count
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.outage import Outages
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._streams.fetcher import Fetcher
from tests.harness.logs import LOG, outage
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from redis_stream_client._streams.cursor import Cursor
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

QUIET = 1.0


class Tasks:
    """The tasks of one fetcher, until it is closed."""

    def __init__(self) -> None:
        self.all: list[asyncio.Task[Any]] = []
        self.closed = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if self.closed:
            work.close()
            raise ClientClosed("closed")
        self.all.append(start_task(work, "fetching"))
        return self.all[-1]


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest_asyncio.fixture
async def fetcher(server: Server, tasks: Tasks) -> AsyncGenerator[Fetcher]:
    user_client = Redis.from_url(server.url)
    placement = placement_for(user_client, endpoint_for(user_client, "orders-input"))
    fetcher = Fetcher(
        placement,
        QUIET,
        tasks.spawn,
        lambda: ClientClosed("closed"),
        log=LOG,
        outage_at=Outages(LOG).of_server,
        lookups=outage(),
    )
    try:
        yield fetcher
    finally:
        tasks.closed = True
        await fetcher.close()
        for task in tasks.all:
            task.cancel()
        await asyncio.wait(tasks.all)


def follow(fetcher: Fetcher, stream: str, position: str = START) -> Cursor:
    return fetcher.follow(stream, position, Count(UNKNOWN, position), lambda history: None)


async def take(cursor: Cursor) -> list[Any]:
    """What comes next."""
    waiter = asyncio.get_running_loop().create_future()
    cursor.want(waiter)
    async with asyncio.timeout(5):
        await waiter
    return cursor.take()


def numbers(items: list[Any]) -> list[int]:
    return [int(item.fields[b"n"]) for item in items]


async def test_what_is_there_is_read_in_order_and_then_what_comes(fetcher: Fetcher, redis: Connection) -> None:
    for number in range(3):
        await redis.xadd("call-1", {"n": number})
    cursor = follow(fetcher, "call-1")
    assert numbers(await take(cursor)) == [0, 1, 2]
    later = asyncio.create_task(take(cursor))
    await wait_until(lambda: cursor.waiting, "it waits")
    await redis.xadd("call-1", {"n": 3})
    assert numbers(await later) == [3]


async def test_reading_begins_behind_a_position(fetcher: Fetcher, redis: Connection) -> None:
    ids = [await redis.xadd("call-1", {"n": number}) for number in range(3)]
    first = ids[0].decode() if isinstance(ids[0], bytes) else str(ids[0])
    assert numbers(await take(follow(fetcher, "call-1", first))) == [1, 2]


async def test_any_number_of_streams_need_two_connections(
    fetcher: Fetcher, redis: Connection, server: Server
) -> None:
    streams = [f"call-{number}" for number in range(50)]
    cursors = [follow(fetcher, stream) for stream in streams]
    waiting = [asyncio.create_task(take(cursor)) for cursor in cursors]
    await wait_until(lambda: all(cursor.waiting for cursor in cursors), "all wait")
    for stream in streams:
        await redis.xadd(stream, {"n": 1})
    assert all(numbers(items) == [1] for items in await asyncio.gather(*waiting))
    roles = sorted(name for client in clients_of(server) if ":" in (name := client["name"]))
    assert roles == ["redis_stream_client:entries", "redis_stream_client:wake-ups"]


async def test_who_waits_for_what_is_no_stream_is_told_and_no_other(fetcher: Fetcher, redis: Connection) -> None:
    await redis.set("call-1", "no stream")
    await redis.xadd("call-2", {"n": 2})
    bad, good = follow(fetcher, "call-1"), follow(fetcher, "call-2")
    outcomes = await asyncio.gather(take(bad), take(good), return_exceptions=True)
    assert "call-1" in str(outcomes[0])
    assert isinstance(outcomes[1], list)
    assert numbers(outcomes[1]) == [2]


async def test_a_cursor_that_is_closed_is_read_no_more(fetcher: Fetcher, redis: Connection) -> None:
    cursor, other = follow(fetcher, "call-1"), follow(fetcher, "call-1")
    waiter = asyncio.get_running_loop().create_future()
    cursor.want(waiter)
    cursor.close()
    reading = asyncio.create_task(take(other))
    await redis.xadd("call-1", {"n": 1})
    assert numbers(await reading) == [1]
    assert cursor.take() == []
    waiter.cancel()


async def test_behind_the_end_nothing_is_read(fetcher: Fetcher, tasks: Tasks, redis: Connection) -> None:
    await redis.xadd("call-1", {"n": 1})
    assert numbers(await take(follow(fetcher, "call-1"))) == [1]
    await fetcher.close()
    for server_task in tasks.all:
        server_task.cancel()
    tasks.closed = True
    await asyncio.wait(tasks.all)
    assert fetcher.oldest_unread(0.0) is None
