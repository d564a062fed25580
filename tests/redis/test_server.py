"""Which server a connection has met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client import RedisRejected
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.server import ServerIdentity
from tests.harness.sentinel import replicate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.cluster import Cluster
    from tests.harness.servers import Server


async def meet(identity: ServerIdentity, server: Server, user: str = "default") -> None:
    """Greet on a new connection."""
    redis = Redis.from_url(server.url, username=user, password="x" if user != "default" else None)
    connection = await endpoint_for(redis, "key").open(5.0)
    try:
        await identity(connection, 5.0)
    finally:
        wire.abort(connection)


async def test_a_server_that_stays_as_it_is_has_one_history(server: Server) -> None:
    told: list[str] = []
    identity = ServerIdentity(told.append)
    assert identity.history is None
    await meet(identity, server)
    first = identity.history
    await meet(identity, server)
    assert first is not None
    assert (identity.history, told) == (first, [])


async def test_a_server_that_was_restarted_has_another_history(own_server: Callable[..., Server]) -> None:
    server = own_server()
    told: list[str] = []
    identity = ServerIdentity(told.append)
    await meet(identity, server)
    server.restart(keep_data=True)
    await meet(identity, server)
    assert told == [identity.history]


async def test_a_replica_is_not_responsible() -> None:
    with replicate() as pair:
        with pytest.raises(Unanswered, match="replica") as raised:
            await meet(ServerIdentity(), pair.replica)
        assert raised.value.elsewhere
        await meet(ServerIdentity(), pair.master)


async def test_a_node_of_a_cluster_is_refused_by_who_does_not_follow_slots(cluster: Cluster) -> None:
    await meet(ServerIdentity(clustered=True), cluster.nodes[0])
    with pytest.raises(RedisRejected, match="RedisCluster"):
        await meet(ServerIdentity(clustered=False), cluster.nodes[0])


async def test_where_info_is_not_permitted_there_is_no_history(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.command("ACL", "SETUSER", "blind", "on", ">x", "~*", "+@all", "-info")
    identity = ServerIdentity()
    await meet(identity, server, "blind")
    assert identity.history is None
