"""Ring 3: exactly one reply, or one request, is lost: nothing is stuck, and nothing is owned twice."""

from __future__ import annotations

import asyncio
import itertools
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import pytest

from redis_stream_client import LoadBalancerStream, NotOwner, RedisStreamClient, RedisUnavailable
from redis_stream_client._consumer import sweeper
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.harness.fleet import Member, announce
from tests.harness.runs import record, write
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import Fault, TcpProxy
    from tests.harness.servers import Server

Loss = Literal["reply, connection cut", "reply, silence", "request, silence"]
LOSSES: list[Loss] = ["reply, connection cut", "reply, silence", "request, silence"]
FAST: dict[str, Any] = {"lock_ttl": 0.8}


def lose(proxy: TcpProxy, operation: str, loss: Loss) -> Fault:
    """Lose the next reply to an operation, or the next request for it."""
    word = operation if operation.isupper() else scripts.load(operation).sha
    return lose_word(proxy, word.encode(), loss)


def lose_word(proxy: TcpProxy, word: bytes, loss: Loss) -> Fault:
    """Lose the next reply to what contains this word, or the next request that does."""
    match loss:
        case "reply, connection cut":
            return proxy.drop_replies_after(word, connections=1, cut=True)
        case "reply, silence":
            return proxy.drop_replies_after(word, connections=1)
        case "request, silence":
            return proxy.drop_requests_matching(word, connections=1)


async def load_scripts(redis: Connection) -> None:
    """Let the server know all scripts, so that each is one EVALSHA."""
    for file in resources.files("redis_stream_client").joinpath("_protocol", "lua").iterdir():
        if file.name.endswith(".lua"):
            await redis.script_load(scripts.load(file.name.removesuffix(".lua")).text)


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
            # A claim that was executed is adopted, under a fence of its own: see `Claims._mine_already`.
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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["begin", "withhold", "doze", "settle", "done"])
async def test_a_lost_step_of_a_sleep_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, lock_ttl=1.6) as member:
        await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        fault = lose(proxy, operation, loss)
        slept = await asyncio.gather(*(member.lease(f"call-{n}").done_if_idle() for n in (1, 2)))
        assert slept == [True, True]
        assert fault.matched
        assert await redis.xlen(f"{service}-input") == 0
        assert await redis.hlen(Keys(service).announced) == 0
        assert member.owned == []
        assert member.disowned == []


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_done_beside_a_sleep_is_believed(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    """Whoever of the two is answered first: the holder said done."""
    await load_scripts(redis)
    names = [f"call-{n}" for n in range(20)]
    async with Member(proxy.url, service, lock_ttl=1.6) as member:
        await announce(server.url, service, *names)
        await member.owns(*names)
        await asyncio.gather(*(member.lease(name).checkpoint("1-0") for name in names))
        for name in names:
            lose(proxy, "done", loss)
            lease = member.lease(name)
            results = await asyncio.gather(lease.done(), lease.done_if_idle())
            assert [*results] == [None, True]
        assert member.disowned == []


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["begin", "withhold", "doze", "restore"])
async def test_a_lost_step_of_a_stream_that_stays_awake_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, lock_ttl=1.6) as member:
        [lbs_id] = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        ids = await write(server.url, "call-1", 1)
        word = operation.encode() if operation == "restore" else scripts.load(operation).sha.encode()
        fault = lose_word(proxy, word, loss)
        assert await member.lease("call-1").done_if_idle() is False
        assert fault.matched
        assert await LoadBalancerStream(redis, service).add("call-1") == lbs_id
        await member.lease("call-1").checkpoint(ids[0])
        assert await member.lease("call-1").done_if_idle() is True
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


async def test_the_end_of_a_block_is_said_until_it_is_answered(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """Longer than a lifetime of the lock, which is held all the time: nobody else would ever say it."""
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        lease = member.lease("call-1")

        async def work() -> None:
            async with lease:
                pass

        lost = proxy.drop_requests_matching(scripts.load("done").sha.encode(), cut=True)
        working = asyncio.create_task(work())
        await wait_until(lambda: lost.matched, "the end was said")
        await time_passes(2 * FAST["lock_ttl"], member.client)
        assert not working.done()
        assert lease.owned
        lost.release()
        await working
        assert await redis.xlen(f"{service}-input") == 0


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
    fault = lose(proxy, operation, loss)
    async with Member(proxy.url, service, **FAST) as member:
        assert fault.matched
        await announce(server.url, service, "call-1")
        await member.owns("call-1")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["orphans", "XINFO", "SET", "look"])
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
        names: list[str] = []
        for number in itertools.count():
            names.append(f"call-{number}")
            await _lose_a_read(proxy)
            await announce(server.url, service, names[-1])
            await member.owns(*names)
            if fault.matched:  # else the read had ended, with nothing, before the stream was announced
                break


async def _lose_a_read(proxy: TcpProxy) -> None:
    """The reply to the read that is on its way, or to the next one, will be lost."""
    lost_read = lose(proxy, "XREADGROUP", "reply, connection cut")
    await wait_until(lambda: lost_read.matched, "a read is on its way")


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


