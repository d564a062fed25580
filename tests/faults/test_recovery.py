"""Ring 3: a thousand streams of a killed holder, under everything that makes recovery hard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamExpired
from redis_stream_client._consumer import sweeper
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member
from tests.harness.flow import lateness
from tests.harness.scenes import die_with, next_event
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

STREAMS = 1000
PEERS = 4
TTL_KEYS = 200_000

FILL = """
for i = ARGV[1], ARGV[2] do redis.call('SET', 'cache:' .. i, 'x', 'PX', 60000 + i % 100000) end
"""


@contextlib.asynccontextmanager
async def trouble(kind: str, server: Server, redis: Connection) -> AsyncGenerator[dict[str, Any]]:
    """Make recovery hard in one way; yields what members must connect with."""
    url = server.url
    cutting: asyncio.Task[None] | None = None
    match kind:
        case "a cache beside it":
            for start in range(0, TTL_KEYS, 20_000):
                await redis.eval(FILL, 0, start, start + 19_999)
        case "no CONFIG":
            await redis.execute_command("ACL", "SETUSER", "member", "on", ">pw", "~*", "&*", "+@all", "-config")
            url = url.replace("://", "://member:pw@")
        case "pub/sub cut 50 times a second":
            cutting = asyncio.create_task(_cut(redis))
        case _:
            pass
    try:
        yield {"url": url}
    finally:
        if cutting is not None:
            await stop(cutting)
        if "member" in url:
            await redis.execute_command("ACL", "DELUSER", "member")


async def _cut(redis: Connection) -> None:
    while True:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.02)


class Watch:
    """Peers that only listen, so that the offers are timed and not the claims."""

    def __init__(self, peers: list[Member]) -> None:
        self._peers = peers

    def offered(self, owner: str) -> set[str]:
        """The streams of this owner that at least one peer was offered."""
        return {
            payload.stream for peer in self._peers for payload in peer.expired if payload.previous_owner == owner
        }

    async def all_offered(self, owner: str) -> float:
        """Wait until every stream of `owner` is offered; returns when that was."""
        await wait_until(lambda: len(self.offered(owner)) == STREAMS, "all are offered", 30)
        return time.time()


CASES = [
    (2.0, "a cache beside it"),
    (0.8, "nothing special"),
    (0.8, "a cache beside it"),
    (0.8, "notifications off"),
    (0.8, "no CONFIG"),
    (0.8, "pub/sub cut 50 times a second"),
]


@pytest.mark.long
@pytest.mark.parametrize(("lock_ttl", "kind"), CASES)
async def test_all_streams_of_a_killed_holder_are_offered_in_time_and_each_is_taken_once(
    server: Server,
    redis: Connection,
    service: str,
    start_worker: Callable[..., Awaitable[Worker]],
    lock_ttl: float,
    kind: str,
) -> None:
    """The bound is that of guarantee G3. What it takes to tell four peers of a thousand streams, however they
    lost their owner, is measured in the same run: a holder that leaves in an orderly way; and so is how late the
    loop of the peers was. Without presence: its lock must expire, as that of a process that was frozen."""
    async with trouble(kind, server, redis) as connect, contextlib.AsyncExitStack() as stack:
        leaver = await (await start_worker(**connect, lock_ttl=lock_ttl)).joined()
        names = [f"call-{i}" for i in range(STREAMS)]
        await LoadBalancerStream(redis, service).add_many(names)
        await wait_until(lambda: _count(leaver, "added") == STREAMS, "the first holder has all")
        peers = [
            await stack.enter_async_context(Member(connect["url"], service, claim=False, lock_ttl=lock_ttl))
            for _ in range(PEERS)
        ]
        watch = Watch(peers)
        leaver.terminate()
        left = await leaver.wait_for_event(lambda event: event.event == "left")
        telling = await watch.all_offered(leaver.client) - left.time

        victim = await (await start_worker(**connect, lock_ttl=lock_ttl, presence=False)).joined()
        await wait_until(lambda: _count(victim, "claimed") == STREAMS, "the second holder has all", 30)
        if kind == "notifications off":
            await redis.config_set("notify-keyspace-events", "")
        lock = f"{{{service}-input}}:lock:{victim.client}"
        victim.kill()
        async with lateness(redis) as slowest:
            expiry = time.time() + await redis.pttl(lock) / 1000
            late = await watch.all_offered(victim.client) - expiry
        assert late > -0.05
        assert late < lock_ttl / 4 + 2 * telling + 0.1 + slowest(), (
            f"{late:.2f} s late; telling alone took {telling:.2f} s, the loop and Redis {slowest():.2f} s"
        )

        for peer in peers:
            peer.claims_now()
        await wait_until(lambda: sum(len(peer.leases) for peer in peers) >= STREAMS, "all are taken", 30)
        taken = [lease for peer in peers for lease in peer.leases]
        assert sorted(lease.stream for lease in taken) == sorted(names)
        assert {lease.deliveries for lease in taken} == {3}
        if kind in ("notifications off", "no CONFIG"):  # nobody turned them on again
            assert server.command("CONFIG", "GET", "notify-keyspace-events") == {b"notify-keyspace-events": b""}


def _count(worker: Worker, event: str) -> int:
    return sum(report.event == event for report in worker.events)


async def test_the_last_one_of_a_large_fleet_offers_in_time_though_it_asks_for_the_turn_rarely(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no expiry is it told; and while the others lived, one of them had the turn whenever it asked."""
    monkeypatch.setattr(sweeper, "LARGE", 0.001)
    lock_ttl, ghost_ttl = 2.0, 0.6  # in which it asks at least once
    async with RedisStreamClient.from_url(server.url, service, lock_ttl=lock_ttl) as last:
        await redis.config_set("notify-keyspace-events", "")
        for number in range(5):
            await redis.set(Keys(service).sweep, "another's", px=round(1000 * ghost_ttl))
            await die_with(redis, service, f"call-{number}", lock_ttl=ghost_ttl)
            async with lateness(redis) as slowest:
                expiry = time.monotonic() + ghost_ttl
                await next_event(last, StreamExpired, f"call-{number}")
                late = time.monotonic() - expiry
            assert late < lock_ttl / 4 + 0.1 + slowest(), f"{late:.2f} s late; the loop, {slowest():.2f} s"
