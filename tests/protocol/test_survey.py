"""A survey: the group, its members and their locks at one moment, in bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import RedisRejected
from redis_stream_client._protocol import survey
from redis_stream_client._protocol.base import ABSENT, encode_name
from redis_stream_client._protocol.survey import Findings, Survey, explore
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls
from tests.harness.masses import make_members, make_streams
from tests.harness.slowlog import slowest_ms
from tests.protocol.consumer import SOON

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server
    from tests.protocol.consumer import Consumer


async def look(a: Consumer) -> Findings:
    keys = a.keys
    return await explore(ScriptCalls(a.redis, Pooled(a.redis, keys.lbs), keys.lbs), keys)


def pending(found: Survey) -> dict[str, tuple[int, bool]]:
    """Of each consumer, what is pending, and whether it lives."""
    return {seen.name: (seen.pending, seen.life_ms != ABSENT) for seen in found.consumers}


async def test_who_lives_and_what_is_pending_for_whom(a: Consumer, b: Consumer) -> None:
    await a.take(3)
    [released] = await b.take(1)
    await b.take(1)
    await b.deliveries.release([(released, 1)], SOON)
    waiting = await a.announce(2)
    await b.die()
    findings = await look(a)
    assert pending(findings.survey) == {a.id: (3, True), b.id: (1, False), "nobody": (1, False)}
    assert (findings.survey.entries, findings.survey.pending, findings.survey.waiting) == (7, 5, 2)
    assert findings.survey.oldest_waiting == waiting[0]
    assert set(findings.values) == {a.id}
    assert findings.letters == 0
    assert findings.present == set()
    assert isinstance(findings.released_ms, int)


async def test_nothing_is_created(redis: Connection, a: Consumer) -> None:
    await redis.flushdb()
    findings = await look(a)
    assert not findings.survey.exists
    await redis.xadd(a.keys.lbs, {"n": 1})
    findings = await look(a)
    assert (findings.survey.exists, findings.survey.waiting) == (False, 1)
    assert await redis.keys() == [a.keys.lbs.encode()]
    assert await redis.xinfo_groups(a.keys.lbs) == []


@pytest.mark.parametrize("most", [1, 2, 100])
async def test_locks_are_looked_at_in_pages_whoever_joins(
    a: Consumer, server: Server, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(survey, "LOCKS", most)
    await a.redis.flushdb()
    make_members(server, a.options.keys.service, 5)
    stranger = b"\xff".decode(errors="surrogateescape")
    await a.redis.xgroup_createconsumer(a.keys.lbs, a.keys.group, encode_name(stranger))
    findings = await look(a)
    assert pending(findings.survey) == {**{f"member-{n}": (0, True) for n in range(5)}, stranger: (0, False)}
    assert len(findings.values) == 5
    assert findings.present == {f"member-{n}" for n in range(5)}


async def test_what_is_no_lock_of_ours(a: Consumer) -> None:
    await a.redis.delete(a.lock_key)
    await a.redis.hset(a.lock_key, "a", 1)
    findings = await look(a)
    [seen] = findings.survey.consumers
    assert seen.life_ms == -1
    assert findings.values == {}


async def test_many_that_wait_are_not_counted_one_by_one(a: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "WAITING_COUNTED", 16)
    await a.announce(15)
    survey_taken = (await look(a)).survey
    assert (survey_taken.waiting, survey_taken.more) == (15, False)
    await a.announce(10)
    survey_taken = (await look(a)).survey
    assert (survey_taken.waiting, survey_taken.more) == (16, True)


async def test_other_types(a: Consumer) -> None:
    await a.redis.set(a.keys.dead, "text")
    await a.redis.set(a.keys.present, "text")
    findings = await look(a)
    assert isinstance(findings.letters, RedisRejected)
    assert isinstance(findings.present, RedisRejected)
    await a.redis.set(a.keys.lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await look(a)


async def test_a_thousand_members_hold_redis_up_for_some_milliseconds(a: Consumer, server: Server) -> None:
    service = a.options.keys.service
    await a.redis.flushdb()
    make_members(server, service, 1_000)
    make_streams(server, service, 10_000, members=1_000)
    make_streams(server, service, 2_000, members=0)
    assert len((await look(a)).survey.consumers) == 1_000
    assert await slowest_ms(server, lambda: look(a), limit=10) < 10
