"""Ring 3: a replica that has not heard of the last writes takes its master's place."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_client import Fence, NotOwner
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.proxy import TcpProxy
from tests.harness.runs import Ledger, Running, record, write
from tests.harness.sentinel import Pair, replicate
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from redis_stream_client import Lease
    from tests.harness.connection import Connection

CALL = "call-1"


class Address:
    """One address for a fleet, behind which is the master, and then the replica that was promoted."""

    def __init__(self, pair: Pair, proxy: TcpProxy) -> None:
        self._pair = pair
        self._proxy = proxy
        self.url = proxy.url

    async def is_left_behind(self) -> None:
        """From now on the replica hears of nothing."""
        await asyncio.to_thread(self._pair.cut_off_the_replica)

    async def fails_over(self) -> None:
        """The replica takes the master's place."""
        await asyncio.to_thread(self._pair.promote_the_replica)
        self._proxy.upstream_port = self._pair.replica.port
        self._proxy.cut()


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy:
            yield Address(pair, proxy)


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncGenerator[Connection]:
    async with Redis.from_url(address.url) as redis:
        yield redis


async def test_an_audit_after_the_reconnect_finds_what_was_lost_and_raises_the_fences(
    address: Address, service: str
) -> None:
    """The locks outlive it all, so that nothing but the reconnect tells that something may have happened."""
    async with Member(address.url, service, lock_ttl=20.0) as member:
        await announce(address.url, service, CALL, "call-2")
        await member.owns(CALL, "call-2")
        kept = member.lease("call-2")
        await address.is_left_behind()
        async with Member(address.url, service, lock_ttl=20.0) as peer:
            await member.lease(CALL).release()
            await peer.owns(CALL)
            await peer.lease(CALL).release()
            await member.owns(CALL, "call-2")
            old = member.lease(CALL)
            assert old.deliveries == 3
        await announce(address.url, service, "lost")
        await member.owns(CALL, "call-2", "lost")
        lost = member.lease("lost")

        await address.fails_over()
        await wait_until(lambda: {old, lost} <= set(member.disowned), "the audit disowns what Redis has forgotten")
        await member.owns(CALL, "call-2")
        assert kept.owned
        assert member.client.statistics().lapses == 0
        new = member.lease(CALL)
        assert new.fence > old.fence  # though the replica counted from 1 again
        async with connected(address) as redis:
            pending = await redis.xpending_range(Keys(service).lbs, Keys(service).group, "-", "+", 10)
        assert {entry["message_id"].decode(): entry["times_delivered"] for entry in pending} == {
            lease.lbs_id: lease.deliveries for lease in (new, kept)
        }
        for zombie in (old, lost):
            with pytest.raises(NotOwner):
                await zombie.done()
        await new.done()
        await kept.done()


async def test_no_checkpoint_of_the_owner_that_was_forgotten_is_accepted_beside_the_new_ones(
    address: Address, service: str
) -> None:
    """A stream went from one to the other, which got on with it; the replica has heard of none of that."""
    ledger = Ledger()
    shares = asyncio.Event()
    ids = await write(address.url, CALL, 40)

    async def gives_away(lease: Lease) -> None:
        """Accept 20 entries, and release when told so; the second time, all."""
        if lease.deliveries > 1:
            await ledger.follow(lease)
            return
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            ledger.accepted[CALL].append(entry.id)
            if entry.id == ids[19]:
                await shares.wait()
                await lease.release()
                return

    async with Running(address.url, service, gives_away, lock_ttl=5.0) as first:
        await announce(address.url, service, CALL)
        await ledger.reached({CALL: 20})
        await address.is_left_behind()
        async with Running(address.url, service, ledger.follow, lock_ttl=5.0) as second:
            shares.set()
            await ledger.reached({CALL: 40})
            forgotten = await second.lease(CALL)
            before = len(ledger.accepted[CALL])
            await address.fails_over()
            enough = asyncio.Event()
            writing = asyncio.create_task(keep_writing(address.url, enough))
            await wait_until(lambda: first.working and not second.working, "the first one has it again")
            enough.set()
            await writing
            await write(address.url, CALL, 1, end=True)
            await wait_until(lambda: first.client.statistics().streams_done == 1, "it is finished")
            with pytest.raises(NotOwner):
                await forgotten.checkpoint("99999999999999-0")
        again = await first.lease(CALL, nth=2)
        async with connected(address) as redis:
            stored = await record(redis, service, CALL)
            ids = [id.decode() for id, _ in await redis.xrange(CALL)]
        # What Redis has forgotten is accepted anew, and all that follows: by one of them, once and in order.
        assert ledger.accepted[CALL][before:] == ids[20:]
        assert (stored["checkpoint"], stored["consumer"]) == (ids[-1], first.client.id)
        assert Fence.parse(stored["fence"]) == again.fence


async def keep_writing(url: str, enough: asyncio.Event) -> None:
    """As far as it can be."""
    async with Redis.from_url(url, socket_timeout=1.0) as redis:
        while not enough.is_set():
            with contextlib.suppress(RedisError, OSError):
                await redis.xadd(CALL, {"n": 1})
            await asyncio.sleep(0.01)
