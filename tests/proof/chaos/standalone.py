"""One primary that keeps its data over restarts, and its replica, which may take its place, and their faults."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from tests.harness.ports import HOST
from tests.harness.servers import Server
from tests.harness.waiting import wait_until
from tests.proof.chaos.faults import Faults
from tests.proof.chaos.history import now
from tests.proof.chaos.servers import KEPT, STEP_TIMEOUT, NotNow, Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.proof.chaos.schedule import Fault


class StandaloneServers(Servers):
    """The primary and its replica."""

    def __init__(self, name: str | None, lbs: str) -> None:
        super().__init__(name, lbs)
        self.primary = Server(*KEPT, name=name)
        self.replica = Server(*KEPT, name=name)

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

    @property
    def ports(self) -> Sequence[int]:
        """The primary's."""
        return [self.primary.port]

    async def lbs(self) -> Server:
        """The primary."""
        return self.primary

    async def owner_of(self, key: str) -> Server:
        """The primary."""
        return self.primary

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


class StandaloneFaults(Faults[StandaloneServers]):
    """What can happen where one server has everything."""

    async def _freeze_the_server(self, fault: Fault) -> None:
        async with self.servers.lock, self.noted(fault, "", fault.seconds):
            server = self.servers.primary
            server.freeze()
            self.history.write("silent", fault.number)
            await asyncio.sleep(fault.seconds)
            server.thaw()

    async def _restart(self, fault: Fault) -> None:
        """It dies, or ends in good order, and comes back after `fault.seconds` with its data."""
        async with self.servers.lock:
            killed = fault.variant < 0.5
            async with self.noted(fault, "", "killed" if killed else "terminated", fault.seconds):
                primary = self.servers.primary
                if killed:
                    await self.servers.blocking(primary.kill)
                else:
                    await self.servers.blocking(lambda: primary.stop(keep_data=True))
                self.history.write("silent", fault.number)
                await asyncio.sleep(fault.seconds)
                await self.servers.blocking(primary.start)
                await self.servers.answering()

    _outage = _restart

    async def _fail_over(self, fault: Fault) -> None:
        """In good order: nothing is written any more when the replica takes over."""
        async with self.servers.lock:
            await self.servers.in_step()
            async with self.noted(fault):
                await self.servers.command("CLIENT", "PAUSE", 10_000, "WRITE")
                await self.servers.in_step()
                await self._promote()
            await self.servers.replace()

    async def _forgetful_failover(self, fault: Fault) -> None:
        """What the primary wrote last never reached the replica."""
        async with self.servers.lock:
            since = await self.servers.in_step()
            self.servers.replica.freeze()
            try:
                await self.servers.command("CLIENT", "KILL", "TYPE", "replica")
                await asyncio.sleep(fault.seconds)
            except BaseException:
                self.servers.replica.thaw()
                raise
            async with self.noted(fault, "", fault.seconds):
                await self._promote()
                self.history.write("forgot", since)
            self.fleet.tell_producer(f"forgot {since}")
            await self.servers.replace()

    async def _promote(self) -> None:
        await self.servers.promote()
        self.fleet.direct_to(self.servers.primary.port)
        await self.servers.answering()
