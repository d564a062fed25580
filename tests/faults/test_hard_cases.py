"""Ring 3: several things go wrong at once, or one goes wrong in an inconvenient moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import (
    ClientClosed,
    Lease,
    NotOwner,
    RedisRejected,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
)
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.group import Group
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def load_scripts(redis: Connection) -> None:
    """Let the server know all scripts, so that each is one EVALSHA."""
    for file in resources.files("redis_stream_client").joinpath("_protocol", "lua").iterdir():
        if file.name.endswith(".lua"):
            await redis.script_load(scripts.load(file.name.removesuffix(".lua")).text)


def sha(script: str) -> bytes:
    """What is on the wire when a script is called."""
    return scripts.load(script).sha.encode()


def lock_of(service: str, client: RedisStreamClient) -> str:
    return f"{{{service}-input}}:lock:{client.id}"


async def first_leases(client: RedisStreamClient, number: int) -> list[Lease]:
    """Read so many streams out of the events."""
    leases: list[Lease] = []
    async for event in client.events():
        assert isinstance(event, StreamAdded)
        leases.append(event.payload)
        if len(leases) == number:
            break
    return leases


async def error_of(work: Awaitable[None]) -> Exception | None:
    """What it ends with; it must end."""
    try:
        async with asyncio.timeout(5):
            await work
    except TimeoutError:
        raise
    except Exception as error:  # noqa: BLE001 - that is the question
        return error
    return None


# Slow and half-working networks.


async def test_a_client_that_was_cut_off_rejoins_over_a_slow_network(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    """The handshake of a new connection takes several round trips, and longer than a heartbeat_interval."""
    async with Member(proxy.url, service, lock_ttl=2.0) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        proxy.delay(replies=0.15)
        proxy.cut()
        beats = member.client.statistics().beats
        await wait_until(lambda: member.client.alive and member.client.statistics().beats >= beats + 2, "it beats")
        await announce(server.url, service, "call-2")
        await member.owns("call-1", "call-2")
        proxy.delay()


async def test_joining_takes_connect_timeout_at_most_when_the_subscription_is_not_answered(
    proxy: TcpProxy, service: str
) -> None:
    fault = proxy.drop_replies_after(b"PSUBSCRIBE")
    started = time.monotonic()
    async with RedisStreamClient.from_url(proxy.url, service, lock_ttl=12.0, connect_timeout=0.5) as client:
        assert time.monotonic() - started < 3.0
        assert fault.matched
        assert client.alive


async def test_a_block_is_cancelled_in_time_when_silence_follows_a_lapse(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """However long the lock's lifetime is: the examination of a lapse ends after a heartbeat_interval."""
    entered = asyncio.Event()

    async def work(lease: Lease) -> None:
        async with lease:
            entered.set()
            await asyncio.Event().wait()

    await load_scripts(redis)
    async with Member(proxy.url, service, lock_ttl=60.0, heartbeat_interval=0.3) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        working = asyncio.create_task(work(member.lease("call-1")))
        await entered.wait()
        proxy.drop_replies_after(b"EVALSHA")
        await redis.delete(lock_of(service, member.client))
        await wait_until(lambda: not member.lease("call-1").owned, "the lapse is noticed")
        proxy.freeze()
        await asyncio.wait([working], timeout=2.0)
        cancelled_in_time = working.done()
        proxy.heal()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert isinstance(await error_of(working), NotOwner)
        assert cancelled_in_time


