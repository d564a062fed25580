"""Ring 3: Redis is away, restarts, is full, or was tampered with."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import NotOwner, RedisRejected, RedisStreamClient, StreamAdded
from tests.harness.fleet import Member, announce
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def test_a_client_that_is_cut_off_stops_believing_in_time_and_comes_back(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with Member(proxy.url, service, **FAST) as cut_off:
        await announce(server.url, service, "call-1", "call-2")
        await cut_off.owns("call-1", "call-2")
        leases = list(cut_off.leases)
        beaten_at = time.monotonic() - (cut_off.client.statistics().last_beat_age or 0)
        proxy.freeze()
        beaten_at = max(beaten_at, time.monotonic() - (cut_off.client.statistics().last_beat_age or 0))
        await wait_until(lambda: not cut_off.client.alive, "it stops believing", 5 * TTL)
        assert time.monotonic() - beaten_at < TTL + 0.1
        assert not any(lease.owned for lease in leases)
        await wait_until(lambda: len(cut_off.disowned) == 2, "it is told of each loss")
        await asyncio.sleep(10 * TTL)  # time itself is tested: a long cut
        proxy.cut()
        proxy.thaw()
        await cut_off.owns("call-1", "call-2")
        for lease in leases:
            assert cut_off.lease(lease.stream).fence > lease.fence
            assert not lease.owned
            with pytest.raises(NotOwner):
                await cut_off.client.done(lease)


async def test_a_peer_takes_over_from_a_client_that_is_cut_off(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with Member(proxy.url, service, **FAST) as cut_off:
        await announce(server.url, service, "call-1", "call-2")
        await cut_off.owns("call-1", "call-2")
        async with Member(server.url, service, **FAST) as peer:
            proxy.freeze()
            await peer.owns("call-1", "call-2")
            proxy.cut()
            proxy.thaw()
            await wait_until(lambda: cut_off.client.alive, "the client is back")
            await wait_until(lambda: len(cut_off.disowned) == 2, "it is told of each loss")
            assert cut_off.owned == []
            await peer.owns("call-1", "call-2")


async def test_nothing_is_lost_when_redis_restarts_with_its_data(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    streams = [f"call-{i}" for i in range(20)]
    async with Member(server.url, service, **FAST) as one, Member(server.url, service, **FAST) as other:
        await announce(server.url, service, *streams)
        await wait_until(lambda: sorted(one.owned + other.owned) == sorted(streams), "all are owned")
        server.restart(keep_data=True)
        await wait_until(lambda: one.client.alive and other.client.alive, "both are back")
        for stream in streams:
            while True:
                owner = await wait_until(
                    lambda: next((member for member in (one, other) if stream in member.owned), None),
                    f"{stream} is owned again",
                )
                with contextlib.suppress(NotOwner):  # a restart that took longer than lock_ttl is noticed late
                    await owner.lease(stream).done()
                    break
        assert server.command("XLEN", f"{service}-input") == 0


async def test_all_leases_are_lost_when_redis_restarts_without_its_data(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        server.restart(keep_data=False)
        await wait_until(lambda: len(member.disowned) == 1, "the loss is told")
        await wait_until(lambda: member.client.alive, "it is back")
        await announce(server.url, service, "call-2")
        await member.owns("call-2")


@pytest.mark.parametrize("command", [("DEL", "{lbs}"), ("XGROUP", "DESTROY", "{lbs}", "{group}")])
async def test_a_group_that_is_gone_is_created_anew(
    server: Server, redis: Connection, service: str, command: tuple[str, ...]
) -> None:
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        old = member.lease("call-1")
        words = [word.format(lbs=f"{service}-input", group=f"{service}-group") for word in command]
        await redis.execute_command(*words)
        await wait_until(lambda: old in member.disowned, "the loss is told")
        await announce(server.url, service, "call-2")
        expected = ["call-2"] if command[0] == "DEL" else ["call-1", "call-2"]
        await member.owns(*expected)
        if command[0] == "XGROUP":  # Redis counts deliveries anew; fences grow all the same
            assert member.lease("call-1").fence > old.fence


async def test_a_key_of_another_type_closes_the_client_and_says_so(
    server: Server, redis: Connection, service: str
) -> None:
    client = RedisStreamClient.from_url(server.url, service, **FAST)

    async def work() -> None:
        async with client:
            async with redis.pipeline(transaction=True) as both:
                both.delete(f"{service}-input").rpush(f"{service}-input", "not a stream")
                await both.execute()
            async for _ in client.events():
                pytest.fail("there is no event")

    with pytest.raises(RedisRejected, match="another type"):
        await work()
    assert not client.alive
    assert await redis.exists(f"{{{service}-input}}:lock:{client.id}") == 0


@pytest.mark.parametrize("policy", ["noeviction"])
async def test_a_full_redis_lets_nothing_lapse(
    own_server: Callable[..., Server], service: str, policy: str
) -> None:
    server = own_server("--maxmemory-policy", policy)
    async with Member(server.url, service, **FAST) as one, Member(server.url, service, **FAST) as other:
        await announce(server.url, service, "call-1", "call-2", "call-3", "call-4")
        server.command("XADD", f"{service}-input", "*", "no", "announcement")
        await wait_until(lambda: len(one.owned + other.owned) == 4, "all are owned")
        server.command("CONFIG", "SET", "maxmemory", "1")
        await time_passes(2 * TTL, one.client, other.client)
        lapses = one.client.statistics().lapses + other.client.statistics().lapses
        assert lapses == 0
        member, peer = (one, other) if one.owned else (other, one)
        await member.lease(member.owned[0]).done()
        released = member.owned[0] if member.owned else peer.owned[0]
        holder = member if member.owned else peer
        await holder.lease(released).release()
        await wait_until(lambda: len(one.owned + other.owned) == 3, "it is claimed again")
        server.command("CONFIG", "SET", "maxmemory", "0")


async def test_a_clock_that_is_set_back_keeps_no_dead_consumer_alive(
    server: Server, redis: Connection, service: str
) -> None:
    dead = RedisStreamClient.from_url(server.url, service, lock_ttl=TTL)
    async with dead, Member(server.url, service, **FAST) as peer:
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: len(dead.leases) == 1 and len(peer.owned) == 1, "each has one")
        # As after a jump back of an hour: the lock would live that much longer, and nobody renews it.
        lock = f"{{{service}-input}}:lock:{dead.id}"
        value = await redis.get(lock)
        await dead.aclose()
        assert value is not None
        await redis.set(lock, value, px=3_600_000)
        await peer.owns("call-1", "call-2")


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe", b"released", b"claimed", b"left nobody", b"dead \xff", b"{}", b"x" * 100_000]
)
async def test_garbage_on_the_control_channel_is_ignored(
    server: Server, redis: Connection, service: str, garbage: bytes
) -> None:
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await redis.publish(f"{{{service}-input}}:control", garbage)
        await redis.publish(f"__keyspace@0__:{{{service}-input}}:lock:{garbage!r}", "expired")
        await announce(server.url, service, "call-2")
        await member.owns("call-1", "call-2")
        assert member.disowned == []


async def test_script_flush_client_kill_and_a_pause_go_unnoticed(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=2.0) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        for round_ in range(3):
            await redis.script_flush()
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await announce(server.url, service, f"more-{round_}")
            await wait_until(lambda: f"more-{round_}" in member.owned, "a new stream arrives")
        await redis.execute_command("CLIENT", "PAUSE", "700", "ALL")
        await announce(server.url, service, "last")
        await wait_until(lambda: "last" in member.owned, "a new stream arrives")
        assert member.disowned == []
        assert member.client.statistics().lapses == 0
        await member.client.done(member.lease("call-1"))


async def test_a_blocked_event_loop_is_like_a_stopped_process(server: Server, service: str) -> None:
    async with Member(server.url, service, **FAST) as blocked:
        await announce(server.url, service, "call-1", "call-2")
        await blocked.owns("call-1", "call-2")
        lease = blocked.lease("call-1")
        time.sleep(3 * TTL)  # noqa: ASYNC251 - this is the fault
        assert not lease.owned
        await wait_until(lambda: lease.owned, "nobody took it, so it is kept")
        assert blocked.disowned == []


async def test_an_abandoned_read_that_is_served_late_is_adopted(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with Member(proxy.url, service, **FAST) as member:
        fault = proxy.hold_replies_after(b"XREADGROUP", connections=1)
        await wait_until(lambda: fault.matched, "a read is on its way")
        await announce(server.url, service, "call-1")
        await member.owns("call-1", timeout=10 * TTL)
        fault.release()
        await announce(server.url, service, "call-2")
        await member.owns("call-1", "call-2")


async def test_leaving_while_redis_is_away_takes_half_a_second_at_most(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    client = RedisStreamClient.from_url(server.url, service)
    async with client:
        await announce(server.url, service, "call-1")
        async for event in client.events():
            assert isinstance(event, StreamAdded)
            break
        server.freeze()
        started = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await client.aclose()
        assert time.monotonic() - started < 0.7
    server.thaw()
