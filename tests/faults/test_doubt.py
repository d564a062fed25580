"""Doubt: a client that may have been taken for dead believes nothing until Redis has answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.presence_state import LEAST_GRACE
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.presence import PresenceScripts
from redis_stream_client._protocol.replies import Watch
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

BEAT = 1 / 4
"""Of `lock_ttl`: the time between two beats."""

TIMEOUT = 0.5
"""Seconds that a beat may take."""

SLACK = 0.15
"""Seconds that a busy machine may be late."""

BOTH = pytest.mark.parametrize("lock_ttl", [2.0, pytest.param(10.0, marks=pytest.mark.long)])


class Belief:
    """What a member believes about a lease, and for how long it did after a fault."""

    def __init__(self, member: Member, lease: Lease) -> None:
        self.member = member
        self.lease = lease
        self._beat_at = self._last_beat()

    def _last_beat(self) -> float:
        age = self.member.client.statistics().last_beat_age
        assert age is not None
        return clock.now() - age

    async def doubted(self, within: float) -> float:
        """Wait until the lease is not owned. Returns the seconds since the last beat that was answered."""

        def doubted() -> bool:
            assert self.member.client.alive
            if self.lease.owned:
                self._beat_at = self._last_beat()
            return not self.lease.owned

        await wait_until(doubted, "it is in doubt", within)
        return clock.now() - self._beat_at

    async def held_again(self) -> None:
        """Wait for the end of the doubt, which must cost nothing."""

        def held() -> bool:
            assert self.member.client.alive
            return self.lease.owned

        await wait_until(held, "the doubt ends")
        self.costs_nothing()

    def costs_nothing(self) -> None:
        """Nothing was lost, and nobody was told."""
        assert self.member.disowned == []
        assert self.member.client.statistics().lapses == 0
        assert self.member.leases == [self.lease]
        assert self.lease.owned


@contextlib.asynccontextmanager
async def declared(url: str, server: Server, service: str, lock_ttl: float) -> AsyncGenerator[Belief]:
    """A member that has declared its presence, and owns a stream."""
    async with Member(url, service, lock_ttl=lock_ttl) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await is_declared(member)
        yield Belief(member, member.lease("call-1"))


async def is_declared(member: Member) -> None:
    """Wait until peers may take it for dead."""
    await wait_until(lambda: member.client.statistics().presence.state == "declared", "it is declared")


@BOTH
async def test_a_network_that_closes_connections_towards_the_server_alone_means_doubt_in_time(
    server: Server, proxy: TcpProxy, service: str, lock_ttl: float
) -> None:
    """And lets nobody connect again: only the clock can tell."""
    async with declared(proxy.url, server, service, lock_ttl) as belief:
        await proxy.refuse()
        proxy.vanish()
        took = await belief.doubted(within=lock_ttl)
        assert took < BEAT * lock_ttl + TIMEOUT + SLACK
        await proxy.accept()
        await belief.held_again()


@BOTH
async def test_who_is_deposed_by_such_a_network_learns_it_with_the_next_connection(
    server: Server, proxy: TcpProxy, service: str, lock_ttl: float
) -> None:
    async with (
        declared(proxy.url, server, service, lock_ttl) as belief,
        Member(server.url, service, lock_ttl=lock_ttl) as peer,
    ):
        await wait_until(lambda: peer.client.statistics().presence.members == 2, "the peer has looked")
        began = clock.now()
        proxy.vanish()
        await wait_until(lambda: not belief.lease.owned, "it is in doubt, or knows", lock_ttl)
        assert clock.now() - began < BEAT * lock_ttl + TIMEOUT + SLACK
        await wait_until(lambda: belief.lease in belief.member.disowned, "it is told")
        await peer.owns("call-1")
        assert peer.lease("call-1").fence > belief.lease.fence


async def test_who_is_cut_off_is_in_doubt_when_half_its_grace_is_over(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with declared(proxy.url, server, service, 10.0) as belief:
        await proxy.refuse()
        began = clock.now()
        proxy.cut()
        await belief.doubted(within=1.0)
        assert clock.now() - began < LEAST_GRACE / 2 + SLACK
        await proxy.accept()
        await belief.held_again()


async def test_who_is_cut_off_does_not_believe_when_a_peer_has_its_streams(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    async with (
        declared(proxy.url, server, service, 10.0) as belief,
        Member(server.url, service, lock_ttl=10.0) as peer,
    ):
        await wait_until(lambda: peer.client.statistics().presence.members == 2, "the peer has looked")
        await proxy.refuse()
        proxy.cut()

        def taken() -> bool:
            assert not (belief.lease.owned and peer.owned)
            return bool(peer.owned)

        await wait_until(taken, "the peer has taken over", 2.0)
        await proxy.accept()
        await wait_until(lambda: belief.lease in belief.member.disowned, "it is told")


@BOTH
async def test_beats_whose_replies_are_lost_mean_doubt_that_ends_with_the_first_answer(
    server: Server, proxy: TcpProxy, service: str, lock_ttl: float
) -> None:
    async with declared(proxy.url, server, service, lock_ttl) as belief:
        proxy.drop_replies_after(b"PEXPIRE")
        took = await belief.doubted(within=lock_ttl)
        assert took < BEAT * lock_ttl + TIMEOUT + SLACK
        proxy.heal()
        await belief.held_again()


@pytest.mark.long
async def test_after_a_blocked_loop_nothing_is_believed_until_redis_has_answered(
    server: Server, service: str
) -> None:
    async with declared(server.url, server, service, 10.0) as belief:
        time.sleep(3.0)  # noqa: ASYNC251 - this is the fault
        assert not belief.lease.owned
        assert belief.member.client.alive
        await belief.held_again()


async def test_a_subscription_that_is_cut_again_and_again_costs_nothing(
    server: Server, redis: Connection, service: str
) -> None:
    async with declared(server.url, server, service, 2.0) as belief:

        def withdrawals() -> int:
            return belief.member.client.statistics().presence.withdrawals

        for n in range(1, 21):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await wait_until(lambda: withdrawals() >= n, "it has withdrawn")
            assert belief.member.client.alive
            await is_declared(belief.member)
        await belief.held_again()


async def test_an_answer_that_comes_after_the_loss_and_the_withdrawal_means_no_doubt(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would end it."""
    asked, answers = asyncio.Event(), asyncio.Event()

    async def watch(scripts: PresenceScripts, *arguments: object) -> Watch:
        asked.set()
        await answers.wait()
        monkeypatch.undo()
        return Watch("blind")

    async with declared(proxy.url, server, service, 10.0) as belief:
        monkeypatch.setattr(PresenceScripts, "watch", watch)
        await asked.wait()
        await proxy.refuse()  # the open connections stay
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await wait_until(lambda: belief.member.client.statistics().presence.withdrawals, "it has withdrawn")
        answers.set()
        await asyncio.sleep(0)
        await proxy.accept()
        await is_declared(belief.member)
        await belief.held_again()


async def test_a_loop_that_was_blocked_while_its_subscription_was_cut_keeps_what_nobody_took(
    server: Server, redis: Connection, service: str
) -> None:
    async with declared(server.url, server, service, 2.0) as belief:
        with server.commands() as command:
            command("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(0.4)  # noqa: ASYNC251 - longer than its grace
        await is_declared(belief.member)
        await belief.held_again()


async def test_a_deposed_member_lapses_and_keeps_what_nobody_took(
    server: Server, redis: Connection, service: str
) -> None:
    async with declared(server.url, server, service, 2.0) as belief:
        keys = Keys(service)
        await redis.delete(keys.lock(belief.member.client.id), keys.present)  # as a peer does
        await wait_until(lambda: belief.member.client.statistics().lapses == 1, "it has noticed")
        await wait_until(lambda: belief.lease.owned, "nobody took it, so it is kept")
        assert belief.member.disowned == []
        await is_declared(belief.member)