# After a lapse.


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["join", "XPENDING", "inspect"])
async def test_a_lost_resume_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    """One of its streams was taken while its lock was gone, the other one was not."""
    keys = Keys(service)
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        kept, taken = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        first, lost = member.lease("call-1"), member.lease("call-2")
        fault = lose(proxy, operation, loss)
        async with redis.pipeline(transaction=True) as lapse:
            lapse.set(keys.lock("peer"), '{"ttl": 60000}', px=60_000)
            lapse.xclaim(keys.lbs, keys.group, "peer", 0, [taken])
            lapse.delete(keys.lock(member.client.id))
            await lapse.execute()
        await wait_until(lambda: lost in member.disowned, "it knows what was taken")
        await member.owns("call-1")
        assert fault.matched
        assert member.lease("call-1") is first or member.lease("call-1").fence > first.fence
        assert await owners(redis, service) == {kept: member.client.id, taken: "peer"}
        await member.lease("call-1").done()


# Audits and sweeps.


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["XPENDING", "census", "inspect"])
async def test_a_lost_look_of_an_audit_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    """It has to find one stream that never arrived, and one that was trimmed."""
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        kept, trimmed = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        lost = member.lease("call-2")
        fault = lose(proxy, operation, loss)
        lost_read = lose(proxy, "XREADGROUP", "reply, connection cut")
        await wait_until(lambda: lost_read.matched, "a read is on its way")
        await redis.xdel(f"{service}-input", trimmed)
        (unheard,) = await announce(server.url, service, "call-3")
        await member.owns("call-1", "call-3")
        await wait_until(lambda: lost in member.disowned, "it knows what was trimmed")
        assert fault.matched
        assert await owners(redis, service) == dict.fromkeys([kept, unheard], member.client.id)


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_raise_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    """Redis has lost the latest counts in a failover."""
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        for _ in range(2):
            await member.lease("call-1").release()
            await member.owns("call-1")
        old = member.lease("call-1")
        fault = lose(proxy, "lift", loss)
        await redis.xclaim(
            f"{service}-input", f"{service}-group", member.client.id, 0, [lbs_id], retrycount=1, justid=True
        )
        proxy.cut()
        await wait_until(lambda: old in member.disowned, "an audit has found it")
        await member.owns("call-1")
        assert fault.matched
        assert member.lease("call-1").fence > old.fence
        assert await owners(redis, service) == {lbs_id: member.client.id}
        await member.lease("call-1").done()
        assert await redis.xlen(f"{service}-input") == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["census", "rescue"])
async def test_a_lost_rescue_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        ids = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        old = member.lease("call-1")
        fault = lose(proxy, operation, loss)
        await redis.xack(f"{service}-input", f"{service}-group", old.lbs_id)
        await wait_until(lambda: member.lease("call-1") is not old, "it is found, and taken anew")
        await member.owns("call-1", "call-2")
        assert fault.matched
        assert member.lease("call-1").fence > old.fence
        assert await owners(redis, service) == dict.fromkeys(ids, member.client.id)


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_forget_is_repeated_and_forgets_nobody_else(
    server: Server,
    proxy: TcpProxy,
    redis: Connection,
    service: str,
    loss: Loss,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "FORGET_AFTER", 1)
    lbs, group = f"{service}-input", f"{service}-group"
    await load_scripts(redis)
    async with Member(proxy.url, service, **FAST) as member:
        ids = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        fault = lose(proxy, "forget", loss)
        await redis.xgroup_createconsumer(lbs, group, "long dead")

        async def forgotten() -> bool:
            names = {info["name"].decode() for info in await redis.xinfo_consumers(lbs, group)}
            assert member.client.id in names
            return "long dead" not in names

        await wait_until(forgotten, "it is removed from the group")
        assert fault.matched
        assert member.owned == ["call-1", "call-2"]
        assert await owners(redis, service) == dict.fromkeys(ids, member.client.id)


# The data plane.


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["begin", "checkpoint", "settle", "XREAD\r\n"])
async def test_a_lost_word_about_progress_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load_scripts(redis)
    ids = await write(server.url, "call-1", 3)
    async with Member(proxy.url, service, lock_ttl=1.0) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        lease = member.lease("call-1")
        fault = lose(proxy, operation, loss)
        handed: list[str] = []
        async for entry in lease.entries():
            handed.append(entry.id)
            await lease.checkpoint(entry.id)
            if len(handed) == len(ids):
                break
        assert lease.attempts == 0
        await lease.done()
        assert fault.matched
        assert handed == ids
        stored = await record(redis, service, "call-1")
        assert stored.pop("asleep", None) in (str(lease.fence)[:41], None), "said, unless that was lost for good"
        assert stored == {
            "fence": str(lease.fence),
            "consumer": member.client.id,
            "checkpoint": ids[-1],
            "attempts": "0",
        }
        assert await redis.xlen(f"{service}-input") == 0
        assert member.disowned == []


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_begin_after_a_take_over_counts_one_attempt(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    ids = await write(server.url, "call-1", 2)
    async with Member(proxy.url, service, lock_ttl=1.0) as heir:
        async with Member(server.url, service, lock_ttl=1.0) as dying:
            await announce(server.url, service, "call-1")
            await wait_until(lambda: dying.owned or heir.owned, "one has it")
            if heir.owned:
                await heir.lease("call-1").release()
            await dying.owns("call-1")
            first = dying.lease("call-1")
            await anext(first.entries())
            await first.checkpoint(ids[0])
            fault = lose(proxy, "begin", loss)
        await heir.owns("call-1")
        lease = heir.lease("call-1")
        assert (await anext(lease.entries())).id == ids[1]
        assert fault.matched
        assert lease.attempts == 1
        assert (await record(redis, service, "call-1"))["attempts"] == "1"
