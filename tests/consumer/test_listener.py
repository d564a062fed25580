"""What the listener hears: missing notification flags are added, none is removed; a half-open line is noticed."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream, RedisStreamClient
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.hints import Taken, encode
from tests.harness.fleet import Member
from tests.harness.leases import left_to_others
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


def expand(flags: str) -> set[str]:
    return set(flags.replace("A", "g$lshzxetd"))


@pytest.mark.parametrize("before", ["", "Kg", "Ex", "El", "KA", *map("".join, combinations("KE$", 3))])
async def test_joining_leaves_every_flag_that_was_there(redis: Connection, service: str, before: str) -> None:
    await redis.config_set("notify-keyspace-events", before)
    was = expand((await redis.config_get("notify-keyspace-events"))["notify-keyspace-events"])

    async def flags() -> set[str]:
        return expand((await redis.config_get("notify-keyspace-events"))["notify-keyspace-events"])

    async with RedisStreamClient(redis, service):

        async def complete() -> bool:
            return {"K", "x"} <= await flags()

        await wait_until(complete, "the flags are there")
        assert await flags() == was | {"K", "x"}


async def test_a_half_open_listener_is_noticed(server: Server, proxy: TcpProxy, service: str) -> None:
    async with Member(proxy.url, service, lock_ttl=0.4) as member:
        gaps = member.client.statistics().reconnects
        fault = proxy.drop_replies_after(b"still there?", connections=1)
        await wait_until(lambda: fault.matched, "the listener asks")
        await wait_until(lambda: member.client.statistics().reconnects > gaps, "it connects anew")


async def test_what_an_operator_has_taken_is_left_to_others_and_looked_for_at_once(
    redis: Connection, service: str
) -> None:
    async with Member(redis, service, lock_ttl=30.0) as member:
        [mine, other] = await LoadBalancerStream(redis, service).add_many(["call-1", "call-2"])
        await wait_until(lambda: len(member.leases) == 2, "it has the streams")
        audits = member.client.statistics().audits
        for consumer, lbs_id in (("stranger", other), (member.client.id, mine), (member.client.id, "1-1")):
            await redis.publish(Keys(service).control, encode(Taken(consumer, (lbs_id,))))
        await wait_until(lambda: left_to_others(member.client) == [mine], "it leaves that one alone")
        await wait_until(lambda: member.client.statistics().audits > audits, "it compares its leases")
        assert len(member.client.leases) == 2, "a forged hint costs nothing"
