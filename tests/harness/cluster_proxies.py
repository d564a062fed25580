"""A cluster behind proxies: one before each node, and a client that knows no other way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from tests.harness.ports import HOST
from tests.harness.proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection


class ClusterProxies:
    """The proxies of a cluster's nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.by_port = {node.port: TcpProxy(node.port) for node in cluster.nodes}

    @contextlib.asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncGenerator[Connection]:
        """Open them, and give a client with these settings that goes through them."""
        async with contextlib.AsyncExitStack() as stack:
            for proxy in self.by_port.values():
                await stack.enter_async_context(proxy)
            nodes = [ClusterNode(HOST, proxy.port) for proxy in self.by_port.values()]
            yield await stack.enter_async_context(
                RedisCluster(startup_nodes=nodes, address_remap=self._remap, **settings)
            )

    def before(self, key: str) -> TcpProxy:
        """The proxy before the node that has this key."""
        return self.by_port[self._cluster.owner_of(key).port]

    def _remap(self, address: tuple[str, int]) -> tuple[str, int]:
        host, port = address
        return host, self.by_port[port].port if port in self.by_port else port
