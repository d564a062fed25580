"""Who watches, and who is deposed: on a real server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.presence import LONG, lock_gone
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def all_watched(redis: Connection, service: str, members: int, *watchers: Member) -> None:
    """Wait until so many are present, and one of these watches them."""

    async def watched() -> bool:
        presences = [each.client.statistics().presence for each in watchers]
        seen = any(each.watching and each.members == members for each in presences)
        return seen and await redis.hlen(Keys(service).present) == members

    await wait_until(watched, "somebody watches", timeout=10)


async def all_present(redis: Connection, service: str, members: int) -> None:
    async def present() -> bool:
        keys = Keys(service)
        names = [keys.lock(name.decode()) for name in await redis.hkeys(keys.present)]
        return len(names) == members and await redis.exists(*names) == members

    await wait_until(present, f"{members} are present", timeout=10)


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
        assert time.monotonic() - killed < LONG / 2
        assert not await redis.exists(Keys(service).lock(worker.client))
        await wait_until(
            lambda: sum(each.client.statistics().presence.deposed for each in (one, two)) == 1,
            "one of them did it",
        )


async def test_when_the_one_that_watches_dies_another_one_does(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with Worker(url=server.url, service=service, lock_ttl=LONG) as watcher:
        await watcher.joined()

        async def watches() -> bool:
            return bool(await redis.get(keys.watch) == watcher.client.encode())

        await wait_until(watches, "the first one watches before others come", timeout=10)
        async with (
            Member(server.url, service, lock_ttl=LONG) as one,
            Member(server.url, service, lock_ttl=LONG) as two,
        ):
            await all_present(redis, service, 3)
            await wait_until(watches, "the first one watches", timeout=10)
            killed = time.monotonic()
            watcher.kill()
            await lock_gone(redis, service, watcher.client, timeout=5)
            assert time.monotonic() - killed < LONG / 2
            await all_watched(redis, service, 2, one, two)


async def test_a_process_that_is_stopped_is_not_deposed(server: Server, redis: Connection, service: str) -> None:
    async with (
        Worker(url=server.url, service=service, lock_ttl=2.0) as worker,
        Member(server.url, service, lock_ttl=2.0) as member,
    ):
        await worker.joined()
        await all_watched(redis, service, 2, member)
        worker.freeze()
        frozen = time.monotonic()
        assert await lock_gone(redis, service, worker.client, timeout=5) - frozen > 1.0
        assert member.client.statistics().presence.deposed == 0


async def test_a_frozen_watcher_is_replaced_and_takes_nobody_for_dead_when_it_wakes(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with Worker(url=server.url, service=service, lock_ttl=2.0) as watcher:
        await watcher.joined()

        async def watches() -> bool:
            return bool(await redis.get(keys.watch) == watcher.client.encode())

        await wait_until(watches, "the first one watches before others come", timeout=10)
        async with (
            Worker(url=server.url, service=service, lock_ttl=LONG) as victim,
            Member(server.url, service, lock_ttl=LONG) as one,
            Member(server.url, service, lock_ttl=LONG) as two,
        ):
            await victim.joined()
            await wait_until(watches, "the first one watches", timeout=10)
            await all_present(redis, service, 4)
            watcher.freeze()
            frozen = time.monotonic()

            async def replaced() -> bool:
                return await redis.get(keys.watch) not in (None, watcher.client.encode())

            await wait_until(replaced, "another one watches", timeout=5)
            victim.kill()
            await lock_gone(redis, service, victim.client, timeout=5)
            await lock_gone(redis, service, watcher.client, timeout=5)  # by its lock
            assert time.monotonic() - frozen > 1.0
            watcher.thaw()
            await all_present(redis, service, 3)
            await asyncio.sleep(1.5)  # time itself: it watches again, or could
            assert one.client.statistics().lapses == two.client.statistics().lapses == 0
            assert sum(each.client.statistics().presence.deposed for each in (one, two)) == 1


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
