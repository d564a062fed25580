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
from tests.harness.servers import Server, clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease


SHARED = ("beats", "commands", "reads")
"""What the connections of a session are for."""


def ours(server: Server) -> dict[str, str]:
    """What the connections to a server are for, and their ids."""
    return {client["name"].partition(":")[2]: client["id"] for client in clients_of(server)}


async def all_connected(server: Server) -> dict[str, str]:
    """Wait until all of the session's connections are there; returns their ids."""

    def there() -> dict[str, str] | None:
        ids = {role: id for role, id in ours(server).items() if role in SHARED}
        return ids if len(ids) == len(SHARED) else None

    return await wait_until(there, "all are connected")


async def test_when_an_address_leads_to_another_server_one_broken_connection_takes_all_along(service: str) -> None:
    with replicate() as pair:
        async with TcpProxy(pair.master.port) as proxy, Running(proxy.url, service, idle, lock_ttl=1.0) as member:
            await announce(pair.master.url, service, "call-1")
            await wait_until(lambda: member.working == ["call-1"], "it is handled")
            pair.in_step()
            pair.replica.command("REPLICAOF", "NO", "ONE")  # and the old master goes on answering, for itself
            proxy.upstream_port = pair.replica.port
            pair.master.command("CLIENT", "KILL", "ID", ours(pair.master)["beats"])  # this one breaks
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


@pytest.mark.parametrize("role", SHARED)
async def test_a_connection_that_is_merely_cut_takes_nobody_along(server: Server, service: str, role: str) -> None:
    async with Running(server.url, service, idle):
        before = await all_connected(server)
        server.command("CLIENT", "KILL", "ID", before[role])
        await wait_until(lambda: ours(server).get(role, before[role]) != before[role], "it is connected again")
        after = await all_connected(server)
        assert {one for one in SHARED if after[one] != before[one]} == {role}
