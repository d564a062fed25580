"""The servers of a run: where the load balancer stream is, the ledger, and how they are asked."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import redis

from tests.harness.servers import SMALL_OUTPUT_BUFFERS, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# `appendfsync no`: what is answered has been given to the operating system before, and a server's death loses none
# of it. Only a machine's death would.
KEPT = (
    *SMALL_OUTPUT_BUFFERS,
    *("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-min-size", "16mb"),
    *("--repl-diskless-sync-delay", "0"),
)
STEP_TIMEOUT = 5.0


class NotNow(Exception):
    """The servers are not in a state in which this fault can be done."""


class Servers(ABC):
    """What all deployments have. What blocks runs in one thread that stays: the servers die with it."""

    def __init__(self, name: str | None, lbs: str) -> None:
        self.name = name
        self.ledger = Server(name=name)
        self.lock = asyncio.Lock()
        """Held by who stops, freezes or exchanges one of them."""
        self._lbs = lbs
        self._thread = ThreadPoolExecutor(1)

    @abstractmethod
    async def start(self) -> None:
        """Start all."""

    @abstractmethod
    async def close(self) -> None:
        """End all."""

    @property
    @abstractmethod
    def ports(self) -> Sequence[int]:
        """Ports of the servers that clients talk to."""

    @abstractmethod
    async def lbs(self) -> Server:
        """The server that has the load balancer stream now."""

    @abstractmethod
    async def owner_of(self, key: str) -> Server:
        """The server that has this key. Raises `NotNow` when nobody can say."""

    async def blocking(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks aside."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def command(self, *words: str | bytes | float) -> Any:
        """Execute a command on the server that has the load balancer stream."""
        return await self.blocking((await self.lbs()).command, *words)

    async def pending(self, lbs: str, group: str, consumer: str | None = None) -> list[tuple[str, str]]:
        """Some of what is pending, in order: ids, and for whom."""
        url = (await self.lbs()).url

        def ask() -> Any:
            client: Any
            with redis.Redis.from_url(url, socket_timeout=5.0) as client:
                return client.xpending_range(lbs, group, "-", "+", 100, consumername=consumer)

        return [(entry["message_id"].decode(), entry["consumer"].decode()) for entry in await self.blocking(ask)]
