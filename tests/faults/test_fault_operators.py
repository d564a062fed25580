"""Ring 3: somebody tampers with the keys and the channels of a service, or announces what nobody can read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import NotOwner, RedisRejected, StreamGone
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member
from tests.harness.flow import flowing
from tests.harness.runs import Ledger, Running, add, dead_letters, finished, owners, write
from tests.harness.scenes import die_with
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import bodies, ghost

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-1"
TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def nothing_pending(redis: Connection, service: str) -> bool:
    """Whether no announcement is pending for anybody."""
    return not await owners(redis, service)


# The group and its records.


@pytest.mark.parametrize("what", ["XACK", "XGROUP DELCONSUMER", "XGROUP DESTROY"])
async def test_what_flows_goes_on_whatever_an_operator_does_to_the_group(
    server: Server, redis: Connection, service: str, what: str
) -> None:
    """Each stream has one owner again within a few sweeps, and no entry is accepted twice by that."""
    keys = Keys(service)
    async with flowing(server.url, service, server.url, server.url, **FAST) as flow:
        struck = [lease for client in flow.clients for lease in client.leases]
        match what:
            case "XACK":
                await redis.xack(keys.lbs, keys.group, *(lease.lbs_id for lease in struck))
            case "XGROUP DELCONSUMER":
                for client in flow.clients:
                    await redis.xgroup_delconsumer(keys.lbs, keys.group, client.client.id)
            case _:
                await redis.xgroup_destroy(keys.lbs, keys.group)
        await wait_until(lambda: not any(lease.owned for lease in struck), "every loss is noticed", 20 * TTL)

        async def agrees() -> bool:
            ours = {id: client.client.id for client in flow.clients for id in client.client.leases}
            return len(ours) == len(flow.streams) and await owners(redis, service) == ours

        await wait_until(agrees, "each has one owner again", 20 * TTL)
        await flow.goes_on()


# Announcements.

MALFORMED: list[tuple[dict[str, bytes], str]] = [
    ({"other": b"{}"}, "lbs-input"),
    ({"lbs-input": b"not JSON"}, "JSON"),
    ({"lbs-input": b"{}"}, "DataStreamName"),
    ({"lbs-input": b'{"DataStreamName": ""}'}, "DataStreamName"),
    ({"lbs-input": b'{"DataStreamName": 7}'}, "DataStreamName"),
    ({"lbs-input": b'["DataStreamName"]'}, "object"),
    ({"lbs-input": b'{"DataStreamName": "a", "Info": [1]}'}, "Info"),
    ({"lbs-input": b'{"DataStreamName": "{}"}'}, "braces"),
    ({"lbs-input": b'{"DataStreamName": "' + b"x" * 1_000_000 + b'"}'}, "bytes"),
    ({"lbs-input": b'{"DataStreamName": "\xff\xfe"}'}, "UTF-8"),
]


@pytest.mark.parametrize("interface", ["events", "run"])
async def test_what_is_malformed_goes_to_the_dead_letters_with_its_reason_and_the_next_is_read(
    server: Server, redis: Connection, service: str, interface: str
) -> None:
    keys = Keys(service)
    good = [f"call-{i:02}" for i in range(len(MALFORMED) + 1)]
    member = (Member if interface == "events" else Running)(server.url, service, lock_ttl=2.0)  # none to lapse
    async with member:
        await add(redis, service, good[:1])
        for (fields, _), stream in zip(MALFORMED, good[1:], strict=True):
            await redis.xadd(keys.lbs, fields)
            await add(redis, service, [stream])
        if isinstance(member, Running):
            await member.handles(*good)
        else:
            await member.owns(*good)
        letters = await wait_until(lambda: _letters(redis, service), "all are buried")
        for (fields, reason), letter in zip(MALFORMED, letters, strict=True):
            assert reason in letter[b"reason"].decode()
            assert all(letter[name.encode()] == value for name, value in fields.items())  # byte for byte
        assert await redis.xlen(keys.lbs) == len(good)
        counted = member.client.statistics
        await wait_until(lambda: counted().dead_letters == len(MALFORMED), "all are counted")
        assert member.client.statistics().lapses == 0


async def _letters(redis: Connection, service: str) -> list[dict[bytes, bytes]]:
    letters = await redis.xrange(Keys(service).dead)
    return [fields for _, fields in letters] if len(letters) == len(MALFORMED) else []


@pytest.mark.parametrize("how", ["XDEL", "XTRIM"])
async def test_an_orphan_that_is_trimmed_is_gone_for_its_claimer_and_cleaned_up(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    keys = Keys(service)
    async with Member(server.url, service, claim=False, **FAST) as member:
        await die_with(redis, service, CALL, lock_ttl=0.1)
        offer = await wait_until(lambda: next(iter(member.expired), None), "it is offered")
        if how == "XDEL":
            await redis.xdel(keys.lbs, offer.lbs_id)
        else:
            await redis.xtrim(keys.lbs, maxlen=0, approximate=False)
        with pytest.raises(StreamGone) as gone:
            await member.client.claim(offer)
        assert (gone.value.stream, gone.value.lbs_id) == (CALL, offer.lbs_id)
        await wait_until(lambda: nothing_pending(redis, service), "its pending entry is cleaned up")
        assert not member.client.leases


@pytest.mark.parametrize("how", ["XDEL", "XTRIM"])
async def test_a_handler_whose_announcement_is_trimmed_is_cancelled_and_orphans_are_cleaned_up(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    keys = Keys(service)
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **FAST) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await ghost(redis, service, bodies([f"orphan-{i}" for i in range(5)]), lives=TTL / 2)
        if how == "XDEL":
            await redis.xdel(keys.lbs, *[id for id, _ in await redis.xrange(keys.lbs)])
        else:
            await redis.xtrim(keys.lbs, maxlen=0, approximate=False)
        (lease,) = run.leases
        async with asyncio.timeout(20 * TTL):
            assert await lease.lost() == "gone", "the next audit disowns it"
        await wait_until(lambda: not run.working, "the handler is cancelled")
        await wait_until(lambda: nothing_pending(redis, service), "what was pending is cleaned up")
        assert [lease.stream for lease in run.leases] == [CALL]
        ids = await write(server.url, CALL, 3, end=True)
        await add(redis, service, [CALL])
        await wait_until(lambda: finished(redis, service), "announced again, it is handled")
    assert ledger.accepted[CALL] == ids


# The load balancer stream.


async def test_handlers_are_cancelled_when_the_load_balancer_stream_is_deleted(
    server: Server, redis: Connection, service: str
) -> None:
    """What was accepted is remembered all the same: announced again, each stream goes on where it was."""
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(4)]
    ids = {stream: await write(server.url, stream, 5) for stream in streams}
    async with Running(server.url, service, ledger.follow, **FAST) as run:
        await add(redis, service, streams)
        await ledger.reached(dict.fromkeys(streams, 5))
        old = list(run.leases)
        await redis.delete(Keys(service).lbs)
        await wait_until(lambda: not run.working, "the handlers were cancelled")
        assert not any(lease.owned for lease in old)
        with pytest.raises(NotOwner):
            await old[0].checkpoint("99999999999999-0")
        for stream in streams:
            ids[stream] += await write(server.url, stream, 5, end=True)
        await add(redis, service, streams)
        await wait_until(lambda: run.client.statistics().streams_done == 4, "the group was created anew")
    assert ledger.accepted == ids


async def test_a_load_balancer_stream_of_another_type_ends_run_and_says_so(
    server: Server, redis: Connection, service: str
) -> None:
    lbs = Keys(service).lbs
    async with Running(server.url, service, **FAST) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        async with redis.pipeline(transaction=True) as both:
            both.delete(lbs).rpush(lbs, "not a stream")
            await both.execute()
        await asyncio.wait((run.task,), timeout=10)
        with pytest.raises(RedisRejected, match="another type"):
            await run.task
        assert run.working == []
        assert not run.client.alive
        assert not await redis.exists(Keys(service).lock(run.client.id))


# The channels.


async def test_garbage_on_the_channels_is_ignored_by_what_flows(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with flowing(server.url, service, server.url, server.url, lock_ttl=2.0) as flow:
        names = [client.client.id for client in flow.clients]
        before = [list(client.leases) for client in flow.clients]
        for garbage in [b"", b"\xff\xfe", b"released", b"left nobody", b"dead \xff", b"{}", b"x" * 100_000]:
            await redis.publish(keys.control, garbage)
            await redis.publish(b"__keyspace@0__:" + keys.lock("").encode() + garbage, b"expired")
        for name in names:  # they live, whatever is said of them
            for hint in ("left", "dead", "draining"):
                await redis.publish(keys.control, f"{hint} {name}")
            await redis.publish(f"__keyspace@0__:{keys.lock(name)}", "expired")
            await redis.publish(f"__keyspace@0__:{keys.lock(name)}", "del")
        for lease in (lease for leases in before for lease in leases):
            await redis.publish(keys.control, f"released {lease.lbs_id}")
            await redis.publish(keys.control, f"claimed {lease.lbs_id}")
        await flow.goes_on()
        assert [list(client.leases) for client in flow.clients] == before
        assert all(client.client.statistics().lapses == 0 for client in flow.clients)
    assert await dead_letters(redis, service) == []


async def test_dead_letters_of_another_type_end_nobody_and_are_written_when_they_can_be(
    server: Server, redis: Connection, service: str
) -> None:
    async def handle(lease: Lease) -> None:
        if lease.stream == "bad":
            raise ValueError("no good")
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    keys = Keys(service)
    async with Running(server.url, service, handle, lock_ttl=0.4, max_attempts=1) as member:
        await redis.set(keys.dead, "text")
        await redis.xadd(keys.lbs, {"lbs-input": "no JSON"})
        await add(redis, service, ["bad", "good"])
        await wait_until(lambda: member.client.statistics().handlers_failed, "it failed, and could not be buried")
        await redis.xadd("good", {"n": 1})
        await wait_until(lambda: record_of(redis, service, "good"), "the other one goes on")
        await redis.delete(keys.dead)
        await wait_until(lambda: at_least(redis, keys.dead, 2), "both are buried", timeout=20)


async def record_of(redis: Connection, service: str, stream: str) -> object:
    return await redis.hget(Keys(service).progress(stream), "checkpoint")


async def at_least(redis: Connection, stream: str, length: int) -> bool:
    return bool(await redis.xlen(stream) >= length)


async def test_turns_and_locks_of_another_type_end_nobody(server: Server, redis: Connection, service: str) -> None:
    """Whoever writes a list where a turn or the lock of a stranger belongs stops neither sweeps nor handlers."""
    keys = Keys(service)
    async with flowing(server.url, service, server.url, server.url, **FAST) as flow:
        await redis.xgroup_createconsumer(keys.lbs, keys.group, "stranger")
        for key in (keys.lock("stranger"), *keys.turns):
            await redis.delete(key)
            await redis.rpush(key, "garbage")
        swept = [client.client.statistics().sweeps for client in flow.clients]
        await wait_until(
            lambda: all(
                client.client.statistics().sweeps >= before + 2
                for client, before in zip(flow.clients, swept, strict=True)
            ),
            "all have swept",
        )
        await flow.goes_on()
