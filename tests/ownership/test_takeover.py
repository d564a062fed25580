"""Ring 3: the peers in `run()` split what dead ones leave, evenly, at once, and each stream once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.keys import Keys
from redis_stream_client._ownership import checkpoints
from tests.harness.fleet import Member
from tests.harness.runs import Running, add, calls, dead_letters, idle, owners
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

ORPHANS = 400
TTL: dict[str, Any] = {"lock_ttl": 1.0}

# One step, so that no blocked consumer gets an announcement before the one that is to die.
TAKE = """
    for i = 7, #ARGV do redis.call('XADD', KEYS[1], '*', ARGV[6], ARGV[i]) end
    redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
    redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[4])
"""


async def ghost(redis: Connection, service: str, bodies: Sequence[str], *, lives: float = 0.2) -> str:
    """A consumer that takes announcements, lives on for so many seconds, and is never heard again."""
    keys = Keys(service)
    consumer = f"redis-consumer-ghost-{secrets.token_hex(4)}"
    ms = round(lives * 1000)
    arguments = [keys.group, consumer, len(bodies), ms, json.dumps({"ttl": ms}), "lbs-input", *bodies]
    await redis.eval(TAKE, 2, keys.lbs, keys.lock(consumer), *arguments)
    return consumer


def bodies(streams: Sequence[str]) -> list[str]:
    return [json.dumps({"DataStreamName": stream}) for stream in streams]


@contextlib.asynccontextmanager
async def fleet(*members: Running | Member) -> AsyncGenerator[None]:
    """Members that have joined, and have heard of each other."""
    async with contextlib.AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member)
        await wait_until(
            lambda: all(m.client.statistics().live_members == len(members) for m in members), "all are known"
        )
        yield


def held(*members: Running | Member) -> list[int]:
    """How many streams each has."""
    return [len(member.client.leases) for member in members]


async def all_taken(*members: Running | Member, streams: int) -> None:
    await wait_until(lambda: sum(held(*members)) == streams, "all are taken", timeout=15)
    working = sum(len(m.working) if isinstance(m, Running) else len(m.owned) for m in members)
    if working != streams:
        await wait_until(
            lambda: sum(len(m.working) if isinstance(m, Running) else len(m.owned) for m in members) == streams,
            "all are worked on",
        )


def even(counts: Sequence[int]) -> bool:
    return max(counts) <= 1.5 * min(counts)


async def test_peers_split_the_orphans_of_a_dead_one(server: Server, redis: Connection, service: str) -> None:
    attempts: list[int] = []

    async def handle(lease: Lease) -> None:
        attempts.append(lease.attempts)  # before it is known that there is nothing to do
        await idle(lease)

    peers = [Running(server.url, service, handle, **TTL) for _ in range(4)]
    async with fleet(*peers):
        before = await calls(redis, "xclaim")
        streams = [f"call-{i}" for i in range(ORPHANS)]
        await ghost(redis, service, bodies(streams))
        await all_taken(*peers, streams=ORPHANS)
        assert even(held(*peers)), held(*peers)
        assert await calls(redis, "xclaim") - before <= 1.1 * ORPHANS
        taken = [lease.stream for peer in peers for lease in peer.leases]
        assert sorted(taken) == sorted(streams)
        assert attempts == [2] * ORPHANS
        assert len(set((await owners(redis, service)).values())) == 4


async def test_peers_split_the_orphans_by_weight(server: Server, redis: Connection, service: str) -> None:
    peers = [Running(server.url, service, weight=weight, **TTL) for weight in (2.0, 1.0, 1.0)]
    async with fleet(*peers):
        before = await calls(redis, "xclaim")
        await ghost(redis, service, bodies([f"call-{i}" for i in range(ORPHANS)]))
        await all_taken(*peers, streams=ORPHANS)
        heavy, *light = held(*peers)
        assert abs(heavy - ORPHANS / 2) <= 2, held(*peers)
        assert all(abs(has - ORPHANS / 4) <= 2 for has in light), held(*peers)
        assert await calls(redis, "xclaim") - before <= 1.1 * ORPHANS


async def test_who_holds_less_takes_more(server: Server, redis: Connection, service: str) -> None:
    peers = [Running(server.url, service, **TTL) for _ in range(2)]
    late = [Running(server.url, service, **TTL) for _ in range(2)]
    async with fleet(*peers):
        await add(redis, service, [f"before-{i}" for i in range(120)])
        await all_taken(*peers, streams=120)
        async with fleet_of(late, among=4):
            await ghost(redis, service, bodies([f"call-{i}" for i in range(ORPHANS)]))
            await all_taken(*peers, *late, streams=120 + ORPHANS)
            assert even(held(*peers, *late)), held(*peers, *late)


@contextlib.asynccontextmanager
async def fleet_of(members: Sequence[Running], *, among: int) -> AsyncGenerator[None]:
    """Members that join others."""
    async with contextlib.AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member)
        await wait_until(
            lambda: all(m.client.statistics().live_members == among for m in members), "all are known"
        )
        yield


async def test_what_a_full_one_cannot_take_the_others_do(server: Server, redis: Connection, service: str) -> None:
    full = Running(server.url, service, max_streams=10, **TTL)
    peers = [Running(server.url, service, **TTL) for _ in range(3)]
    async with fleet(full, *peers):
        await ghost(redis, service, bodies([f"call-{i}" for i in range(ORPHANS)]))
        await all_taken(full, *peers, streams=ORPHANS)
        assert held(full) == [10]
        assert even(held(*peers)), held(*peers)  # the rest is for whoever asks, but not all of it for one


async def test_peers_with_events_get_their_share(server: Server, redis: Connection, service: str) -> None:
    """They claim one after the other: what is left after a while goes to whoever asks."""
    runs = [Running(server.url, service, lock_ttl=5.0) for _ in range(2)]
    members = [Member(server.url, service, lock_ttl=5.0) for _ in range(2)]
    async with fleet(*runs, *members):
        streams = [f"call-{i}" for i in range(ORPHANS)]
        dead = await ghost(redis, service, bodies(streams))
        await wait_until(lambda: min(held(*runs)) == ORPHANS / 4, "those in run() have their share", 10)
        # A quarter of a lock's lifetime belongs to the others, however slow each claim is.
        await wait_until(lambda: all(member.owned for member in members), "the others have some of theirs")
        await all_taken(*runs, *members, streams=ORPHANS)
        assert dead not in (await owners(redis, service)).values()
        taken = [lease.stream for run in runs for lease in run.leases]
        taken += [lease.stream for member in members for lease in member.leases]
        assert sorted(taken) == sorted(streams)


async def test_malformed_announcements_among_the_orphans_of_two_dead_ones(
    server: Server, redis: Connection, service: str
) -> None:
    peers = [Running(server.url, service, **TTL) for _ in range(3)]
    async with fleet(*peers):
        good = [f"call-{i}" for i in range(200)]
        bad = ["no JSON", "{}", '{"DataStreamName": 7}', "[]", ""] * 4
        first = [*bodies(good[:100]), *bad[:10]]
        second = [*bad[10:], *bodies(good[100:])]
        await asyncio.gather(ghost(redis, service, first), ghost(redis, service, second))
        await all_taken(*peers, streams=200)
        await wait_until(lambda: letters(redis, service, len(bad)), "the malformed ones are buried")
        assert even(held(*peers)), held(*peers)
        assert sorted(lease.stream for peer in peers for lease in peer.leases) == sorted(good)


async def letters(redis: Connection, service: str, count: int) -> bool:
    return len(await dead_letters(redis, service)) == count


@pytest.mark.parametrize("moment", ["before", "amid", "after"])
async def test_a_peer_that_lapses_in_the_middle(
    server: Server, redis: Connection, service: str, moment: str
) -> None:
    """Its lock is deleted: it resumes, or its peers take from it, too; each stream has one owner in the end."""
    peers = [Running(server.url, service, **TTL) for _ in range(3)]
    streams = [f"call-{i}" for i in range(ORPHANS)]
    async with fleet(*peers):
        lock = Keys(service).lock(peers[0].client.id)
        if moment == "before":
            await redis.delete(lock)
        await ghost(redis, service, bodies(streams), lives=0.05)
        if moment == "amid":
            await wait_until(lambda: sum(held(*peers)) > 0, "it has begun")
            await redis.delete(lock)
        await all_taken(*peers, streams=ORPHANS)
        if moment == "after":
            await redis.delete(lock)
            await wait_until(lambda: peers[0].client.statistics().lapses == 1, "it knows")
            await wait_until(lambda: peers[0].client.alive, "it is back")

        async def agrees() -> bool:
            by_redis = await owners(redis, service)
            by_us = {lbs_id: peer.client.id for peer in peers for lbs_id in peer.client.leases}
            return by_redis == by_us and len(by_us) == ORPHANS

        await wait_until(agrees, "the fleet and Redis agree")
        await all_taken(*peers, streams=ORPHANS)


async def test_streams_that_are_released_are_split_too(server: Server, redis: Connection, service: str) -> None:
    """A drain hands over to all peers, and not to whoever hears first."""
    leaving = Running(server.url, service, **TTL)
    peers = [Running(server.url, service, **TTL) for _ in range(3)]
    streams = [f"call-{i}" for i in range(300)]
    async with leaving:
        await add(redis, service, streams)
        await leaving.handles(*streams)
        async with fleet_of(peers, among=4):
            leaving.client.drain()
            await all_taken(*peers, streams=300)
            assert even(held(*peers)), held(*peers)
            assert all(lease.attempts == 1 for peer in peers for lease in peer.leases)


async def test_a_failing_stream_does_not_hold_up_the_others_of_its_owner(
    server: Server, redis: Connection, service: str
) -> None:
    """What this client holds back is left to its peers, and everything else that is released is taken."""

    async def handle(lease: Lease) -> None:
        if lease.stream.startswith("bad"):
            raise ZeroDivisionError
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    async def progress() -> None:
        """Without a stream that progresses, so many failures would look like an outage."""
        while True:
            await redis.xadd("call-healthy", {"n": 1})
            await asyncio.sleep(0.01)

    async with meanwhile(progress()), Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, ["call-healthy"])
        await wait_until(lambda: run.working, "a stream progresses")
        await add(redis, service, [f"bad-{i}" for i in range(50)])
        await wait_until(lambda: run.client.statistics().handlers_failed >= 50, "all have failed")
        streams = [f"call-{i}" for i in range(100)]
        await ghost(redis, service, bodies(streams))
        await wait_until(lambda: {*run.working} >= {*streams}, "the orphans are taken", timeout=4)


async def test_many_dead_owners_are_looked_up_together(server: Server, redis: Connection, service: str) -> None:
    """On a line with long round trips one more for each would hold the last ones up for seconds."""
    dead, keys = 40, Keys(service)
    await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
    for i in range(dead):
        await ghost(redis, service, bodies([f"call-{i}"]), lives=0.05)
    before = await calls(redis, "xinfo", "xinfo|consumers")
    async with Running(server.url, service, lock_ttl=2.0) as member:
        await member.handles(*(f"call-{i}" for i in range(dead)))
        looks = await calls(redis, "xinfo", "xinfo|consumers") - before
    assert looks < 1.6 * dead  # one inside each claim


async def test_what_arrives_is_begun_together_and_once(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PREPARING", 10.0)

    async def handle(lease: Lease) -> None:
        await asyncio.Event().wait()

    fresh, orphans = ([f"{kind}-{n}" for n in range(50)] for kind in ("fresh", "orphan"))
    async with Running(server.url, service, handle, presence=False, **TTL) as one:
        await redis.config_resetstat()
        await add(redis, service, fresh, again=True)
        await one.handles(*fresh)
        assert await calls(redis, "hmget", "hset") == 0
        await ghost(redis, service, bodies(orphans))
        await one.handles(*fresh, *orphans)
        assert await calls(redis, "hset") == len(orphans)


async def test_a_malformed_announcement_of_a_dead_consumer_is_buried(
    server: Server, redis: Connection, service: str
) -> None:
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, lock_ttl=0.4) as one:
        await wait_until(lambda: one.client.alive, "the group exists")
        for _ in range(3):
            lbs_id = await redis.xadd(lbs, {"lbs-input": "no JSON"})
            # As if it had been delivered to a consumer that died at once.
            await redis.xclaim(lbs, group, "redis-consumer-dead-00000000", 0, [lbs_id], force=True, justid=True)
        await LoadBalancerStream(redis, service).add("call-1")
        await wait_until(lambda: _length(redis, f"{{{service}-input}}:dead", 3), "they are in the dead letters")
        await one.owns("call-1")
        letters = await redis.xrange(f"{{{service}-input}}:dead")
        assert {fields[b"lbs-input"] for _, fields in letters} == {b"no JSON"}
        assert all(b"JSON" in fields[b"reason"] for _, fields in letters)


async def _length(redis: Connection, key: str, length: int) -> bool:
    return bool(await redis.xlen(key) == length)
