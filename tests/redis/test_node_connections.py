"""Connections to the nodes of a cluster: kept for a while, closed in time, and never too many."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client._redis import node_connections, wire
from redis_stream_client._redis.endpoint import Endpoint, endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.node_connections import MOST, NodeConnections, NotLent
from tests.harness.loops import loop_factory
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

SOON = 2.0


@pytest.fixture
def node(server: Server) -> Endpoint:
    return endpoint_for(Redis.from_url(server.url), "key")


async def ask(connections: NodeConnections, node: Endpoint) -> Any:
    """Use a connection; the connection that it was."""
    async with connections.lent(node, SOON, SOON) as connection:
        assert await wire.roundtrip(connection, SOON, "PING") == b"PONG"
    return connection


async def test_a_connection_is_used_again(node: Endpoint) -> None:
    connections = NodeConnections()
    assert await ask(connections, node) is await ask(connections, node)


async def test_one_that_was_closed_is_not(node: Endpoint, redis: Connection) -> None:
    connections = NodeConnections()
    first = await ask(connections, node)
    await redis.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.05)  # time itself: what the server did arrives here
    second = await ask(connections, node)
    assert second is not first
    async with connections.lent(node, SOON, SOON) as connection:
        wire.abort(connection)
    assert await ask(connections, node) is not connection


async def test_one_whose_user_fails_is_closed(node: Endpoint) -> None:
    connections = NodeConnections()

    async def fail() -> None:
        async with connections.lent(node, SOON, SOON):
            raise KeyError

    for _ in range(2 * MOST):
        with pytest.raises(KeyError):
            await fail()
    await ask(connections, node)


async def test_those_that_nobody_uses_are_closed(
    node: Endpoint, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_connections, "KEPT", 0.2)
    before = len(clients_of(server))
    connections = NodeConnections()
    first = await ask(connections, node)
    await asyncio.sleep(0.15)  # time itself
    assert await ask(connections, node) is first
    await asyncio.sleep(0.15)  # time itself
    assert wire.is_open(first), "it was used meanwhile"
    await wait_until(lambda: len(clients_of(server)) == before, "it is closed")
    assert await ask(connections, node) is not first


async def test_to_a_node_that_does_not_answer_none_is_kept(node: Endpoint) -> None:
    connections = NodeConnections()
    first = await ask(connections, node)
    connections.close(node)
    assert not wire.is_open(first)


async def test_who_wants_one_too_many_waits(node: Endpoint, server: Server) -> None:
    connections = NodeConnections()
    used: set[Any] = set()
    now = most = 0

    async def use() -> None:
        nonlocal now, most
        async with connections.lent(node, SOON, SOON) as connection:
            now += 1
            most = max(most, now)
            used.add(connection)
            await wire.roundtrip(connection, SOON, "PING")
            now -= 1

    await asyncio.gather(*(use() for _ in range(5 * MOST)))
    assert most <= MOST
    assert len(used) <= MOST


async def test_the_wait_is_bounded(node: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_connections, "MOST", 1)
    connections = NodeConnections()
    async with connections.lent(node, SOON, SOON):
        with pytest.raises(Unanswered, match="in use") as raised:
            async with connections.lent(node, SOON, 0.05):
                pass
    assert isinstance(raised.value, NotLent)
    assert not raised.value.maybe_executed
    await ask(connections, node)


async def test_who_waits_longer_than_it_takes_to_connect_gets_one(
    node: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_connections, "MOST", 1)
    connections = NodeConnections()

    async def use() -> None:
        async with connections.lent(node, 0.2, SOON) as connection:
            await asyncio.sleep(0.15)  # time itself
            wire.abort(connection)

    await asyncio.gather(*(use() for _ in range(4)))


async def test_who_waits_for_a_node_that_does_not_answer_is_told(
    node: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise hundreds wait for it by turns, though another node has taken its place."""
    monkeypatch.setattr(node_connections, "MOST", 1)
    connections = NodeConnections()
    async with connections.lent(node, SOON, SOON):
        waiting = [asyncio.create_task(ask(connections, node)) for _ in range(3)]
        await asyncio.sleep(0)
        connections.close(node)
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, NotLent)
        assert not answer.maybe_executed
    await ask(connections, node)


async def test_a_node_that_is_not_there(proxy: TcpProxy) -> None:
    await proxy.refuse()
    connections = NodeConnections()
    with pytest.raises(Unanswered) as raised:
        await ask(connections, endpoint_for(Redis.from_url(proxy.url), "key"))
    assert not raised.value.maybe_executed


@pytest.mark.parametrize("dropped", [False, True])
def test_at_the_end_of_a_loop_all_are_closed_and_nothing_warns(server: Server, dropped: bool) -> None:
    before = len(clients_of(server))
    node = endpoint_for(Redis.from_url(server.url), "key")
    kept: list[NodeConnections] = []

    async def main() -> None:
        connections = NodeConnections()
        if not dropped:
            kept.append(connections)
        await ask(connections, node)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(main())
            gc.collect()
    assert len(clients_of(server)) == before
