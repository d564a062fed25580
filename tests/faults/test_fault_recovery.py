"""Ring 3: the streams of a dead consumer are handled by the peers in `run()` in time, whatever makes it hard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.keys import Keys
from tests.faults.test_recovery import trouble
from tests.harness.flow import lateness
from tests.harness.runs import Running, owners
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import bodies, fleet, ghost

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

STREAMS = 300
TTL = 1.0


async def taken(streams: list[str], *peers: Running) -> float:
    """Wait until handlers work on all of these; returns when that was."""
    wanted = set(streams)
    await wait_until(
        lambda: wanted <= {stream for peer in peers for stream in peer.working}, "all are handled", timeout=20
    )
    return time.time()


@pytest.mark.parametrize(
    "kind", ["a cache beside it", "notifications off", "no CONFIG", "pub/sub cut 50 times a second"]
)
async def test_the_streams_of_a_dead_one_are_handled_in_time_and_by_one_each(
    server: Server, redis: Connection, service: str, kind: str
) -> None:
    """The bound is that of guarantee G3. What it takes to begin with so many streams, however they lost their
    owner, is measured in the same run: a consumer that leaves in an orderly way."""
    keys = Keys(service)
    async with trouble(kind, server, redis) as connect:
        one, other = (Running(connect["url"], service, lock_ttl=TTL) for _ in range(2))
        async with fleet(one, other):
            first = [f"before-{i}" for i in range(STREAMS)]
            leaver = await ghost(redis, service, bodies(first), lives=60)
            async with redis.pipeline(transaction=True) as leaves:
                leaves.delete(keys.lock(leaver)).publish(keys.control, f"left {leaver}")
                await leaves.execute()
            left = time.time()
            beginning = await taken(first, one, other) - left

            if kind == "notifications off":
                await redis.config_set("notify-keyspace-events", "")
            streams = [f"call-{i}" for i in range(STREAMS)]
            dead = await ghost(redis, service, bodies(streams), lives=TTL)
            async with lateness(redis) as slowest:
                expiry = time.time() + await redis.pttl(keys.lock(dead)) / 1000
                late = await taken(streams, one, other) - expiry
            assert late < TTL / 4 + 2 * beginning + 0.1 + slowest(), (
                f"{late:.2f} s late; beginning alone took {beginning:.2f} s; the loop was {slowest():.2f} s late"
            )

            leases = [lease for peer in (one, other) for lease in peer.leases]
            assert sorted(lease.stream for lease in leases) == sorted(first + streams)
            assert set((await owners(redis, service)).values()) == {one.client.id, other.client.id}
            if kind in ("notifications off", "no CONFIG"):  # nobody turned them on again
                assert await redis.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}
