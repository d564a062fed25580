"""A session talks to one server history: whoever meets another one takes all connections along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.keys import Keys
from tests.harness.fleet import announce
from tests.harness.proxy import TcpProxy
from tests.harness.runs import Running, idle
from tests.harness.sentinel import replicate
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.servers import Server


def ours(server: Server) -> set[str]:
    """The commands that were last sent on the connections that others have to a server."""
    lines = server.command("CLIENT", "LIST").decode().splitlines()
    clients = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return {client["cmd"] for client in clients if client["flags"] not in "SM" and "client" not in client["cmd"]}


async def test_when_an_address_leads_to_another_server_one_broken_connection_takes_all_along(service: str) -> None:
    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy, Running(proxy.url, service, idle, lock_ttl=1.0) as member:
            await announce(pair.master.url, service, "call-1")
            await wait_until(lambda: member.working == ["call-1"], "it is handled")
            pair.in_step()
            pair.replica.command("REPLICAOF", "NO", "ONE")  # and the old master goes on answering, for itself
            proxy.upstream_port = pair.replica.port
            session = member.client._lifecycle.session
            assert session is not None
            session._beats.drop(ConnectionError("this one breaks"))
            await wait_until(lambda: not ours(pair.master), "nothing is connected to the old master", timeout=5)
            await wait_until(lambda: member.client.alive, "it is alive")
            lock = Keys(service).lock(member.client.id)
            assert pair.replica.command("PTTL", lock) > 0
            assert member.working == ["call-1"]


async def test_a_planned_fail_over_shorter_than_the_lock_costs_nothing(service: str) -> None:
    cancelled: list[str] = []

    async def handle(lease: Lease) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(lease.stream)
            raise

    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy, Running(proxy.url, service, handle) as member:
            await announce(pair.master.url, service, "call-1", "call-2")
            await wait_until(lambda: len(member.working) == 2, "they are handled")
            pair.in_step()
            pair.change_places()
            proxy.upstream_port = pair.master.port
            await wait_until(lambda: not ours(pair.replica), "all have moved", timeout=5)
            await announce(pair.master.url, service, "call-3")
            await wait_until(lambda: "call-3" in member.working, "a new one is read", timeout=5)
            assert (cancelled, member.client.statistics().lapses) == ([], 0)


@pytest.mark.parametrize("what", ["_beats", "_commands", "_reads"])
async def test_a_connection_that_is_merely_cut_takes_nobody_along(server: Server, service: str, what: str) -> None:
    async with Running(server.url, service, idle) as member:
        session = member.client._lifecycle.session
        assert session is not None
        links = {name: getattr(session, name) for name in ("_beats", "_commands", "_reads")}
        await wait_until(lambda: all(link.connections == 1 for link in links.values()), "all are connected")
        links[what].drop(ConnectionError("cut"))
        await wait_until(lambda: links[what].connections == 2, "it is connected again")
        assert [link.losses for name, link in links.items() if name != what] == [0, 0]