async def test_done_gives_up_when_only_the_heart_still_beats(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    ttl = 0.6
    await load_scripts(redis)
    async with Member(proxy.url, service, lock_ttl=ttl) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        # The connection for commands is cut before `done` gets through, and no other one can be made.
        proxy.drop_requests_matching(b"$4\r\nINFO\r\n", cut=True)
        cut = proxy.drop_requests_matching(sha("done"), connections=1, cut=True)
        beats = member.client.statistics().beats
        started = time.monotonic()
        refused = await error_of(member.lease("call-1").done())
        assert isinstance(refused, RedisUnavailable)
        assert cut.matched
        assert time.monotonic() - started < 5 * ttl
        assert member.client.statistics().beats > beats
        assert member.client.statistics().lapses == 0
        proxy.heal()
        await member.lease("call-1").done()  # repeating is safe


# Failures while streams are being ended.


@pytest.mark.parametrize("operation", ["done", "release"])
async def test_ending_a_stream_in_the_very_moment_in_which_the_client_fails_says_so(
    server: Server, service: str, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outcomes: list[Exception | None] = []

    async def end(lease: Lease) -> None:
        await moment
        await getattr(lease, operation)()

    async def fail(group: Group, timeout: float) -> None:
        asyncio.get_running_loop().call_soon(moment.set_result, None)
        raise ValueError("a bug")

    async def work() -> None:
        async with RedisStreamClient.from_url(server.url, service, **FAST) as client:
            await announce(server.url, service, "call-1")
            (lease,) = await first_leases(client, 1)
            ending = asyncio.create_task(error_of(end(lease)))
            await asyncio.sleep(0)
            monkeypatch.setattr(Group, "members", fail)  # the sweeper's first question
            outcomes.append(await ending)

    with pytest.raises(ValueError, match="a bug"):
        await work()
    (outcome,) = outcomes
    assert isinstance(outcome, ClientClosed)
    assert isinstance(outcome.__cause__, ValueError)


async def limited_user(server: Server) -> tuple[str, Connection]:
    """The URL of a user who may do everything yet, and a connection of somebody who can change that."""
    admin: Connection = Redis.from_url(server.url)
    await admin.execute_command("ACL", "SETUSER", "limited", "on", ">word", "allkeys", "allchannels", "+@all")
    return server.url.replace("redis://", "redis://limited:word@"), admin


async def test_done_without_permission_says_what_is_not_permitted(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    url, admin = await limited_user(server)
    outcomes: list[Exception | None] = []

    async def work() -> None:
        async with RedisStreamClient.from_url(url, service) as client:
            await announce(server.url, service, "call-1")
            (lease,) = await first_leases(client, 1)
            await admin.execute_command("ACL", "SETUSER", "limited", "-xdel")
            outcomes.append(await error_of(lease.done()))

    with pytest.raises(RedisRejected):
        await work()
    (outcome,) = outcomes
    assert isinstance(outcome, RedisRejected)
    assert await admin.xlen(f"{service}-input") == 1
    await admin.aclose()


async def test_every_done_ends_when_a_permission_is_taken_away_under_load(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    streams = 400
    url, admin = await limited_user(server)
    outcomes: list[Exception | None] = []

    async def finish(lease: Lease, number: int) -> None:
        await asyncio.sleep(number * 0.001)
        await lease.done()

    async def work() -> None:
        async with RedisStreamClient.from_url(url, service, prefetch=streams) as client:
            await announce(server.url, service, *[f"call-{i}" for i in range(streams)])
            leases = await first_leases(client, streams)
            finishing = [asyncio.create_task(error_of(finish(le, i))) for i, le in enumerate(leases)]
            await asyncio.sleep(streams * 0.001 / 3)
            await admin.execute_command(
                "ACL", "SETUSER", "limited", "-evalsha", "-eval", "-pexpire", "-xreadgroup"
            )
            outcomes.extend(await asyncio.gather(*finishing))

    with pytest.raises(RedisRejected):
        await work()
    assert len(outcomes) == streams
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert 0 < len(refused) < streams
    for error in refused:
        match error:
            case RedisRejected():
                pass
            case ClientClosed():
                assert isinstance(error.__cause__, RedisRejected)
            case NotOwner():  # it was asked for when the client had lost all
                assert error.reason == "closed"
            case _:
                pytest.fail(repr(error))
    assert any(isinstance(error, RedisRejected | ClientClosed) for error in refused)
    await admin.aclose()


@pytest.mark.parametrize("operation", ["done", "release"])
async def test_a_lease_that_is_ended_unread_takes_its_event_and_its_room_with_it(
    server: Server, service: str, operation: str
) -> None:
    async with RedisStreamClient.from_url(server.url, service, prefetch=1, **FAST) as client:
        await announce(server.url, service, "call-1")
        unread = await wait_until(lambda: next(iter(client.leases.values()), None), "it has arrived")
        await getattr(unread, operation)()
        await announce(server.url, service, "call-2")
        async with asyncio.timeout(5):
            arrived = [await anext(client.events())]
            while not isinstance(arrived[-1], StreamAdded):  # what was released is offered, too
                arrived.append(await anext(client.events()))
        lease = arrived[-1].payload
        assert isinstance(lease, Lease)
        assert lease.stream == "call-2"
        assert lease.owned


# Fences.


async def test_a_claim_repeated_after_a_lapse_and_a_lost_reply_never_gives_an_old_fence(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, claim=False, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await member.lease("call-1").release()
        offered = await wait_until(lambda: next(iter(member.expired), None), "it is offered")
        first = await member.client.claim(offered)
        proxy.drop_replies_after(b"PEXPIRE")
        proxy.drop_replies_after(sha("join"))
        await wait_until(lambda: first in member.disowned, "it is lost in silence")
        proxy.heal()
        # No audit is completed, or it would adopt the stream; and the claim's first reply is lost.
        proxy.drop_requests_matching(sha("census"), cut=True)
        lost = proxy.drop_replies_after(sha("claim"), connections=1, cut=True)
        await wait_until(lambda: member.client.alive, "it is back")
        second: Lease | None = None
        while second is None:
            with contextlib.suppress(RedisUnavailable):  # the faults may hit it twice; repeating is safe
                second = await member.client.claim(offered)
        assert lost.matched
        assert second.owned
        assert second.fence > first.fence
        proxy.heal()


async def test_a_fail_over_that_loses_the_lock_and_the_latest_counts_gives_no_fence_twice(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        for _ in range(2):
            await member.lease("call-1").release()
            await member.owns("call-1")
        old = member.lease("call-1")
        assert old.deliveries == 3
        await redis.eval(
            "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', 1, 'JUSTID') "
            "redis.call('DEL', KEYS[2])",
            2,
            f"{service}-input",
            lock_of(service, member.client),
            f"{service}-group",
            member.client.id,
            old.lbs_id,
        )
        await wait_until(lambda: old in member.disowned, "the old lease is lost")
        await member.owns("call-1")
        assert member.lease("call-1").fence > old.fence
        await member.lease("call-1").done()


# Operators.


async def test_a_consumer_whose_name_is_no_text_harms_nobody(
    server: Server, redis: Connection, service: str
) -> None:
    lbs, group = f"{service}-input", f"{service}-group"
    name = b"worker-\xff"
    async with Member(server.url, service, **FAST) as member:
        # An entry that is delivered to the stranger before anybody else can be served.
        async with redis.pipeline(transaction=True) as taken:
            taken.xadd(lbs, {"lbs-input": '{"DataStreamName": "call-1"}'})
            taken.execute_command("XREADGROUP", "GROUP", group, name, "STREAMS", lbs, ">")
            await taken.execute()
        await member.owns("call-1")
        lease = member.lease("call-1")
        assert lease.deliveries == 2
        server.command("XCLAIM", lbs, group, name, 0, lease.lbs_id)
        with pytest.raises(NotOwner):
            await lease.done()
        await wait_until(lambda: member.lease("call-1") is not lease and member.owned, "it is offered, and taken")
        async with Member(server.url, service, **FAST) as newcomer:
            assert newcomer.client.alive
        assert member.client.alive
