"""Ring 3: networks that cut off living members: never do two believe that they own the same stream for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.presence import LONG, SOON, all_present, beliefs, declared, deposed, nothing_is_lost, withdrawn
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALLS = ("call-1", "call-2", "call-3")
SLACK = 0.2
"""Seconds that a busy machine may be late."""

SELF_CHECK = 0.12
"""Seconds, at the most, between two looks of one of two members."""


async def test_a_network_that_goes_silent_without_closing_anything_leaves_it_to_the_lock(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """As a host that loses its network or its power: Redis hears nothing, and waits."""
    async with Member(proxy.url, service, lock_ttl=2.0) as cut_off:
        await announce(server.url, service, *CALLS)
        await cut_off.owns(*CALLS)
        async with (
            Member(server.url, service, lock_ttl=2.0) as peer,
            beliefs(cut_off, peer) as belief,
        ):
            await all_present(redis, service, cut_off.client.id, peer.client.id)
            proxy.freeze()
            left: int = await redis.pttl(Keys(service).lock(cut_off.client.id))
            expiry = time.monotonic() + left / 1000
            await wait_until(lambda: not cut_off.owned, "it is in doubt, and then it stops believing")
            await peer.owns(*CALLS)
            assert time.monotonic() > expiry - 0.05
            assert deposed(peer) == 0
            assert belief.both == 0.0
            proxy.cut()
            proxy.thaw()
            await declared(cut_off)
            assert len(cut_off.disowned) == len(CALLS)


async def test_one_that_hears_that_its_listener_is_cut_and_cannot_withdraw_is_in_doubt_before_peers_take_over(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    async with Member(proxy.url, service, lock_ttl=LONG) as cut_off:
        await announce(server.url, service, *CALLS)
        await cut_off.owns(*CALLS)
        async with (
            Member(server.url, service, lock_ttl=LONG) as peer,
            beliefs(cut_off, peer) as belief,
        ):
            await all_present(redis, service, cut_off.client.id, peer.client.id)
            proxy.freeze(replies=False)  # what it says is held up; what it hears is not
            cut = time.monotonic()
            await redis.client_kill_filter(_type="pubsub")
            await wait_until(lambda: not cut_off.owned, "it is in doubt")
            assert cut_off.client.alive
            await peer.owns(*CALLS)
            assert time.monotonic() - cut < SOON + 1.0  # both were cut off, which takes a second more
            assert belief.both == 0.0
            proxy.cut()
            proxy.thaw()
            await wait_until(lambda: len(cut_off.disowned) == len(CALLS), "it knows what it lost")
            await declared(cut_off, peer)
            assert peer.disowned == []


@pytest.mark.parametrize("after", ["new connections work", "nothing works"])
@pytest.mark.parametrize("lock_ttl", [2.0, LONG])
async def test_a_network_that_closes_connections_towards_redis_alone_leaves_two_believers_for_a_moment(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, lock_ttl: float, after: str
) -> None:
    """The one that heard nothing asks who watches, and is in doubt when it has had no answer for half a second."""
    async with Member(proxy.url, service, lock_ttl=lock_ttl) as cut_off:
        await announce(server.url, service, *CALLS)
        await cut_off.owns(*CALLS)
        async with (
            Member(server.url, service, lock_ttl=lock_ttl) as peer,
            beliefs(cut_off, peer) as belief,
        ):
            await all_present(redis, service, cut_off.client.id, peer.client.id)
            cut = time.monotonic()
            proxy.vanish()
            if after == "nothing works":
                proxy.freeze()
            await peer.owns(*CALLS)
            assert time.monotonic() - cut < SOON
            assert deposed(peer) == 1
            await wait_until(lambda: not cut_off.owned, "it is in doubt, or knows")
            assert belief.both < SELF_CHECK + 0.5 + SLACK + 2 * belief.gap
            proxy.cut()
            proxy.thaw()
            await wait_until(lambda: len(cut_off.disowned) == len(CALLS), "it knows what it lost")
            await declared(cut_off, peer)
            assert peer.disowned == []


async def test_connections_that_are_reset_on_both_sides_cost_nothing(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """As a proxy that restarts: it is back at once."""
    async with Member(proxy.url, service, lock_ttl=LONG) as cut_off:
        await announce(server.url, service, *CALLS)
        await cut_off.owns(*CALLS)
        async with Member(server.url, service, lock_ttl=LONG) as peer:
            await all_present(redis, service, cut_off.client.id, peer.client.id)
            async with nothing_is_lost(cut_off, peer):
                for times in (1, 2, 3):
                    proxy.cut()
                    await withdrawn(cut_off, times=times)
                    await declared(cut_off)
