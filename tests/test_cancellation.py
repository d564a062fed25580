"""Ring 3: cancellation at every suspension point, native and anyio's, once and twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from redis_stream_client import (
    AlreadyClaimed,
    Lease,
    LoadBalancerStream,
    NotOwner,
    RedisStreamClient,
    StreamAdded,
    StreamGone,
)
from tests.fleet import Member, announce
from tests.waiting import wait_until
from tests.workers import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.connection import Connection
    from tests.servers import Server

POINTS = range(0, 40, 2)
"""Turns of the event loop that an operation gets before it is cancelled: a round trip takes about ten."""


async def cancelled_after(turns: int, operation: Awaitable[Any], how: str) -> bool:
    """Run an operation in a task and cancel it. Returns whether it ended by that."""
    if how == "anyio":
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(0, _after_turns, turns, scope.cancel)
            await operation
        return scope.cancelled_caught
    task = asyncio.ensure_future(operation)
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(2 if how == "twice" else 1):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
    return task.cancelled()


def _after_turns(turns: int, call: Callable[[], None]) -> None:
    if turns == 0:
        call()
    else:
        asyncio.get_running_loop().call_soon(_after_turns, turns - 1, call)


async def pending(redis: Connection, service: str) -> dict[str, str]:
    """Who owns which announcement, by Redis."""
    entries = await redis.xpending_range(f"{service}-input", f"{service}-group", "-", "+", 1000)
    return {entry["message_id"].decode(): entry["consumer"].decode() for entry in entries}


HOW = pytest.mark.parametrize("how", ["native", "twice", "anyio"])


@HOW
async def test_a_cancelled_claim_leaves_the_stream_owned_by_nobody_or_known(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=0.2) as member:
        for turns in POINTS:
            stream = f"call-{turns}"
            (lbs_id,) = await announce(server.url, service, stream)
            await wait_until(lambda: stream in member.owned, "it arrived")
            await member.lease(stream).release()
            payload = await wait_until(
                lambda: next((p for p in member.expired if p.stream == stream), None), "it is offered"
            )
            won: list[Lease] = []

            async def claim(payload: Any = payload, won: list[Lease] = won) -> None:
                won.append(await member.client.claim(payload))

            await cancelled_after(turns, claim(), how)

            async def agrees(lbs_id: str = lbs_id, won: list[Lease] = won) -> bool:
                owner = (await pending(redis, service))[lbs_id]
                mine = member.client.leases.get(lbs_id)
                if won:
                    return owner == member.client.id and mine is won[0]
                return owner == "nobody" and mine is None

            await wait_until(agrees, "both sides agree")
            if won:
                await won[0].done()


@HOW
@pytest.mark.parametrize("operation", ["done", "release"])
async def test_a_cancelled_done_or_release_goes_on_in_the_background(
    server: Server, redis: Connection, service: str, operation: str, how: str
) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=0.4) as member:
        names = [f"call-{turns}" for turns in POINTS]
        await announce(server.url, service, *names)
        await member.owns(*names)
        for turns in POINTS:
            lease = member.lease(f"call-{turns}")
            await cancelled_after(turns, getattr(lease, operation)(), how)
            if turns == 0:  # perhaps cancelled before its first step: then nothing was asked for
                with contextlib.suppress(NotOwner):
                    await getattr(lease, operation)()

            async def ended(lbs_id: str = lease.lbs_id) -> bool:
                return (await pending(redis, service)).get(lbs_id) in (None, "nobody")

            await wait_until(ended, "it is ended in Redis")
            await wait_until(lambda: lease.lbs_id not in member.client.leases, "and here")
        left = await redis.xlen(f"{service}-input")
        assert left == (0 if operation == "done" else len(POINTS))


@HOW
async def test_a_cancelled_join_leaves_no_lock(server: Server, redis: Connection, service: str, how: str) -> None:
    for _turns in range(0, 120, 3):
        client = RedisStreamClient.from_url(server.url, service)

        async def join(client: RedisStreamClient = client) -> None:
            async with client:
                await asyncio.sleep(0)

        await client.aclose()  # waits for the close that is under way
        assert not client.alive
        assert await redis.exists(f"{{{service}-input}}:lock:{client.id}") == 0


@HOW
async def test_cancelling_the_wait_for_an_event_loses_none(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    async with RedisStreamClient.from_url(server.url, service) as client:
        got: list[str] = []
        lbs = LoadBalancerStream(redis, service)

        async def take() -> None:
            event = await anext(client.events())
            assert isinstance(event, StreamAdded)
            got.append(event.payload.stream)

        for turns in POINTS:
            await lbs.add(f"call-{turns}")
            await cancelled_after(turns, take(), how)
        while len(got) < len(POINTS):
            async with asyncio.timeout(5):
                await take()
        assert sorted(got) == sorted(f"call-{turns}" for turns in POINTS)


@HOW
async def test_cancelling_a_client_block_hands_everything_over(
    server: Server, redis: Connection, service: str, how: str
) -> None:
    async with Member(server.url, service) as peer:
        for turns in range(3, 33, 3):
            client = RedisStreamClient.from_url(server.url, service)
            joined = asyncio.Event()

            async def work(client: RedisStreamClient = client, joined: asyncio.Event = joined) -> None:
                async with client:
                    joined.set()
                    async for _ in client.events():
                        pass

            working = asyncio.ensure_future(work())
            await joined.wait()
            names = [f"call-{turns}-{i}" for i in range(4)]
            await announce(server.url, service, *names)
            await wait_until(lambda: len(client.leases) + sum(s in peer.owned for s in names) == 4, "all arrived")
            started = asyncio.get_running_loop().time()
            await cancelled_after(turns, _until_cancelled(working), how)
            await wait_until(lambda: all(s in peer.owned for s in names), "the peer has all")
            assert asyncio.get_running_loop().time() - started < 1.0
            await wait_until(lambda: working.done(), "the block is left")
            assert working.cancelled()
            assert await redis.exists(f"{{{service}-input}}:lock:{client.id}") == 0
        assert await redis.xlen(f"{service}-input") == 40  # nothing was acknowledged


async def _until_cancelled(task: asyncio.Task[None]) -> None:
    """Wait for a task; when the wait is cancelled, so is the task."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


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
        sys.executable, "-c", program, server.url, service, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"call-1\n"
    async with Member(server.url, service) as peer:
        if program is PROGRAM:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            rest = await process.stdout.read()
            code = await process.wait()
        assert code == 0
        assert rest == (b"interrupted\n" if program is PROGRAM else b"")
        assert await redis.keys(f"{{{service}-input}}:lock:*") == [
            f"{{{service}-input}}:lock:{peer.client.id}".encode()
        ]
        await peer.owns("call-1")
