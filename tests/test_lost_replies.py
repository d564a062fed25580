"""Ring 3: exactly one reply, or one request, is lost: nothing is stuck, and nothing is owned twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest

from redis_stream_client import (
    LoadBalancerStream,
    NotOwner,
    RedisStreamClient,
    RedisUnavailable,
    scripts,
)
from tests.fleet import Member, announce
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.connection import Connection
    from tests.proxy import Fault, TcpProxy
    from tests.servers import Server

Loss = Literal["reply, connection cut", "reply, silence", "request, silence"]
LOSSES: list[Loss] = ["reply, connection cut", "reply, silence", "request, silence"]
FAST: dict[str, Any] = {"lock_ttl": 0.4}


def lose(proxy: TcpProxy, operation: str, loss: Loss) -> Fault:
    """Lose the next reply to an operation, or the next request for it."""
    word = operation if operation.isupper() else scripts.load(operation).sha
    match loss:
        case "reply, connection cut":
            return proxy.drop_replies_after(word.encode(), connections=1, cut=True)
        case "reply, silence":
            return proxy.drop_replies_after(word.encode(), connections=1)
        case "request, silence":
            return proxy.drop_requests_matching(word.encode(), connections=1)


async def load_scripts(redis: Connection) -> None:
    """Let the server know all scripts, so that each is one EVALSHA."""
    for name in (
        "join",
        "claim",
        "adopt",
        "done",
        "release",
        "bury",
        "share",
        "orphans",
        "look",
        "inspect",
        "leave",
    ):
        await redis.script_load(scripts.load(name).text)


async def owners(redis: Connection, service: str) -> dict[str, str]:
    """Who owns which announcement, by Redis."""
    entries = await redis.xpending_range(f"{service}-input", f"{service}-group", "-", "+", 1000)
    return {entry["message_id"].decode(): entry["consumer"].decode() for entry in entries}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["XREADGROUP", "share"])
async def test_a_lost_read_is_adopted(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        fault = lose(proxy, operation, loss)
        names = [f"call-{i}" for i in range(5)]
        if operation == "XREADGROUP":
            await wait_until(lambda: fault.matched, "a read is on its way")
        ids = await announce(server.url, service, *names)
        await member.owns(*names)
        assert fault.matched
        assert await owners(redis, service) == dict.fromkeys(ids, member.client.id)
        pending = await redis.xpending_range(f"{service}-input", f"{service}-group", "-", "+", 10)
        counts = {entry["message_id"].decode(): entry["times_delivered"] for entry in pending}
        assert counts == {lease.lbs_id: lease.deliveries for lease in member.client.leases.values()}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_claim_is_repeated_and_won_once(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(server.url, service, **FAST) as dying:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await dying.owns("call-1")
        async with Member(proxy.url, service, claim=False, **FAST) as member:
            await dying.client.aclose()
            await wait_until(lambda: member.expired, "it is offered")
            fault = lose(proxy, "claim", loss)
            lease = await member.client.claim(member.expired[-1])
            assert fault.matched
            assert lease.owned
            # A claim that was executed is adopted, under a fence of its own: see `Ownership._mine_already`.
            assert lease.deliveries == (2 if loss == "request, silence" else 3)
            assert await owners(redis, service) == {lbs_id: member.client.id}
            await lease.done()
            assert await redis.xlen(f"{service}-input") == 0


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_done_is_repeated_and_believed(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        fault = lose(proxy, "done", loss)
        await asyncio.gather(member.lease("call-1").done(), member.lease("call-2").done())
        assert fault.matched
        assert await redis.xlen(f"{service}-input") == 0
        assert member.owned == []
        assert member.disowned == []


async def test_a_repeated_done_is_not_believed_after_a_lapse(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """A zombie whose stream a peer has finished must not be told that it finished it."""
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as zombie, Member(server.url, service, **FAST) as peer:
        await wait_until(lambda: peer.client.alive, "the peer is there")
        await announce(server.url, service, *[f"call-{i}" for i in range(4)])
        await wait_until(lambda: len(zombie.owned) == 2, "the zombie has some")
        stream = zombie.owned[0]
        lease = zombie.lease(stream)
        proxy.drop_requests_matching(scripts.load("done").sha.encode())
        finishing = asyncio.create_task(lease.done())
        await wait_until(lambda: proxy.faults[0].matched, "done was sent")
        proxy.freeze()
        await wait_until(lambda: stream in peer.owned, "the peer takes over")
        await peer.lease(stream).done()
        proxy.heal()
        proxy.cut()
        with pytest.raises((NotOwner, RedisUnavailable)):
            await finishing
        await wait_until(lambda: zombie.client.alive, "the zombie is back")
        with pytest.raises(NotOwner) as refused:
            await lease.done()
        assert refused.value.gone


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_release_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        async with Member(server.url, service, **FAST) as peer:
            fault = lose(proxy, "release", loss)
            lease = member.lease("call-1")
            await lease.release()
            assert fault.matched
            assert not lease.owned
            await peer.owns("call-1")


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_beat_costs_nothing(server: Server, proxy: TcpProxy, service: str, loss: Loss) -> None:
    async with Member(proxy.url, service, lock_ttl=1.0) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        fault = lose(proxy, "PEXPIRE", loss)
        await wait_until(lambda: fault.matched, "a beat was lost")
        beats = member.client.statistics().beats
        await wait_until(lambda: member.client.statistics().beats > beats + 2, "the heart beats on")
        assert member.disowned == []
        assert member.client.statistics().lapses == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["join", "probe"])
async def test_a_lost_join_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    await redis.script_load(scripts.load("probe").text)
    fault = lose(proxy, operation, loss)
    async with Member(proxy.url, service, **FAST) as member:
        assert fault.matched
        await announce(server.url, service, "call-1")
        await member.owns("call-1")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["orphans", "XINFO", "SET"])
async def test_a_lost_look_delays_a_recovery_but_loses_nothing(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(server.url, service, **FAST) as dying:
        await announce(server.url, service, "call-1")
        await dying.owns("call-1")
        async with Member(proxy.url, service, **FAST) as member:
            lose(proxy, operation, loss)
            await dying.client.aclose()
            await member.owns("call-1")


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_adopt_is_adopted_by_the_next_audit(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        fault = lose(proxy, "adopt", loss)
        lost_read = lose(proxy, "XREADGROUP", "reply, connection cut")
        await wait_until(lambda: lost_read.matched, "a read is on its way")
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        assert fault.matched


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_burial_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        fault = lose(proxy, "bury", loss)
        await redis.xadd(f"{service}-input", {"lbs-input": "no JSON"})
        await wait_until(lambda: redis.xlen(f"{{{service}-input}}:dead"), "it is in the dead letters")
        await wait_until(lambda: _empty(redis, service), "it is off the load balancer stream")
        assert fault.matched
        assert await redis.xlen(f"{{{service}-input}}:dead") == 1
        await LoadBalancerStream(redis, service).add("call-1")
        await member.owns("call-1")


async def _empty(redis: Connection, service: str) -> bool:
    return not await redis.xlen(f"{service}-input")


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_farewell_is_repeated_or_the_lock_expires(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    client = RedisStreamClient.from_url(proxy.url, service, **FAST)
    async with Member(server.url, service, **FAST) as peer:
        async with client:
            await announce(server.url, service, "call-1", "call-2")
            await wait_until(lambda: len(client.leases) == 1, "each has one")
            lose(proxy, "leave", loss)
        await peer.owns("call-1", "call-2")
        assert await redis.exists(f"{{{service}-input}}:lock:{client.id}") == 0
