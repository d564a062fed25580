"""Announcements whose ids no clock has made: a producer may choose the id of what it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Fleet
from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.entry import GREATEST
from redis_stream_client._model.keys import Keys
from tests.harness.runs import Running, owners
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

TTL: dict[str, Any] = {"lock_ttl": 0.6}


async def announce_as(redis: Connection, service: str, stream: str, lbs_id: str) -> None:
    await redis.xadd(Keys(service).lbs, {FIELD: encode(stream, None)}, id=lbs_id)


async def test_the_smallest_id_is_announced_owned_and_kept_like_any_other(
    server: Server, redis: Connection, service: str
) -> None:
    """Joining has no effect on it, though it tries out all commands."""
    await announce_as(redis, service, "call-1", "0-1")
    async with Running(server.url, service, **TTL) as first:
        await first.handles("call-1")
        async with Running(server.url, service, **TTL):
            assert await owners(redis, service) == {"0-1": first.client.id}
            assert await redis.xlen(Keys(service).lbs) == 1
            assert len(first.leases) == 1


@pytest.mark.parametrize("count", [1, 16])
async def test_nothing_is_behind_the_greatest_id_and_nobody_looks_there(
    server: Server, redis: Connection, service: str, count: int
) -> None:
    """`count`: with as many in a piece as scripts read at once, or fewer."""
    keys, streams = Keys(service), sorted(f"call-{n}" for n in range(count))
    for stream, lbs_id in zip(streams, [*(f"{n}-0" for n in range(1, count)), GREATEST], strict=True):
        await announce_as(redis, service, stream, lbs_id)
    fleet = Fleet(redis, service)
    assert (await fleet.status()).waiting == count
    assert sorted([str(each.stream) async for each in fleet.streams()]) == streams
    async with Running(server.url, service, **TTL) as run:
        await run.handles(*streams)
        status = await fleet.status()
        assert (status.waiting, status.owned) == (0, count)
        await redis.xgroup_delconsumer(keys.lbs, keys.group, run.client.id)
        await wait_until(lambda: len(run.leases) == 2 * count, "all are rescued")
        await run.handles(*streams)
        async with Running(server.url, service, **TTL) as heir:
            await run.client.aclose()
            await heir.handles(*streams)
            assert heir.client.alive
