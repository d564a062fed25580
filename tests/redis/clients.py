"""A user's client of a cluster, and where its connections lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from redis_stream_client._redis import wire
from tests.harness.ports import HOST

if TYPE_CHECKING:
    from redis_stream_client._redis.endpoint import Endpoint


class Listening(Protocol):
    """What connections are made to."""

    port: int


def settings(*nodes: Listening, **more: Any) -> RedisCluster:
    """The settings of a cluster with these startup nodes."""
    return RedisCluster(startup_nodes=[ClusterNode(HOST, node.port) for node in nodes], **more)


async def connects(where: Endpoint, timeout: float = 2.0) -> int:
    """Open a connection, close it, and return the port it led to."""
    connection: Any = await where.open(timeout)
    wire.abort(connection)
    return int(connection.port)
