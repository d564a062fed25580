"""The servers of a run: a primary that keeps its data over restarts, and its replica, which may take its place."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import RedisError

from tests.chaos.history import now
from tests.ports import HOST
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

# `appendfsync no`: what is answered has been given to the operating system before, and a server's death loses none
# of it. Only a machine's death would.
KEPT = (
    *("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-min-size", "16mb"),
    *("--repl-diskless-sync-delay", "0"),
)
STEP_TIMEOUT = 5.0


class NotNow(Exception):
    """The servers are not in a state in which this fault can be done."""


class Servers:
    """The primary and its replica. What blocks runs in one thread that stays: the servers die with it."""

    def __init__(self, name: str | None) -> None:
        self.primary = Server(*KEPT, name=name)
        self.replica = Server(*KEPT, name=name)
        self.ledger = Server(name=name)
        self.lock = asyncio.Lock()
        """Held by who stops, freezes or exchanges one of them."""
        self._thread = ThreadPoolExecutor(1)

    async def start(self) -> None:
        """Start all."""
        for server in (self.primary, self.replica, self.ledger):
            await self.blocking(server.start)
        await self.replicate()

    async def close(self) -> None:
        """End all."""
        for server in (self.primary, self.replica, self.ledger):
            await self.blocking(server.close)
        self._thread.shutdown()

    async def blocking(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks aside."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def command(self, *words: str | float) -> Any:
        """Execute a command on the primary."""
        return await self.blocking(self.primary.command, *words)

    async def pending(self, lbs: str, group: str, consumer: str | None = None) -> list[tuple[str, str]]:
        """Some of what is pending, in order: ids, and for whom."""

        def ask() -> Any:
            client: Any
            with redis.Redis.from_url(self.primary.url, socket_timeout=5.0) as client:
                return client.xpending_range(lbs, group, "-", "+", 100, consumername=consumer)

        return [(entry["message_id"].decode(), entry["consumer"].decode()) for entry in await self.blocking(ask)]

    async def replicate(self) -> None:
        """Have the replica follow the primary."""
        await self.blocking(self.replica.command, "REPLICAOF", HOST, self.primary.port)

    async def in_step(self) -> float:
        """Wait until the replica has all that the primary has written; returns until when it has."""
        began = 0.0

        async def caught_up() -> bool:
            nonlocal began
            began = now()
            with suppress(RedisError):
                offset = (await self.command("INFO", "replication"))["master_repl_offset"]
                state = await self.blocking(self.replica.command, "INFO", "replication")
                return bool(state["master_link_status"] == "up" and int(state["slave_repl_offset"]) >= offset)
            return False

        try:
            await wait_until(caught_up, "the replica is in step", STEP_TIMEOUT)
        except AssertionError:
            raise NotNow("the replica is not in step") from None
        return began

    async def answering(self) -> None:
        """Wait until the primary executes commands, its data loaded."""

        async def answers() -> bool:
            with suppress(RedisError):
                return await self.command("EXISTS", "x") is not None
            return False

        await wait_until(answers, "the primary answers", 20.0)

    async def promote(self) -> None:
        """The primary dies, and the replica takes its place. The caller sends the clients to it."""
        await self.blocking(self.primary.kill)
        await self.blocking(self.replica.thaw)
        await self.blocking(self.replica.command, "REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary

    async def replace(self) -> None:
        """A new, empty replica in the dead one's place."""
        await self.blocking(self.replica.close)
        await self.blocking(self.replica.start)
        await self.replicate()
