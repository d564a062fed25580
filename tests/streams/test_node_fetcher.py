"""Ring 2: the data streams on one server, without who has them read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from redis.asyncio import Redis

from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.entry import START
from redis_stream_client._model.gaps import UNKNOWN, Count
from redis_stream_client._redis.endpoint import Endpoint, endpoint_for
from redis_stream_client._redis.outage import Outages
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._streams import node_fetcher
from redis_stream_client._streams.cursor import Cursor
from redis_stream_client._streams.node_fetcher import NodeFetcher
from tests.harness.logs import LOG
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


class OneNode:
    """All servers there are: one, and what it said of itself."""

    def __init__(self, url: str) -> None:
        user_client = Redis.from_url(url)
        endpoint = endpoint_for(user_client, "orders-input")
        self.doubts = 0
        self.ended = False
        self.repeated = 0
        self.fetcher = NodeFetcher(
            self,
            endpoint,
            placement_for(user_client, endpoint),
            0.5,
            None,
            log=LOG,
            outage_at=Outages(LOG).of_server,
        )
        self.tasks = [start_task(part.run(), "fetching") for part in (self.fetcher.tracking, self.fetcher)]

    def read(self, cursor: Cursor) -> None:
        self.fetcher.read(cursor)

    def forget(self, cursor: Cursor) -> None:
        self.fetcher.remove(cursor)

    def doubt(self) -> None:
        self.doubts += 1

    def look_around(self) -> None:
        pass

    def unused(self, reading: NodeFetcher) -> None:
        self.ended = reading is self.fetcher

    def shrunk(self) -> None:
        self.repeated += 1

    def renewed(self, endpoint: Endpoint, history: str) -> None:
        pass

    def follow(self, stream: str) -> Cursor:
        return Cursor(self, stream, START, Count(UNKNOWN, START), lambda history: None)

    async def take(self, cursor: Cursor) -> list[Any]:
        """What comes next."""
        waiter = asyncio.get_running_loop().create_future()
        cursor.want(waiter)
        async with asyncio.timeout(5):
            await waiter
        return cursor.take()

    async def close(self) -> None:
        await stop(*self.tasks)
        await self.fetcher.close()


@pytest_asyncio.fixture
async def node(proxy: TcpProxy) -> AsyncGenerator[OneNode]:
    node = OneNode(proxy.url)
    try:
        yield node
    finally:
        await node.close()


async def test_who_wants_entries_at_the_same_time_shares_a_command(
    node: OneNode, redis: Connection, server: Server
) -> None:
    for number in range(20):
        await redis.xadd(f"call-{number}", {"n": number})
    before = server.command("INFO", "commandstats").get("cmdstat_xread", {"calls": 0})["calls"]
    cursors = [node.follow(f"call-{number}") for number in range(20)]
    taken = await asyncio.gather(*map(node.take, cursors))
    assert [len(items) for items in taken] == [1] * 20
    assert server.command("INFO", "commandstats")["cmdstat_xread"]["calls"] - before == 1


async def test_a_read_without_an_answer_is_repeated(node: OneNode, redis: Connection, proxy: TcpProxy) -> None:
    await redis.xadd("call-1", {"n": 1})
    cursor = node.follow("call-1")
    proxy.drop_replies_after(b"XREAD", connections=1)
    assert len(await node.take(cursor)) == 1
    assert node.doubts
    assert node.repeated


async def test_two_that_follow_one_stream_are_served_both(node: OneNode, redis: Connection) -> None:
    await redis.xadd("call-1", {"n": 1})
    cursors = [node.follow("call-1"), node.follow("call-1")]
    assert [len(items) for items in await asyncio.gather(*map(node.take, cursors))] == [1, 1]
    assert node.fetcher.cursors == cursors


async def test_a_server_that_nothing_is_read_from_is_left(
    node: OneNode, redis: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_fetcher, "UNUSED", 0.05)
    await redis.xadd("call-1", {"n": 1})
    cursor = node.follow("call-1")
    await node.take(cursor)
    cursor.close()
    assert node.fetcher.cursors == []
    await wait_until(lambda: node.ended, "it ends")
