"""What type checkers must understand of the public interface: mypy and pyright read this, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never, assert_type

from redis_stream_client import (
    Event,
    EventIterator,
    ExpiredStream,
    Fence,
    Lease,
    LoadBalancerStream,
    LossReason,
    RedisStreamClient,
    Statistics,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis


def events_are_a_closed_union(event: Event) -> None:
    match event:
        case StreamAdded(lease):
            assert_type(lease, Lease)
        case StreamExpired(stream):
            assert_type(stream, ExpiredStream)
            assert_type(stream.previous_owner, str | None)
        case StreamDisowned(lease, reason):
            assert_type(lease, Lease)
            assert_type(reason, LossReason)
        case _:
            assert_never(event)


async def results_have_their_types(redis: Redis, stream: ExpiredStream) -> None:
    client = RedisStreamClient.from_url("redis://localhost", "orders", lock_ttl=1.0, max_streams=None)
    async with client as entered:
        assert_type(entered, RedisStreamClient)
    assert_type(client.events(), EventIterator)
    assert_type(await anext(client.events()), Event)
    lease = await client.claim(stream)
    assert_type(lease, Lease)
    assert_type(lease.info, Mapping[str, Any] | None)
    assert_type(lease.fence < lease.fence, bool)
    assert_type(lease.fence, Fence)
    assert_type(await lease.lost(), LossReason)
    assert_type(client.leases, Mapping[str, Lease])
    assert_type(client.statistics(), Statistics)
    assert_type(await LoadBalancerStream(redis, "orders").add("call-17", {"caller": "Ada"}), str)
    assert_type(await LoadBalancerStream(redis, "orders").add_many(["call-18", ("call-19", None)]), list[str])
