"""Ring 3: the server's clock is set forward or back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from redis.asyncio import Redis

from redis_stream_client._model.keys import Keys
from tests.harness.clocks import ClockedServer
from tests.harness.fleet import Member, announce
from tests.harness.flow import flowing
from tests.harness.runs import Running, owners
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import bodies, ghost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

TTL = 0.8
HOUR = 3_600
FAST: dict[str, Any] = {"lock_ttl": TTL}

JUMP = """
    local keys = redis.call('KEYS', ARGV[1])
    for _, key in ipairs(keys) do
      local left = redis.call('PTTL', key)
      if left >= 0 then redis.call('PEXPIRE', key, left - 1000 * ARGV[2]) end
    end
    return #keys
"""


class Emulated:
    """A server to the keys of whose service the same happens as if its clock had been set."""

    def __init__(self, server: Server, service: str) -> None:
        self.url = server.url
        self._server = server
        self._pattern = Keys(service).lock("*").replace("lock:", "")

    def jump(self, seconds: float) -> None:
        """Set it forward or back."""
        assert self._server.command("EVAL", JUMP, 0, self._pattern, seconds)


Clock: TypeAlias = Emulated | ClockedServer


@pytest.fixture(params=["emulated", "real"])
def clock(request: pytest.FixtureRequest, service: str) -> Iterator[Clock]:
    if request.param == "real":
        with ClockedServer() as server:
            yield server
    else:
        yield Emulated(request.getfixturevalue("server"), service)


@contextlib.asynccontextmanager
async def connected(clock: Clock) -> AsyncGenerator[Connection]:
    async with Redis.from_url(clock.url) as redis:
        yield redis


async def test_a_clock_that_is_set_forward_lets_all_locks_lapse_and_nothing_is_stolen(
    clock: Clock, service: str
) -> None:
    url = clock.url
    async with Member(url, service, **FAST) as one, Member(url, service, **FAST) as other:
        await announce(url, service, *(f"call-{i}" for i in range(20)))
        await wait_until(lambda: len(one.owned + other.owned) == 20, "all are owned")
        held = one.owned, other.owned
        clock.jump(HOUR)
        await wait_until(lambda: all(m.client.statistics().lapses for m in (one, other)), "both lapse")
        await wait_until(lambda: one.client.alive and other.client.alive, "both resume")
        sweeps = max(member.client.statistics().sweeps for member in (one, other))
        await wait_until(
            lambda: all(member.client.statistics().sweeps > sweeps + 1 for member in (one, other)),
            "both have looked for dead ones again",
        )
        assert (one.owned, other.owned) == held
        assert one.disowned == other.disowned == []
        assert {lease.deliveries for lease in one.leases + other.leases} == {1}
        await announce(url, service, "one more")
        await wait_until(lambda: len(one.owned + other.owned) == 21, "announcements go on")


async def test_a_clock_that_is_set_back_keeps_no_dead_consumer_alive_for_handlers(
    clock: Clock, service: str
) -> None:
    """Its lock would live for an hour more; and reads that are blocked would not end before."""
    async with connected(clock) as redis, Running(clock.url, service, **FAST) as run:
        await ghost(redis, service, bodies(["call-1", "call-2"]), lives=TTL)
        clock.jump(-HOUR)
        await run.handles("call-1", "call-2", timeout=10 * TTL)
        await announce(clock.url, service, "call-3")
        await run.handles("call-1", "call-2", "call-3")
        assert run.client.statistics().lapses == 0
        lock = Keys(service).lock(run.client.id)
        assert 0 < await redis.pttl(lock) <= TTL * 1000  # its own is no longer than ever


async def test_a_clock_that_is_set_back_keeps_no_dead_consumer_alive(clock: Clock, service: str) -> None:
    async with connected(clock) as redis, Member(clock.url, service, **FAST) as member:
        await ghost(redis, service, bodies(["call-1", "call-2"]), lives=TTL)
        clock.jump(-HOUR)
        await member.owns("call-1", "call-2", timeout=10 * TTL)
        assert member.client.statistics().lapses == 0


async def test_what_flows_goes_on_whatever_the_clock_does(clock: Clock, service: str) -> None:
    url = clock.url
    async with flowing(url, service, url, url, **FAST) as flow, connected(clock) as redis:
        before = await owners(redis, service)
        for seconds in (HOUR, -2 * HOUR, HOUR):
            clock.jump(seconds)
            await wait_until(lambda: all(client.client.alive for client in flow.clients), "both are members")
            await flow.goes_on()
            await asyncio.sleep(TTL)  # a sweep of everybody, in which something could be stolen
            assert await owners(redis, service) == before
        assert sum(len(client.leases) for client in flow.clients) == len(flow.streams)


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_take_over_that_began_before_all_locks_were_gone_waits_for_the_others_to_resume(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, *, resumes: bool
) -> None:
    """It heard of the dead before it missed its own lock; its peer may be as alive as itself, and resume in time.

    One that does not is looked at again then, though no event tells of it any more.
    """
    keys = Keys(service)
    async with Running(proxy.url, service, lock_ttl=3.0) as run:
        await redis.config_set("notify-keyspace-events", "")
        peer = await ghost(redis, service, bodies(["call-1", "call-2"]), lives=60)
        before = await owners(redis, service)
        value = await redis.get(keys.lock(peer))
        sweeps = run.client.statistics().sweeps
        await wait_until(lambda: run.client.statistics().sweeps > sweeps, "its next turn is some time away")
        held = proxy.hold_replies_after(b"XINFO", connections=1)
        await redis.publish(keys.control, f"dead {peer}")
        await wait_until(lambda: held.matched, "it looks at what the peer has")
        async with redis.pipeline(transaction=True) as forward:
            forward.delete(keys.lock(peer), keys.lock(run.client.id))
            await forward.execute()
        await wait_until(lambda: run.client.statistics().lapses, "it misses its own lock")
        await wait_until(lambda: redis.exists(keys.lock(run.client.id)), "it resumes")
        await asyncio.sleep(0.3)  # a look that takes long is not soon repeated, unless it brought nothing
        held.release()
        await wait_until(lambda: run.client.alive, "it is back")
        beats = run.client.statistics().beats
        await wait_until(lambda: run.client.statistics().beats > beats, "it beats")
        if not resumes:
            await run.handles("call-1", "call-2", timeout=4.0)
            return
        await redis.set(keys.lock(peer), value, px=60_000)
        sweeps = run.client.statistics().sweeps
        await wait_until(lambda: run.client.statistics().sweeps > sweeps, "it looks round again")
        assert await owners(redis, service) == before
        assert run.leases == []
