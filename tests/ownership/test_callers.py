"""Ring 3: callers that stop waiting, by a time-out of their own, before Redis has answered.

What they asked for goes on, is repeated where the answer was lost, and counts when it comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed, NotOwner, StreamExpired
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.keys import Keys
from redis_stream_client._ownership.callers import Callers
from redis_stream_client._protocol import scripts
from tests.harness.fleet import Member
from tests.harness.logs import LOG
from tests.harness.runs import Running, add, dead_letters, finished, owners, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Coroutine

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import Fault, TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 0.6}
SHORT = 0.05

FAULTS = ["request lost", "answer lost", "answer late"]


def struck(proxy: TcpProxy, script: str, fault: str) -> Fault:
    """Have this happen to the next call of a script."""
    pattern = scripts.load(script).sha.encode()
    match fault:
        case "request lost":
            return proxy.drop_requests_matching(pattern, connections=1)
        case "answer lost":
            return proxy.drop_replies_after(pattern, connections=1)
    return proxy.hold_replies_after(pattern, connections=1)


async def not_waited_for(asked: Awaitable[Any], fault: Fault) -> None:
    """Stop waiting soon after it was sent."""
    asking = asyncio.ensure_future(asked)
    await wait_until(lambda: fault.matched, "it was sent")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await asking
    fault.release()


@pytest.fixture
async def member(proxy: TcpProxy, redis: Connection, server: Server, service: str) -> AsyncGenerator[Member]:
    await write(server.url, CALL, 3)
    async with Member(proxy.url, service, claim=False, **TTL) as member:
        await add(redis, service, [CALL])
        await member.owns(CALL)
        yield member


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_checkpoint_goes_on(
    member: Member, proxy: TcpProxy, redis: Connection, service: str, fault: str
) -> None:
    lease = member.lease(CALL)
    await lease.checkpoint("0-1")
    await not_waited_for(lease.checkpoint("0-2"), struck(proxy, "checkpoint", fault))
    await lease.checkpoint("0-3")
    await wait_until(lambda: lease.position == "0-3", "it is known")
    assert (await record(redis, service, CALL))["checkpoint"] == "0-3"
    assert lease.owned


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_beginning_goes_on(
    member: Member, proxy: TcpProxy, redis: Connection, service: str, fault: str
) -> None:
    earlier = member.lease(CALL)
    await earlier.checkpoint("0-1")
    await earlier.done()
    await add(redis, service, [CALL])
    await member.owns(CALL)
    lease = member.lease(CALL)
    assert lease.position is None  # not known before it has begun
    await not_waited_for(anext(lease.entries()), struck(proxy, "begin", fault))
    await wait_until(lambda: lease.position == "0-1", "it has begun")
    assert lease.attempts == 1
    assert (await record(redis, service, CALL))["attempts"] == "1"
    assert (await anext(lease.entries())).fields == {b"n": b"0"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["done", "release"])
async def test_an_end_goes_on(
    member: Member, proxy: TcpProxy, redis: Connection, service: str, operation: str, fault: str
) -> None:
    lease = member.lease(CALL)
    await not_waited_for(getattr(lease, operation)(), struck(proxy, operation, fault))
    assert await lease.lost() == ("done" if operation == "done" else "released")

    async def over() -> bool:
        if operation == "done":
            return await finished(redis, service)
        return list((await owners(redis, service)).values()) == ["nobody"]

    await wait_until(over, "Redis has heard of it")
    counted = "streams_done" if operation == "done" else "streams_released"
    await wait_until(lambda: getattr(member.client.statistics(), counted) == 1, "it is counted")
    with pytest.raises(NotOwner):
        await lease.done()


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_a_claim_won_is_given_back(
    member: Member, proxy: TcpProxy, redis: Connection, service: str, fault: str
) -> None:
    keys = Keys(service)
    await redis.xclaim(keys.lbs, keys.group, "redis-consumer-dead-00000001", 0, [member.lease(CALL).lbs_id])
    await member.lease(CALL).lost()
    offer = await wait_until(
        lambda: next((e for e in member.events if isinstance(e, StreamExpired)), None), "it is offered"
    )
    await not_waited_for(member.client.claim(offer.payload), struck(proxy, "claim", fault))

    async def given_back() -> bool:
        return list((await owners(redis, service)).values()) == ["nobody"]

    await wait_until(given_back, "it is given back, or was never won and then released")
    assert not member.client.leases


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_handler_that_fails_for_a_checkpoint_that_was_accepted_is_not_counted(
    proxy: TcpProxy, redis: Connection, server: Server, service: str, fault: str
) -> None:
    """It allows each checkpoint less time than it takes. Each time the stream gets on by one entry."""
    ids = await write(server.url, CALL, 4, end=True)
    handed: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handed.append(entry.id)
            if entry.id == ids[-1]:
                return
            await not_waited_for(lease.checkpoint(entry.id), struck(proxy, "checkpoint", fault))
            raise LookupError

    async with Running(proxy.url, service, handle, max_attempts=2, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished", 20.0)
    assert handed == ids
    assert await dead_letters(redis, service) == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_handler_that_says_done_and_does_not_wait_for_it_is_done(
    proxy: TcpProxy, redis: Connection, server: Server, service: str, fault: str
) -> None:
    async def handle(lease: Lease) -> None:
        await not_waited_for(lease.done(), struck(proxy, "done", fault))
        raise LookupError

    async with Running(proxy.url, service, handle, max_attempts=1, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished")
        await wait_until(lambda: not run.working, "its handler has ended")
        assert run.client.statistics().streams_disowned == 0
    assert await dead_letters(redis, service) == []
    assert len(run.leases) == 1


async def test_work_whose_client_goes_before_it_begins_leaves_no_warning() -> None:
    """A coroutine that nobody began, and nobody closed, warns when it is collected; here warnings are errors."""
    began = False

    async def work() -> None:
        nonlocal began
        began = True

    def cancelled_at_once(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        task.cancel()
        return task

    callers = Callers(cancelled_at_once, lambda: ClientClosed("closed"), LOG)
    lease = LeaseState("1-1", Announcement(CALL, None), 1)
    with pytest.raises(ClientClosed):
        await callers.wait_for(lease, work())
    assert not began
