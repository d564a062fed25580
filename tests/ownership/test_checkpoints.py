"""Ring 2: begin, checkpoint and what a refusal means, on a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Fence, LoadBalancerStream, NotOwner, RedisRejected, StreamDisowned
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.options import PROGRESS_TTL
from redis_stream_client._protocol import scripts
from tests.harness.fleet import Member
from tests.harness.runs import END, Ledger, Running, add, dead_letters, finished, idle, owners, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}


async def begun(member: Member, stream: str = CALL, *, entries: int = 1) -> Lease:
    """A lease that has begun: it waits for the first entries, which `write` added."""
    await wait_until(lambda: stream in member.owned, f"{stream} is owned")
    lease = member.lease(stream)
    reading = lease.entries()
    async with asyncio.timeout(10):
        for _ in range(entries):
            await anext(reading)
    return lease


async def test_checkpoints_go_on_when_the_server_has_forgotten_the_script(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        for number in range(1, 7):
            if number % 2:
                await redis.script_flush()
            await lease.checkpoint(f"{number}-0")
            assert lease.position == f"{number}-0"
            assert (await record(redis, service, CALL))["checkpoint"] == f"{number}-0"


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["5-0", "4-9"], "5-0"),
        (["5-0", "5-0"], "5-0"),
        (["10-0", "9-0"], "10-0"),
        (["9007199254740993-0", "9007199254740992-18446744073709551615"], "9007199254740993-0"),
        (["9007199254740992-0", "9007199254740993-0"], "9007199254740993-0"),
        (["7-9007199254740993", "7-9007199254740992"], "7-9007199254740993"),
        (["18446744073709551615-1", "18446744073709551614-2"], "18446744073709551615-1"),
        (["00000000000000000012-3", "9-1"], "12-3"),
        (["9-1", "00000000000000000012-3"], "12-3"),
        (["12-3", "00000000000000000012-00000000000000000002"], "12-3"),
    ],
)
async def test_a_late_checkpoint_does_not_move_back(
    server: Server, redis: Connection, service: str, ids: list[str], kept: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        for id in ids:
            await lease.checkpoint(id)
        assert lease.position == kept
        assert (await record(redis, service, CALL))["checkpoint"] == kept


async def test_an_advance_starts_the_attempts_anew_and_a_duplicate_does_not(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        await lease.checkpoint("5-0")
        assert lease.attempts == 0
        await redis.hset(Keys(service).progress(CALL), "attempts", 3)
        await lease.checkpoint("5-0")
        assert (await record(redis, service, CALL))["attempts"] == "3"
        await lease.checkpoint("5-1")
        assert (await record(redis, service, CALL))["attempts"] == "0"


@pytest.mark.parametrize("wrong", ["5", "5-", "-5", "", "x-1", "18446744073709551616-0", "5-0 ", "٥-0"])
async def test_what_is_no_id_is_refused_before_it_is_sent(
    server: Server, redis: Connection, service: str, wrong: str
) -> None:
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        with pytest.raises(ValueError, match=r"entry\.id"):
            await member.lease(CALL).checkpoint(wrong)
        assert await record(redis, service, CALL) == {}


async def test_an_owner_goes_on_when_its_record_is_deleted(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 3)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        lease = await begun(member)
        await lease.checkpoint("1-0")
        await redis.delete(Keys(service).progress(CALL))
        await lease.checkpoint("2-0")
        assert await record(redis, service, CALL) == {
            "fence": str(lease.fence),
            "consumer": member.client.id,
            "checkpoint": "2-0",
            "attempts": "0",
        }
        assert lease.owned


async def test_a_checkpoint_never_creates_a_record_for_who_is_no_owner(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    async with Member(server.url, service, **TTL) as member:
        (lbs_id,) = await add(redis, service, [CALL])
        lease = await begun(member)
        await redis.delete(Keys(service).progress(CALL))
        keys = Keys(service)
        await redis.xclaim(keys.lbs, keys.group, "redis-consumer-thief-00c0ffee", 0, [lbs_id])
        with pytest.raises(NotOwner) as refused:
            await lease.checkpoint("1-0")
        assert refused.value.owner == "redis-consumer-thief-00c0ffee"
        assert await record(redis, service, CALL) == {}
        assert not lease.owned


async def test_a_checkpoint_that_arrives_late_is_refused_by_redis(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """It was sent by the owner, and reaches Redis when a peer has long begun."""
    ids = await write(server.url, CALL, 3)
    async with Member(proxy.url, service, lock_ttl=0.5, claim=False) as zombie:
        await add(redis, service, [CALL])
        lease = await begun(zombie, entries=2)
        await lease.checkpoint(ids[0])
        async with Member(server.url, service, lock_ttl=0.5) as peer:
            proxy.freeze()
            late = asyncio.create_task(lease.checkpoint(ids[1]))
            heir = await begun(peer)
            assert heir.position == ids[0]
            assert heir.fence > lease.fence
            await heir.checkpoint(ids[1])
            before = await record(redis, service, CALL)
            executed = proxy.bytes_to_server
            proxy.thaw()
            with pytest.raises(NotOwner):
                await late
            await wait_until(lambda: proxy.bytes_to_server > executed and zombie.client.alive, "it was sent")
            assert await record(redis, service, CALL) == before
            assert before["checkpoint"] == ids[1]
            assert before["consumer"] == peer.client.id


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("when", ["before it begins", "after it has begun"])
async def test_a_fence_that_redis_lost_is_lifted_above_the_stored_one(
    server: Server, redis: Connection, service: str, ahead: int, when: str
) -> None:
    """A failover lost the claims of the load balancer stream, but not the record: what is stored is not older."""
    ids = await write(server.url, CALL, 2)
    async with Member(server.url, service, **TTL) as member:
        (lbs_id,) = await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        if when == "after it has begun":
            await lease.checkpoint("0-1")
        fence, stored = lease.fence, Fence.of(lbs_id, 1 + ahead)
        await redis.hset(
            Keys(service).progress(CALL),
            mapping={"fence": str(stored), "consumer": "somebody", "checkpoint": ids[0], "attempts": 2},
        )
        if when == "after it has begun":
            await lease.checkpoint(ids[1])
            assert (await record(redis, service, CALL))["attempts"] == "0"
        else:
            entry = await anext(lease.entries())
            assert entry.id == ids[1]  # after the checkpoint that survived
            assert lease.attempts == 3
        assert lease.owned
        assert lease.fence > max(fence, stored)
        assert (await record(redis, service, CALL))["fence"] == str(lease.fence)
        (pending,) = await redis.xpending_range(Keys(service).lbs, Keys(service).group, "-", "+", 2)
        assert pending["times_delivered"] == lease.deliveries
        assert (await owners(redis, service)) == {lbs_id: member.client.id}
        audits = member.client.statistics().audits
        await redis.client_kill_filter(_type="pubsub")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: member.client.statistics().audits > audits, "an audit agrees")
        assert lease.owned
        await lease.done()
        assert await finished(redis, service)


@pytest.mark.parametrize("same_client", [True, False])
async def test_the_lease_of_an_older_announcement_is_superseded(
    server: Server, redis: Connection, service: str, same_client: bool
) -> None:
    ids = await write(server.url, CALL, 3)
    async with Member(server.url, service, **TTL) as member, Member(server.url, service, **TTL) as other:
        (older_id,) = await add(redis, service, [CALL])
        await wait_until(lambda: member.leases or other.leases, "it was announced")
        first = member if member.leases else other
        older = await begun(first, entries=2)
        await older.checkpoint(ids[0])
        second = first if same_client else next(m for m in (member, other) if m is not first)
        (newer_id,) = await add(redis, service, [CALL], again=True)
        await wait_until(lambda: member.leases + other.leases != [older], "it was announced again")
        newer = next(lease for lease in member.leases + other.leases if lease is not older)
        assert newer.position is None
        entry = await anext(newer.entries())
        assert entry.id == ids[1]  # after the checkpoint of the older one
        assert newer.attempts == 1
        with pytest.raises(NotOwner) as refused:
            await older.checkpoint(ids[1])
        assert refused.value.reason == "superseded"
        told = await wait_until(
            lambda: next((e for e in first.events if isinstance(e, StreamDisowned)), None), "it is told"
        )
        assert (told.payload, told.reason) == (older, "superseded")
        assert not older.owned
        assert list(await owners(redis, service)) == [newer_id]
        assert [id.decode() for id, _ in await redis.xrange(Keys(service).lbs)] == [newer_id]
        assert older_id < newer_id
        await newer.checkpoint(ids[1])
        assert newer.owned
        assert second is not None


async def test_an_older_announcement_that_begins_late_is_superseded_too(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 3)
    async with Member(server.url, service, **TTL) as member:
        _, newer_id = await add(redis, service, [CALL, CALL], again=True)
        await wait_until(lambda: len(member.leases) == 2, "both arrived")
        older, newer = sorted(member.leases, key=lambda lease: lease.fence)
        await anext(newer.entries())
        with pytest.raises(NotOwner, match="superseded"):
            await anext(older.entries())
        assert newer.owned
        assert list(await owners(redis, service)) == [newer_id]


async def test_producers_count_on_no_older_announcement_that_ends_in_favour_of_a_newer_one(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """The newer one is finished just before the older one ends: what comes then is announced again."""
    await write(server.url, CALL, 1)
    lbs = LoadBalancerStream(redis, service)
    await redis.script_load(scripts.load("supersede").text)
    async with Member(proxy.url, service, lock_ttl=4.0) as member:
        await lbs.add(CALL)
        await lbs.add(CALL, again=True)
        await wait_until(lambda: len(member.leases) == 2, "both arrived")
        older, newer = sorted(member.leases, key=lambda lease: lease.fence)
        assert await lbs.add(CALL) == older.lbs_id
        await anext(newer.entries())
        held = proxy.hold_requests_matching(scripts.load("supersede").sha.encode())
        step = asyncio.create_task(anext(older.entries()))
        await wait_until(lambda: held.matched, "the older one ends")
        await redis.xack(Keys(service).lbs, Keys(service).group, newer.lbs_id)
        await redis.xdel(Keys(service).lbs, newer.lbs_id)
        held.release()
        assert (await step).fields
        assert older.owned
        assert await lbs.add(CALL) == older.lbs_id


async def test_an_older_announcement_goes_on_when_the_newer_one_is_finished(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 3)
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL, CALL], again=True)
        await wait_until(lambda: len(member.leases) == 2, "both arrived")
        older, newer = sorted(member.leases, key=lambda lease: lease.fence)
        entries = older.entries()
        await anext(entries)
        await anext(entries)
        await anext(newer.entries())
        await newer.checkpoint(ids[0])
        await newer.done()
        await older.checkpoint(ids[1])
        assert older.owned
        stored = await record(redis, service, CALL)
        assert (stored["fence"], stored["checkpoint"]) == (str(older.fence), ids[1])
        assert await redis.ttl(Keys(service).progress(CALL)) == -1
        with pytest.raises(NotOwner):
            await newer.checkpoint(ids[2])


async def test_a_load_balancer_stream_that_began_anew_with_smaller_ids(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 2)
    record_key = Keys(service).progress(CALL)
    stored = {"fence": str(Fence.of("99999999999999-0", 7)), "consumer": "gone", "checkpoint": ids[0]}
    await redis.hset(record_key, mapping={**stored, "attempts": 5})
    async with Member(server.url, service, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        lease = member.lease(CALL)
        entry = await anext(lease.entries())
        assert (entry.id, lease.position, lease.attempts) == (ids[1], ids[0], 1)
        assert (await record(redis, service, CALL))["fence"] == str(lease.fence)
        await lease.checkpoint(ids[1])
        assert lease.owned


async def test_a_finished_stream_leaves_a_record_that_refuses_zombies_for_a_week(
    server: Server, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    ids = await write(server.url, CALL, 3, end=True)
    async with Running(server.url, service, ledger.follow, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished")
        stored = await record(redis, service, CALL)
        assert (stored["checkpoint"], stored["attempts"]) == (ids[-1], "0")
        left = await redis.ttl(Keys(service).progress(CALL))
        assert PROGRESS_TTL - 60 < left <= PROGRESS_TTL
        # Announced again, it goes on after the checkpoint, and the record stays.
        await write(server.url, CALL, 1)
        await add(redis, service, [CALL])
        again = await run.lease(CALL, nth=2)
        await wait_until(lambda: len(ledger.accepted[CALL]) == 4, "the new entry is accepted")
        assert again.attempts == 0
        assert await redis.ttl(Keys(service).progress(CALL)) == -1
    assert ledger.handed[CALL] == ledger.accepted[CALL]
    assert len(set(ledger.handed[CALL])) == 4


async def test_a_new_announcement_starts_its_attempts_at_one(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    stored = {"fence": str(Fence.of("1-0", 9)), "consumer": "dead", "checkpoint": "5-0", "attempts": 15}
    await redis.hset(keys.progress(CALL), mapping=stored)
    async with Running(server.url, service, **TTL) as run:
        await add(redis, service, [CALL])
        lease = await run.lease(CALL)
        assert (lease.position, lease.attempts) == ("5-0", 1)


@pytest.mark.parametrize("key", ["record", "stream"])
async def test_a_key_of_another_type_fails_only_its_own_handler(
    server: Server, redis: Connection, service: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set(Keys(service).progress("bad") if key == "record" else "bad", "no such type")
    errors: list[BaseException] = []
    ledger = Ledger()

    async def handle(lease: Lease) -> None:
        try:
            await ledger.follow(lease)
        except RedisRejected as error:
            errors.append(error)
            raise

    for stream in ("good-1", "good-2"):
        await write(server.url, stream, 3, end=True)
    async with Running(server.url, service, handle, max_attempts=2, **TTL) as run:
        await add(redis, service, ["good-1", "bad", "good-2"])
        await wait_until(lambda: run.client.statistics().streams_done == 2, "the others are finished")
        await wait_until(lambda: dead_letters(redis, service), "the bad one ends in the dead letters")
        assert run.client.alive
        (letter,) = await dead_letters(redis, service)
        assert "'bad' holds another type of value than a" in letter["reason"]
        assert "bad" in caplog.text
        assert all(isinstance(error, RedisRejected) and error.stream == "bad" for error in errors)


async def test_a_stream_without_a_record_gets_one_only_when_it_is_read(
    server: Server, redis: Connection, service: str
) -> None:
    reads = asyncio.Event()

    async def handle(lease: Lease) -> None:
        await reads.wait()
        await idle(lease)

    async with Running(server.url, service, handle, **TTL) as run:
        await add(redis, service, [CALL])
        lease = await run.lease(CALL)
        assert (lease.position, lease.attempts) == (None, 1)
        assert await record(redis, service, CALL) == {}
        reads.set()
        stored = await wait_until(lambda: record(redis, service, CALL), "it has begun")
        assert stored == {"fence": str(lease.fence), "consumer": run.client.id, "attempts": "1"}
        await redis.xadd(CALL, {END: ""})
