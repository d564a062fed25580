"""Scenes that every deployment of Redis must allow: a consumer that dies, and a stream's whole life."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, TypeVar

from redis_stream_client import Event, Lease, LoadBalancerStream, RedisStreamClient, StreamAdded, StreamExpired
from redis_stream_client._model.keys import Keys
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection

E = TypeVar("E", bound=Event)

# One step, so that no blocked consumer gets the announcement before the one that is to die.
TAKE_AND_DIE = """
    redis.call('XADD', KEYS[1], '*', 'lbs-input', ARGV[4])
    redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'STREAMS', KEYS[1], '>')
    redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[3])
"""


async def die_with(redis: Connection, service: str, stream: str, *, lock_ttl: float = 0.3) -> str:
    """Announce `stream` to a consumer that takes it, lives on for `lock_ttl` seconds, and is never heard again.

    Returns its id. The group must exist.
    """
    keys = Keys(service)
    consumer = f"redis-consumer-ghost-{secrets.token_hex(4)}"
    milliseconds = round(lock_ttl * 1000)
    arguments = [keys.group, consumer, milliseconds]
    arguments += [json.dumps({"DataStreamName": stream}), json.dumps({"ttl": milliseconds})]
    await redis.eval(TAKE_AND_DIE, 2, keys.lbs, keys.lock(consumer), *arguments)
    return consumer


async def next_event(
    client: RedisStreamClient, kind: type[E], stream: str | None = None, *, timeout: float = 15.0
) -> E:
    """Return the client's next event of this kind, and about this stream if one is named; skip others."""
    async with asyncio.timeout(timeout):
        async for event in client.events():
            if isinstance(event, kind) and stream in (None, event.payload.stream):
                return event
    raise AssertionError(f"the events ended before a {kind.__name__} came")


async def claim_next(client: RedisStreamClient, stream: str, *, timeout: float = 15.0) -> Lease:
    """Claim `stream` when it is offered."""
    return await client.claim((await next_event(client, StreamExpired, stream, timeout=timeout)).payload)


async def time_passes(seconds: float, *clients: RedisStreamClient) -> None:
    """So much time, in which these clients beat on: for seeing that something does not happen."""
    end = time.monotonic() + seconds
    beats = [client.statistics().beats for client in clients]
    await wait_until(
        lambda: (
            time.monotonic() >= end
            and all(client.statistics().beats > n for client, n in zip(clients, beats, strict=True))
        ),
        "the hearts beat on",
        timeout=seconds + 10,
    )


async def live_through_it(client: RedisStreamClient, redis: Connection, service: str) -> None:
    """Let a joined client finish one stream that it gets, and one that it claims from a dead peer.

    `redis` may be any connection to the same server or cluster, also the one that the client was made from.
    """
    await LoadBalancerStream(redis, service).add("finished", {"number": 1})
    added = await next_event(client, StreamAdded, "finished")
    assert added.payload.info == {"number": 1}
    async with added.payload:
        pass
    ghost = await die_with(redis, service, "orphaned")
    offer = await next_event(client, StreamExpired, "orphaned")
    assert offer.payload.previous_owner == ghost
    await client.done(await client.claim(offer.payload))
    assert not client.leases
    assert await redis.xlen(Keys(service).lbs) == 0


async def release_and_retake(client: RedisStreamClient, redis: Connection, service: str) -> None:
    """Let a joined client give a stream back, which it is offered again after `lock_ttl`, and finish it then."""
    await LoadBalancerStream(redis, service).add("released")
    added = await next_event(client, StreamAdded, "released")
    await added.payload.release()
    again = await claim_next(client, "released")
    assert again.fence > added.payload.fence
    await again.done()


async def bury_one(client: RedisStreamClient, redis: Connection, service: str) -> None:
    """Announce what nobody can read, and wait until it is among the dead letters."""
    before = client.statistics().dead_letters
    await redis.xadd(Keys(service).lbs, {"lbs-input": "not JSON"})
    await wait_until(lambda: client.statistics().dead_letters > before, "it was buried")
    assert await redis.xlen(Keys(service).dead) >= 1
