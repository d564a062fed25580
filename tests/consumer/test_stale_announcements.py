"""Stale announcements: what others left in the hash is forgotten, soon where it is much."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._consumer import stale_announcements
from redis_stream_client._consumer.stale_announcements import StaleAnnouncements
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.base import PAGE
from tests.harness.fleet import Member
from tests.harness.logs import LOG
from tests.harness.parts import joined
from tests.harness.runs import calls
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_a_member_forgets_what_was_finished_elsewhere(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    [trimmed, waiting] = await LoadBalancerStream(redis, service).add_many(["trimmed", "waiting"])
    await redis.xdel(keys.lbs, trimmed)
    async with Member(server.url, service, lock_ttl=0.4) as member:
        await member.owns("waiting")

        async def forgotten() -> bool:
            return not await redis.hexists(keys.announced, "trimmed")

        await wait_until(forgotten, "the trimmed one is forgotten")
    assert await redis.hgetall(keys.announced) == {b"waiting": waiting.encode()}


@pytest.mark.parametrize("again", [False, True])
async def test_while_none_need_be_stale_none_is_looked_up(
    server: Server, redis: Connection, service: str, again: bool
) -> None:
    await LoadBalancerStream(redis, service).add("call-1", again=again)
    async with Member(server.url, service, lock_ttl=0.4) as member:
        await member.owns("call-1")
        before, scanned = await calls(redis, "hlen"), await calls(redis, "hscan")

        async def tidied() -> bool:
            return await calls(redis, "hlen") >= before + 4

        await wait_until(tidied, "it has tidied up", timeout=10)
    assert await calls(redis, "hscan") == scanned


async def test_much_that_is_stale_goes_in_one_turn_and_little_takes_one_page(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with joined(server.url, service, lock_ttl=60.0) as parts:
        stale = StaleAnnouncements(log=LOG, options=parts.options, group=parts.group)
        await redis.hset(keys.announced, mapping={f"stale-{n}": f"1-{n}" for n in range(1, 10 * PAGE)})
        await stale.forget()
        assert await redis.hlen(keys.announced) == 0
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(4 * PAGE)])
        before = await calls(redis, "hscan")
        await stale.forget()
        await stale.forget()
        assert await calls(redis, "hscan") == before + 2
        assert await redis.hlen(keys.announced) == 4 * PAGE


async def test_the_next_turn_goes_on_where_the_last_one_ended(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with joined(server.url, service, lock_ttl=60.0) as parts:
        lbs_ids = await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(4 * PAGE)])
        last = [stream async for stream, _ in redis.hscan_iter(keys.announced)][-1]
        await redis.hset(keys.announced, last, "1-1")
        stale = StaleAnnouncements(log=LOG, options=parts.options, group=parts.group)
        for _ in range(8):
            await stale.forget()
        assert await redis.hlen(keys.announced) == len(lbs_ids) - 1
        assert not await redis.hexists(keys.announced, last)


async def test_a_turn_is_bounded(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale_announcements, "PAGES", 2)
    keys = Keys(service)
    async with joined(server.url, service, lock_ttl=60.0) as parts:
        stale = StaleAnnouncements(log=LOG, options=parts.options, group=parts.group)
        await redis.hset(keys.announced, mapping={f"stale-{n}": f"1-{n}" for n in range(1, 10 * PAGE)})
        before = await redis.hlen(keys.announced)
        await stale.forget()
        assert 0 < before - await redis.hlen(keys.announced) < 6 * PAGE
        for _ in range(10):
            await stale.forget()
        assert await redis.hlen(keys.announced) == 0


async def test_a_hash_that_cannot_be_looked_through_is_said_once(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "redis_stream_client")
    await redis.set(Keys(service).announced, "text")
    async with joined(server.url, service, lock_ttl=60.0) as parts:
        stale = StaleAnnouncements(log=LOG, options=parts.options, group=parts.group)
        await stale.forget()
        await stale.forget()
    [warning] = [record.getMessage() for record in caplog.records if "cannot be forgotten" in record.getMessage()]
    assert "WRONGTYPE" in warning
