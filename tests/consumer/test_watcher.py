"""Who watches, and who is deposed: on a real server."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

LONG = 10.0
"""A lock's lifetime that no test waits for."""


async def all_watched(redis: Connection, service: str, members: int, *watchers: Member) -> None:
    """Wait until so many are present, and one of these watches them."""

    async def watched() -> bool:
        presences = [each.client.statistics().presence for each in watchers]
        seen = any(each.watching and each.members == members for each in presences)
        return seen and await redis.hlen(Keys(service).present) == members

    await wait_until(watched, "somebody watches", timeout=10)


async def test_a_process_that_is_killed_is_noticed_long_before_its_lock_expires(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        Worker(url=server.url, service=service, lock_ttl=LONG) as worker,
        Member(server.url, service, lock_ttl=LONG, max_streams=1) as one,
        Member(server.url, service, lock_ttl=LONG, max_streams=1) as two,
    ):
        await worker.joined()
        await all_watched(redis, service, 3, one, two)
        await announce(server.url, service, *(f"call-{n}" for n in range(8)))
        await wait_until(lambda: sum(each.event == "added" for each in worker.events) == 6, "it owns most")
        before, killed = len(one.leases) + len(two.leases), time.monotonic()
        worker.kill()
        await wait_until(
            lambda: len(one.leases) + len(two.leases) == before + 6, "the peers have its streams", timeout=5
        )
        assert time.monotonic() - killed < LONG / 4
        assert not await redis.exists(Keys(service).lock(worker.client))
        presences = [each.client.statistics().presence for each in (one, two)]
        assert sum(each.deposed for each in presences) == 1


async def test_when_the_one_that_watches_dies_another_one_does(
    server: Server, redis: Connection, service: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(Worker(url=server.url, service=service, lock_ttl=LONG))
            for _ in range(3)
        ]
        member = await stack.enter_async_context(Member(server.url, service, lock_ttl=LONG))
        for worker in workers:
            await worker.joined()
        keys = Keys(service)

        async def watcher() -> Worker | None:
            name = await redis.get(keys.watch)
            if await redis.hlen(keys.present) == len(alive) + 1:
                return next((each for each in alive if name and each.client == name.decode()), None)
            return None

        alive = [*workers]
        # Whoever looks first watches: have the member look last.
        await redis.delete(keys.watch)
        for _ in range(2):
            if member.client.statistics().presence.watching:
                break
            worker = await wait_until(watcher, "a worker watches", timeout=10)
            alive.remove(worker)
            killed = time.monotonic()
            worker.kill()

            async def gone(lock: str = keys.lock(worker.client)) -> bool:
                return not await redis.exists(lock)

            await wait_until(gone, "it is deposed", timeout=5)
            assert time.monotonic() - killed < LONG / 4


async def test_a_process_that_is_stopped_is_not_deposed(server: Server, redis: Connection, service: str) -> None:
    async with (
        Worker(url=server.url, service=service, lock_ttl=2.0) as worker,
        Member(server.url, service, lock_ttl=2.0) as member,
    ):
        await worker.joined()
        await all_watched(redis, service, 2, member)
        worker.freeze()
        lock = Keys(service).lock(worker.client)
        frozen = time.monotonic()

        async def gone() -> bool:
            return not await redis.exists(lock)

        await wait_until(gone, "its lock expires", timeout=5)
        assert time.monotonic() - frozen > 1.0
        assert member.client.statistics().presence.deposed == 0


async def test_old_members_without_presence_are_not_missed(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        Member(server.url, service, lock_ttl=LONG, presence=False) as old,
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        await all_watched(redis, service, 2, one, two)
        await redis.client_kill_filter(_type="pubsub")
        await wait_until(lambda: old.client.statistics().reconnects, "it was cut off, too")
        await all_watched(redis, service, 2, one, two)
        assert old.client.statistics().lapses == 0
        assert old.client.alive


async def test_a_lone_client_looks_rarely_and_at_once_when_another_one_comes(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=LONG) as one:
        await wait_until(lambda: one.client.statistics().presence.members == 1, "it has looked", timeout=5)
        async with Member(server.url, service, lock_ttl=LONG) as two:
            began = time.monotonic()
            await wait_until(lambda: one.client.statistics().presence.members == 2, "it looks again", timeout=5)
            assert time.monotonic() - began < 1.0
            await wait_until(lambda: two.client.statistics().presence.members == 2, "so does the other", timeout=5)
