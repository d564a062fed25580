"""Ring 3: presence beside members without it and strangers' data, on poor servers and on slow lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client._model.keys import Keys
from tests.faults.test_process_faults import lock_expiry
from tests.harness.fleet import Member, announce
from tests.harness.presence import (
    LONG,
    SOON,
    all_present,
    declared,
    deposed,
    lock_gone,
    nothing_is_lost,
    present,
    watches,
    withdrawn,
)
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

    StartWorker = Callable[..., Awaitable[Worker]]

BEATING: dict[str, Any] = {"lock_ttl": LONG, "heartbeat_interval": 0.5}
"""Of members whose doubts must be over soon."""


async def impossible(*members: Member) -> None:
    """Wait until all of these know that their presence cannot be declared."""
    await wait_until(
        lambda: {each.client.statistics().presence.state for each in members} == {"impossible"}, "all have noticed"
    )


async def cut_off(redis: Connection, *members: Member) -> None:
    """Have Redis cut all listeners, and wait until these have subscribed again."""
    before = [member.client.statistics().reconnects for member in members]
    await redis.client_kill_filter(_type="pubsub")
    await wait_until(
        lambda: all(m.client.statistics().reconnects > n for m, n in zip(members, before, strict=True)),
        "all are cut",
    )
    await wait_until(lambda: listeners(redis, len(members)), "they listen again")


async def listeners(redis: Connection, count: int) -> bool:
    return len(await redis.client_list(_type="pubsub")) >= count


async def share(url: str, service: str, *members: Member) -> list[list[str]]:
    """Announce streams, and wait until these own all of them. Returns what each has."""
    streams = [f"call-{n}" for n in range(4)]
    await announce(url, service, *streams, again=True)  # with no other command than XADD
    await wait_until(
        lambda: sorted(stream for member in members for stream in member.owned) == streams, "they own all"
    )
    return [member.owned for member in members]


async def works_on(members: Sequence[Member], shares: list[list[str]]) -> None:
    """See that nobody is in doubt, and that nothing was lost, now and after some more beats."""
    await wait_until(lambda: [member.owned for member in members] == shares, "they own what they owned")
    await time_passes(0.3, *(member.client for member in members))
    await wait_until(lambda: [member.owned for member in members] == shares, "they still do", timeout=0.5)
    assert [member.client.statistics().lapses for member in members] == [0] * len(members)


# Members without presence.


async def test_a_killed_member_without_presence_is_replaced_when_its_lock_expires(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """As an older version: the others do not miss it."""
    old = await (await start_worker(lock_ttl=2.0, presence=False)).joined()
    async with (
        Member(server.url, service, lock_ttl=2.0) as one,
        Member(server.url, service, lock_ttl=2.0) as two,
    ):
        await all_present(redis, service, one.client.id, two.client.id)
        old.kill()
        expiry = await lock_expiry(redis, service, old)
        await lock_gone(redis, service, old.client)
        assert time.time() > expiry - 0.05
        assert deposed(one, two) == 0


async def test_a_killed_member_whose_peers_have_no_presence_is_replaced_when_its_lock_expires(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """Nobody looks; and what it has declared is removed when the next one looks, and accuses nobody."""
    worker = await (await start_worker(lock_ttl=2.0)).joined()
    async with Member(server.url, service, lock_ttl=2.0, presence=False) as old:
        await all_present(redis, service, worker.client)
        worker.kill()
        expiry = await lock_expiry(redis, service, worker)
        await lock_gone(redis, service, worker.client)
        assert time.time() > expiry - 0.05
        async with Member(server.url, service, lock_ttl=2.0) as new:
            await all_present(redis, service, new.client.id)
            assert deposed(new) == 0
        assert old.client.statistics().lapses == 0


# Keys that hold what nobody of ours has written.


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_hash_of_presences_of_another_type_makes_presence_impossible_and_nothing_else(
    server: Server, redis: Connection, service: str, when: str
) -> None:
    key = Keys(service).present
    if when == "before":
        await redis.set(key, "what is this?")
    async with (
        Member(server.url, service, **BEATING) as one,
        Member(server.url, service, **BEATING) as two,
    ):
        both = (one, two)
        if when == "meanwhile":
            await declared(*both)
            await redis.set(key, "what is this?")
        await impossible(*both)
        shares = await share(server.url, service, *both)
        for _ in range(2):
            await cut_off(redis, *both)
            await impossible(*both)
            await works_on(both, shares)
        assert await redis.get(key) == b"what is this?"
        await redis.delete(key)
        await cut_off(redis, *both)
        await declared(*both)
        await works_on(both, shares)


async def test_a_key_of_who_watches_of_another_type_is_overwritten(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    key = Keys(service).watch
    await redis.rpush(key, "what is this?")
    worker = await (await start_worker(lock_ttl=LONG)).joined()
    async with Member(server.url, service, lock_ttl=LONG) as member:
        await wait_until(lambda: overwritten(redis, key), "somebody watches")
        await all_present(redis, service, worker.client, member.client.id)
        async with redis.pipeline(transaction=True) as change:
            change.delete(key)
            change.hset(key, "what", "is this?")
            await change.execute()
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < SOON


async def overwritten(redis: Connection, key: str) -> bool:
    return bool(await redis.type(key) == b"string")


GARBAGE = {
    b"": b"",
    b"\xff\xfe": b"\x00\x01",
    b"x" * 10_000: b"150",
    b"redis-consumer-a b-12345678": b"{run} {run}",
    b"redis-consumer-huge-12345678": b"{run} 99999999999999999999999999 1",
    b"redis-consumer-negative-12345678": b"{run} -1 1",
    b"redis-consumer-nobody-12345678": b"{run} 150 1",
    b"nobody": b"{run} 150 1",
    b"\xff": b"{run} 150 \xff",
}
"""What strangers may have written, some of it about this very run of the server."""


async def test_garbage_among_the_presences_accuses_nobody_and_is_removed(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    run: bytes = (await redis.info("server"))["run_id"].encode()
    garbage = {name: value.replace(b"{run}", run) for name, value in GARBAGE.items()}
    worker = await (await start_worker(lock_ttl=LONG)).joined()
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG, presence=False) as without,
    ):
        await all_present(redis, service, worker.client, one.client.id)
        await redis.hset(Keys(service).present, mapping=garbage)
        huge = "redis-consumer-huge-12345678"
        # More than half are absent.
        await wait_until(
            lambda: only(redis, service, worker.client, one.client.id, huge), "the rest is removed", timeout=10
        )
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < SOON
        assert without.client.statistics().lapses == one.client.statistics().lapses == 0
        await wait_until(lambda: deposed(one) == 1, "it is the only one")


async def only(redis: Connection, service: str, *names: str) -> bool:
    """Whether no others are present, or seem to be."""
    return set(await present(redis, service)) <= set(names)


async def test_a_flood_of_garbage_is_removed_and_delays_nothing_for_long(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    run = (await redis.info("server"))["run_id"]
    worker = await (await start_worker(lock_ttl=LONG)).joined()
    async with Member(server.url, service, lock_ttl=LONG) as one:
        await all_present(redis, service, worker.client, one.client.id)
        await watches(redis, service, one.client.id)
        async with nothing_is_lost(one):
            flood = {f"redis-consumer-flood-{i:08x}": f"{run} 150 1" for i in range(3_000)}
            await redis.hset(Keys(service).present, mapping=flood)
            await wait_until(
                lambda: only(redis, service, worker.client, one.client.id), "it is removed", timeout=10
            )
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < 2 * SOON


# Servers that lack something, or permit it no longer.


@pytest.mark.parametrize("command", ["PUBSUB", "HSET", "HDEL", "HGETALL"])
async def test_a_server_on_which_a_command_is_renamed_makes_presence_impossible(
    own_server: Callable[..., Server], service: str, command: str
) -> None:
    server = own_server("--rename-command", command, f"OUR{command}")
    async with (
        Redis.from_url(server.url) as redis,
        Member(server.url, service, **BEATING) as one,
        Member(server.url, service, **BEATING) as two,
    ):
        both = (one, two)
        await impossible(*both)
        shares = await share(server.url, service, *both)
        await cut_off(redis, *both)
        await impossible(*both)
        await works_on(both, shares)


@pytest.mark.parametrize("command", ["hdel", "hset", "pubsub", "info"])
async def test_a_permission_that_is_taken_away_while_members_are_present_costs_no_stream(
    server: Server, redis: Connection, service: str, command: str
) -> None:
    await redis.execute_command("ACL", "SETUSER", "tenant", "on", "nopass", "~*", "&*", "+@all")
    url = server.url.replace("redis://", "redis://tenant:x@")
    try:
        async with (
            Member(server.url, service, **BEATING) as other,
            Member(url, service, **BEATING) as tenant,
        ):
            both = (other, tenant)
            await all_present(redis, service, other.client.id, tenant.client.id)
            shares = await share(server.url, service, *both)
            await redis.execute_command("ACL", "SETUSER", "tenant", f"-{command}")
            for _ in range(2):
                await cut_off(redis, *both)
                await impossible(tenant)
                await works_on(both, shares)
            await all_present(redis, service, other.client.id)
            assert deposed(other) == 0
    finally:
        await redis.execute_command("ACL", "DELUSER", "tenant")


async def test_thousands_of_channels_of_others_make_no_difference(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    worker = await (await start_worker(lock_ttl=LONG)).joined()
    async with (
        Redis.from_url(server.url) as stranger,
        stranger.pubsub() as channels,
        Member(server.url, service, lock_ttl=LONG) as member,
    ):
        for start in range(0, 20_000, 2_000):
            await channels.subscribe(*(f"channel-{i}" for i in range(start, start + 2_000)))
        await all_present(redis, service, worker.client, member.client.id)
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < SOON


# Lines that are slow.


@pytest.mark.long
async def test_on_a_slow_line_members_are_present_and_who_dies_is_replaced(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """A round trip takes longer than the least grace: nobody loses anything, and a crash is seen in seconds."""
    proxy.delay(requests=0.1, replies=0.1)
    worker = await (await start_worker(lock_ttl=LONG, max_streams=2)).joined()
    async with Member(proxy.url, service, lock_ttl=LONG, connect_timeout=20.0) as member:
        await announce(server.url, service, *(f"call-{n}" for n in range(6)))
        await wait_until(lambda: len(member.owned) == 4, "it owns what the worker has no room for")
        await all_present(redis, service, worker.client, member.client.id)
        async with nothing_is_lost(member):
            await watches(redis, service, member.client.id)
            await redis.client_kill_filter(_type="pubsub")
            await withdrawn(member)
        await all_present(redis, service, worker.client, member.client.id)
        await watches(redis, service, member.client.id)
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < LONG / 2
