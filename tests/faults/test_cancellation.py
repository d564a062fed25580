"""Ring 3: cancellation at every suspension, native and anyio's, once and twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    Entry,
    Lease,
    LoadBalancerStream,
    NotOwner,
    RedisStreamClient,
    StreamAdded,
    StreamExpired,
    StreamGone,
)
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.processes import die_with_parent
from tests.harness.runs import finished, record, write
from tests.harness.suspensions import EVERY_HOW, EVERY_WHEN, How, Strikes, Traces, When, agree
from tests.harness.waiting import wait_until
from tests.harness.workers import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

STREAMS = [f"call-{i:02}" for i in range(40)]
"""More than any operation on a stream has suspensions."""

PATIENT: dict[str, Any] = {"lock_ttl": 4.0}
"""Whatever is put right, is put right before the audit that would come by itself."""


async def finishes_all(server: Server, redis: Connection, service: str) -> None:
    """Whatever a test has left, somebody can finish it."""
    async with Member(server.url, service, lock_ttl=0.4) as heir:
        left = await redis.xlen(f"{service}-input")
        await wait_until(lambda: len(heir.owned) == left, "an heir has all that is left")
        await asyncio.gather(*(heir.lease(stream).done() for stream in heir.owned))
    assert await finished(redis, service)


@EVERY_HOW
@EVERY_WHEN
async def test_a_cancelled_claim_is_won_or_given_back(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    async with Member(server.url, service, **PATIENT) as donor:
        await announce(server.url, service, *STREAMS)
        await donor.owns(*STREAMS)
        async with Member(server.url, service, claim=False, **PATIENT) as member:
            await donor.client.aclose()
            await wait_until(lambda: len(member.expired) == len(STREAMS), "all are offered")
            offers = list(member.expired)
            struck = Strikes(server, how, when)
            for strike, offer in zip(struck, offers, strict=False):
                await strike.on(member.client.claim(offer))
                await strike.settled()
                owner = (await agree(member.client, redis, service))[offer.lbs_id]
                if strike.cancelled:
                    assert owner != member.client.id
                else:
                    assert member.client.leases[offer.lbs_id] is strike.result
                    assert strike.result.owned
            assert struck.points >= 2
            assert not member.disowned
    await finishes_all(server, redis, service)


@EVERY_HOW
@EVERY_WHEN
@pytest.mark.parametrize("operation", ["lease.done", "client.done", "release"])
async def test_a_cancelled_done_or_release_goes_on_in_the_background(
    server: Server, redis: Connection, service: str, operation: str, how: How, when: When
) -> None:
    def ending(lease: Lease) -> Coroutine[Any, Any, None]:
        match operation:
            case "lease.done":
                return lease.done()
            case "client.done":
                return member.client.done(lease)
        return lease.release()

    async with Member(server.url, service, claim=False, **PATIENT) as member:
        await announce(server.url, service, *STREAMS)
        await member.owns(*STREAMS)
        struck = Strikes(server, how, when)
        for count, (strike, stream) in enumerate(zip(struck, STREAMS, strict=False), 1):
            lease = member.lease(stream)
            await strike.on(ending(lease))
            await strike.settled()
            owners = await agree(member.client, redis, service)
            assert owners.get(lease.lbs_id) == (None if operation != "release" else "nobody")
            assert await redis.xlen(f"{service}-input") == len(STREAMS) - (count if operation != "release" else 0)
            assert not lease.owned
        assert struck.points >= 2
        assert not member.disowned
    await finishes_all(server, redis, service)


@EVERY_HOW
@EVERY_WHEN
@pytest.mark.parametrize("unread", [False, True])
async def test_a_cancelled_done_if_idle_goes_on_in_the_background(
    server: Server, redis: Connection, service: str, unread: bool, how: How, when: When
) -> None:
    """It ends as it would have: the stream sleeps, or is announced as before."""
    keys = Keys(service)
    async with Member(server.url, service, claim=False, **PATIENT) as member:
        await announce(server.url, service, *STREAMS)
        await member.owns(*STREAMS)
        struck = Strikes(server, how, when)
        for strike, stream in zip(struck, STREAMS, strict=False):
            if unread:
                await write(server.url, stream, 1)
            lease = member.lease(stream)
            await strike.on(lease.done_if_idle())
            await strike.settled()
            owners = await agree(member.client, redis, service)
            assert owners.get(lease.lbs_id) == (member.client.id if unread else None)
            assert await redis.hexists(keys.announced, stream) is unread
            assert lease.owned is unread
            if not strike.cancelled:
                assert strike.result is not unread
            if unread:
                assert await lease.done_if_idle() is False
                await lease.done()
        assert struck.points >= 2
        assert not member.disowned
    await finishes_all(server, redis, service)


@EVERY_HOW
@EVERY_WHEN
async def test_a_cancelled_step_that_falls_asleep_is_the_end_of_the_next_one(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    async with RedisStreamClient.from_url(server.url, service, **PATIENT) as client:
        struck = Strikes(server, how, when)
        for strike, stream in zip(struck, STREAMS, strict=False):
            lease = await lease_of(client, redis, service, stream)
            entries = lease.entries(idle=0.05)
            await strike.on(_ends(anext(entries)))
            async with asyncio.timeout(5):
                assert strike.result or await _ends(anext(entries))
            assert await lease.lost() == "done"
            assert await redis.xlen(f"{service}-input") == 0
        assert struck.points >= 4


async def _ends(step: Awaitable[object]) -> bool:
    """Whether a step is the end of its loop."""
    try:
        await step
    except StopAsyncIteration:
        return True
    return False


@EVERY_HOW
@EVERY_WHEN
async def test_cancelled_while_it_finishes_everything(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    traces = await Traces.look(redis, service)
    struck = Strikes(server, how, when)
    for strike in struck:
        client = RedisStreamClient.from_url(server.url, service, prefetch=1, **PATIENT)
        async with client:
            await announce(server.url, service, *STREAMS[:3])
            leases = [await added(client) for _ in range(2)]
            await wait_until(lambda: len(client.leases) == 3, "one was not handed out")
            await strike.on(client.done())
            await strike.settled()
            if client.alive:
                await agree(client, redis, service)
        ended = [await lease.lost() for lease in leases]
        assert await redis.xlen(f"{service}-input") == 3 - ended.count("done")
        assert strike.cancelled or ended == ["done", "done"]
        await traces.none_left()
        await finishes_all(server, redis, service)
    assert struck.points >= 3


async def added(client: RedisStreamClient) -> Lease:
    """The lease of the next stream, which is the next event."""
    async with asyncio.timeout(5):
        event = await anext(client.events())
    assert isinstance(event, StreamAdded)
    return event.payload


# Joining and leaving.


@EVERY_HOW
@EVERY_WHEN
async def test_a_client_is_cancelled_at_any_moment_of_its_life(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    await announce(server.url, service, *STREAMS[:2])
    traces = await Traces.look(redis, service)
    struck = Strikes(server, how, when)
    for strike in struck:
        client = RedisStreamClient.from_url(server.url, service, **PATIENT)

        async def live(client: RedisStreamClient = client) -> None:
            async with client:
                async for event in client.events():
                    if isinstance(event, StreamExpired):
                        await client.claim(event.payload)
                    if len(client.leases) == 2:
                        break

        await strike.on(live())
        await traces.none_left()
        assert not client.alive
        assert not client.leases
    assert struck.points >= 30
    await finishes_all(server, redis, service)


@EVERY_HOW
@EVERY_WHEN
async def test_the_first_event_is_cancelled_and_asked_for_again(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    await announce(server.url, service, STREAMS[0])
    traces = await Traces.look(redis, service)
    struck = Strikes(server, how, when)
    for strike in struck:
        client = RedisStreamClient.from_url(server.url, service, **PATIENT)
        await strike.on(anext(client.events()))
        async with asyncio.timeout(5):  # asking again goes on with joining
            event = strike.result or await anext(client.events())
        lease = await client.claim(event.payload) if isinstance(event, StreamExpired) else event.payload
        assert client.leases[lease.lbs_id] is lease
        await client.aclose()
        await traces.none_left()
    assert struck.points >= 30
    await finishes_all(server, redis, service)


@EVERY_HOW
@EVERY_WHEN
@pytest.mark.parametrize("leave", ["aclose", "block"])
async def test_a_cancelled_leaving_goes_on_in_the_background(
    server: Server, redis: Connection, service: str, leave: str, how: How, when: When
) -> None:
    async with Member(server.url, service, lock_ttl=4.0) as peer:
        struck = Strikes(server, how, when)
        for strike in struck:
            client = RedisStreamClient.from_url(server.url, service, **PATIENT)
            await client.__aenter__()
            names = [f"call-{strike.at}-{i}" for i in range(4)]
            await announce(server.url, service, *names)
            await wait_until(lambda: len(client.leases) + sum(s in peer.owned for s in names) == 4, "all arrived")
            await strike.on(client.aclose() if leave == "aclose" else client.__aexit__(None, None, None))
            await wait_until(lambda: all(s in peer.owned for s in names), "the peer has all", 1.0)
            await client.aclose()  # waits for the one that is under way
            assert await redis.exists(f"{{{service}-input}}:lock:{client.id}") == 0
            assert not client.leases
        assert await redis.xlen(f"{service}-input") == 4 * (struck.points + 1)  # nothing was acknowledged
    await finishes_all(server, redis, service)


# Events and entries.


@EVERY_HOW
@EVERY_WHEN
async def test_cancelling_the_wait_for_an_event_loses_none(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    async with RedisStreamClient.from_url(server.url, service, **PATIENT) as client:
        got: list[str] = []
        struck = Strikes(server, how, when)
        for strike, stream in zip(struck, STREAMS, strict=False):
            waiting = asyncio.create_task(strike.on(anext(client.events())))
            await announce(server.url, service, stream)
            await waiting
            event = strike.result
            if event is None:
                async with asyncio.timeout(5):
                    event = await anext(client.events())
            assert isinstance(event, StreamAdded)
            got.append(event.payload.stream)
        assert got == STREAMS[: struck.points + 1]
        await agree(client, redis, service)
        assert client.statistics().unread_events == 0


async def lease_of(client: RedisStreamClient, redis: Connection, service: str, stream: str) -> Lease:
    """Announce a stream to a client that is alone; returns its lease."""
    await LoadBalancerStream(redis, service).add(stream)
    lease = await added(client)
    assert lease.stream == stream
    return lease


@EVERY_HOW
@EVERY_WHEN
async def test_a_cancelled_step_of_the_entries_loses_none(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    """The first step of a client opens connections and begins; later ones only wait."""
    traces = await Traces.look(redis, service)
    struck = Strikes(server, how, when)
    for strike in struck:
        stream = f"call-{strike.at}"
        ids = await write(server.url, stream, 2)
        async with RedisStreamClient.from_url(server.url, service, **PATIENT) as client:
            lease = await lease_of(client, redis, service, stream)
            entries = lease.entries()
            await strike.on(anext(entries))
            got = [strike.result] if strike.result else []
            async with asyncio.timeout(5):
                got += [await anext(entries) for _ in range(2 - len(got))]
            assert [entry.id for entry in got] == ids
            later = Strikes(server, how, when)
            for late in later:
                waiting = asyncio.create_task(late.on(anext(entries)))
                ids += await write(server.url, stream, 1)
                await waiting
                async with asyncio.timeout(5):
                    entry: Entry = late.result or await anext(entries)
                assert entry.id == ids[-1]
            assert later.points >= 1
            await lease.done()
        await traces.none_left()
    assert struck.points >= 15


@EVERY_HOW
@EVERY_WHEN
async def test_a_cancelled_checkpoint_is_stored_or_not_and_the_next_one_is(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    """The first checkpoint of a client opens a connection and begins; later ones only send."""
    traces = await Traces.look(redis, service)
    struck = Strikes(server, how, when)
    for strike in struck:
        stream = f"call-{strike.at}"
        ids = await write(server.url, stream, 4)
        async with RedisStreamClient.from_url(server.url, service, **PATIENT) as client:
            lease = await lease_of(client, redis, service, stream)
            await strike.on(lease.checkpoint(ids[0]))
            await strike.settled()
            stored = (await record(redis, service, stream)).get("checkpoint")
            assert stored == ids[0] if not strike.cancelled else stored in (None, ids[0])
            await lease.checkpoint(ids[1])
            later = Strikes(server, how, when)
            for late in later:
                await late.on(lease.checkpoint(ids[2]))
                await late.settled()
                assert (await record(redis, service, stream))["checkpoint"] == ids[2]
            await lease.checkpoint(ids[3])
            now = await record(redis, service, stream)
            assert now == {
                "fence": str(lease.fence), "consumer": client.id, "checkpoint": ids[3], "attempts": "0"
            }  # fmt: skip
            assert lease.position == ids[3]
            await lease.done()
        await traces.none_left()
    assert struck.points >= 8


@EVERY_HOW
@EVERY_WHEN
async def test_cancelling_the_wait_for_a_loss_changes_nothing(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    async with RedisStreamClient.from_url(server.url, service, **PATIENT) as client:
        struck = Strikes(server, how, when)
        for strike, stream in zip(struck, STREAMS, strict=False):
            lease = await lease_of(client, redis, service, stream)
            waiting = asyncio.create_task(strike.on(lease.lost()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert lease.owned
            await lease.done()
            await waiting
            assert strike.cancelled or strike.result == "done"
            assert await lease.lost() == "done"
        assert struck.points >= 1
    assert await finished(redis, service)


# Several at the same time.


async def test_claims_of_one_stream_at_the_same_time_win_once(server: Server, service: str) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=0.4) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await member.lease("call-1").release()
        await wait_until(lambda: member.expired, "it is offered")
        claims = [member.client.claim(member.expired[0]) for _ in range(5)]
        results = await asyncio.gather(*claims, return_exceptions=True)
        assert sum(isinstance(result, Lease) for result in results) == 1
        assert all(isinstance(result, Lease | AlreadyClaimed) for result in results)


async def test_done_at_the_same_time_succeeds_for_all(server: Server, service: str) -> None:
    async with Member(server.url, service, lock_ttl=0.4) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        lease = member.lease("call-1")
        await asyncio.gather(*(lease.done() for _ in range(5)))
        with pytest.raises(NotOwner, match="done"):
            await lease.done()


async def test_a_claim_of_a_finished_stream_says_gone(server: Server, service: str) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=0.4) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await member.lease("call-1").release()
        await wait_until(lambda: member.expired, "it is offered")
        await (await member.client.claim(member.expired[0])).done()
        with pytest.raises(StreamGone):
            await member.client.claim(member.expired[0])


PROGRAM = """
import asyncio, sys
from redis_stream_client import RedisStreamClient

async def main():
    async with RedisStreamClient.from_url(sys.argv[1], sys.argv[2]) as client:
        async for event in client.events():
            print(event.payload.stream, flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

NEVER_CLOSED = """
import asyncio, sys
from redis_stream_client import RedisStreamClient

async def main():
    client = RedisStreamClient.from_url(sys.argv[1], sys.argv[2])
    async for event in client.events():
        print(event.payload.stream, flush=True)
        break

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [PROGRAM, NEVER_CLOSED])
async def test_ctrl_c_and_the_end_of_the_program_hand_over(
    server: Server, redis: Connection, service: str, program: str
) -> None:
    await announce(server.url, service, "call-1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, server.url, service),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"call-1\n"
    async with Member(server.url, service) as peer:
        if program is PROGRAM:
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(10):
                rest = await process.stdout.read()
                code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert code == 0
        assert rest == (b"interrupted\n" if program is PROGRAM else b"")
        assert await redis.keys(f"{{{service}-input}}:lock:*") == [
            f"{{{service}-input}}:lock:{peer.client.id}".encode()
        ]
        await peer.owns("call-1")
