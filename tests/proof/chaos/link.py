"""How the processes of a run reach its servers: each through a network of its own, a proxy before every server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from tests.harness.ports import HOST
from tests.harness.proxy import Line, TcpProxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from tests.harness.proxy import Fault

ERRORS = (RedisError, RedisClusterException)
"""What redis-py raises."""


def link(setup: Mapping[str, Any], *, timeout: float) -> Any:
    """A client of redis-py that repeats nothing, and goes through the proxies of its setup."""
    timeouts: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    proxies = {int(port): proxy for port, proxy in setup["proxies"].items()}
    if not setup["cluster"]:
        [port] = proxies.values()
        return Redis.from_url(f"redis://{HOST}:{port}", **timeouts)
    return RedisCluster(
        startup_nodes=[ClusterNode(HOST, port) for port in proxies.values()],
        address_remap=lambda address: (address[0], proxies.get(address[1], address[1])),
        retry=Retry(NoBackoff(), 0),
        **timeouts,
    )


class Network:
    """What lies between one process and all servers: its faults strike all connections alike, over one line."""

    def __init__(self, ports: Sequence[int], delay: float = 0.0) -> None:
        self.proxies = [TcpProxy(port) for port in ports]
        self._delay = delay
        """Seconds in each direction, always."""
        requests, replies = Line(), Line()
        for proxy in self.proxies:
            proxy.request_line, proxy.reply_line = requests, replies

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[Network]:
        """Open and close it."""
        async with contextlib.AsyncExitStack() as stack:
            for proxy in self.proxies:
                await stack.enter_async_context(proxy)
            self.delay(requests=self._delay, replies=self._delay)
            yield self

    @property
    def setup(self) -> dict[int, int]:
        """By each server's port the one to connect to."""
        return {proxy.upstream_port: proxy.port for proxy in self.proxies}

    def direct_to(self, port: int) -> None:
        """From now on the server is another one."""
        [proxy] = self.proxies
        proxy.upstream_port = port
        proxy.cut()

    def cut(self) -> None:
        """As all its proxies do; so are the others."""
        for proxy in self.proxies:
            proxy.cut()

    async def refuse(self) -> None:  # noqa: D102
        for proxy in self.proxies:
            await proxy.refuse()

    async def mend(self) -> None:
        """End every fault."""
        for proxy in self.proxies:
            proxy.heal()
            await proxy.accept()
        self.delay(requests=self._delay, replies=self._delay)

    def freeze(self, *, requests: bool = True, replies: bool = True) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.freeze(requests=requests, replies=replies)

    def delay(self, *, requests: float, replies: float) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.delay(requests=requests, replies=replies)

    def bandwidth(self, *, requests: float | None, replies: float | None) -> None:  # noqa: D102
        self.proxies[0].bandwidth(requests=requests, replies=replies)  # it is one line

    def drop_replies(self) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.drop_replies()

    def drop_requests_matching(self, pattern: bytes) -> None:  # noqa: D102
        self._share(self.proxies[0].drop_requests_matching(pattern))

    def lose_one_reply_after(self, pattern: bytes) -> None:
        """Of one request on one connection."""
        self._share(self.proxies[0].drop_replies_after(pattern, connections=1, cut=True))

    def half_close_clients(self) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.half_close_clients()

    def half_close_server(self) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.half_close_server()

    def vanish(self) -> None:  # noqa: D102
        for proxy in self.proxies:
            proxy.vanish()

    def _share(self, fault: Fault) -> None:
        for proxy in self.proxies[1:]:
            proxy.faults.append(fault)
