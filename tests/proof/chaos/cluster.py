"""A Cluster of three masters with a replica each, on which the data streams are spread: what happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from tests.harness.cluster import Cluster, start_cluster
from tests.harness.waiting import wait_until
from tests.proof.chaos.faults import Faults
from tests.proof.chaos.history import now
from tests.proof.chaos.servers import KEPT, STEP_TIMEOUT, NotNow, Servers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from tests.harness.servers import Server
    from tests.proof.chaos.schedule import Fault

NODE_TIMEOUT = 1.0
"""Seconds of silence after which a node counts as failed. Its replica then takes about another one."""
WITH_LBS, WITH_DATA = "lbs", "data"
"""What a fault says of the node that it strikes: it has the load balancer stream, or data streams only."""


class ClusterServers(Servers):
    """The nodes. They keep their data, and what they know of each other, over restarts."""

    def __init__(self, name: str | None, lbs: str) -> None:
        super().__init__(name, lbs)
        self._stack = contextlib.ExitStack()
        self.cluster: Cluster

    async def start(self) -> None:
        """Start all."""
        await self.blocking(self.ledger.start)
        starting = start_cluster(1, node_timeout=NODE_TIMEOUT, arguments=KEPT, name=self.name)
        self.cluster = await self.blocking(self._stack.enter_context, starting)

    async def close(self) -> None:
        """End all."""
        await self.blocking(self._stack.close)
        await self.blocking(self.ledger.close)
        self._thread.shutdown()

    @property
    def ports(self) -> Sequence[int]:
        """All nodes'."""
        return [node.port for node in self.cluster.nodes]

    async def lbs(self) -> Server:
        """The node that has the load balancer stream's slot."""
        return await self.owner_of(self._lbs)

    async def owner_of(self, key: str) -> Server:
        """The node that has this key's slot. Raises `NotNow` when nobody can say."""
        try:
            server: Server = await self.blocking(self.cluster.owner_of, key)
        except (RedisError, LookupError, StopIteration) as error:
            raise NotNow(f"nobody knows where {key} is: {error}") from error
        return server

    async def in_step(self, master: Server) -> float:
        """Wait until a master's replica has all that it has written; returns until when it has."""
        began = 0.0

        async def caught_up() -> bool:
            nonlocal began
            began = now()
            with contextlib.suppress(RedisError, LookupError):
                offset = (await self.blocking(master.command, "INFO", "replication"))["master_repl_offset"]
                replica = await self.blocking(self.cluster.replica_of, master)
                state = await self.blocking(replica.command, "INFO", "replication")
                return bool(state["master_link_status"] == "up" and int(state["slave_repl_offset"]) >= offset)
            return False

        try:
            await wait_until(caught_up, "the replica is in step", STEP_TIMEOUT)
        except AssertionError:
            raise NotNow("the node's replica is not in step") from None
        return began

    async def settled(self) -> None:
        """Wait until all nodes answer and agree on who has which slot."""

        async def agree() -> bool:
            views = set()
            for node in self.cluster.nodes:
                with contextlib.suppress(RedisError):
                    slots = await self.blocking(node.command, "CLUSTER", "SLOTS")
                    state = await self.blocking(node.command, "CLUSTER", "INFO")
                    if b"cluster_state:ok" in state:
                        views.add(str(sorted((first, last, primary[1]) for first, last, primary, *_ in slots)))
                        continue
                return False
            return len(views) == 1

        await wait_until(agree, "the nodes agree", 20.0)


class ClusterFaults(Faults[ClusterServers]):
    """What can happen to nodes and slots."""

    async def _node(self, fault: Fault) -> tuple[Server, str]:
        """The node to strike, a master, and what it has."""
        lbs = await self.servers.lbs()
        if fault.variant < 0.5:
            return lbs, WITH_LBS
        masters = await self.servers.blocking(lambda: self.servers.cluster.masters)
        return self.dice.choice([node for node in masters if node is not lbs]), WITH_DATA

    @contextlib.asynccontextmanager
    async def _struck(self, fault: Fault, *details: object) -> AsyncGenerator[tuple[Server, str]]:
        """A node is struck for as long as the block; its replica may take its place without its last writes."""
        servers = self.servers
        node, what = await self._node(fault)
        since = await servers.in_step(node)
        before = await servers.blocking(_slots, node)
        async with self.noted(fault, "", what, *details):
            yield node, what
            await servers.settled()
            if forgetful := await servers.blocking(_slots, node) != before:
                self.history.write("forgot", since)
        if forgetful:
            self.fleet.tell_producer(f"forgot {since}")

    async def _kill_a_node(self, fault: Fault) -> None:
        """Its replica takes its place, and it comes back as a replica."""
        async with self.servers.lock, self._struck(fault) as (node, _):
            await self.servers.blocking(node.kill)
            try:
                await self.servers.blocking(self.servers.cluster.wait_until_replaced, node)
            finally:
                await self.servers.blocking(node.start)

    async def _restart_a_node(self, fault: Fault) -> None:
        """It is away for a moment, and comes back with its data, perhaps as a replica."""
        async with self.servers.lock, self._struck(fault, fault.seconds) as (node, _):
            await self.servers.blocking(node.kill)
            await asyncio.sleep(fault.seconds)
            await self.servers.blocking(node.start)

    async def _freeze_a_node(self, fault: Fault) -> None:
        """Its replica may take its place, and it lives on: its clients' connections are not closed."""
        async with self.servers.lock, self._struck(fault, fault.seconds) as (node, _):
            node.freeze()
            await asyncio.sleep(fault.seconds)
            node.thaw()

    async def _fail_over_a_node(self, fault: Fault) -> None:
        """By hand; in good order, or, now and then, without asking the master."""
        async with self.servers.lock:
            how = "TAKEOVER" if self.dice.random() < 0.3 else ""
            async with self._struck(fault, how) as (node, _):
                await self.servers.blocking(self.servers.cluster.fail_over, node, how)

    async def _move_a_slot(self, fault: Fault) -> None:
        """The load balancer stream's, or a data stream's."""
        async with self.servers.lock:
            key, what = self.keys.lbs, WITH_LBS
            if fault.variant >= 0.5:
                key, what = await self._some_stream(), WITH_DATA
            async with self.noted(fault, "", what, key):
                await self.servers.blocking(self.servers.cluster.move, key)
                await self.servers.settled()

    async def _some_stream(self) -> str:
        page = await self.servers.command("XRANGE", self.keys.lbs, "-", "+", "COUNT", 20)
        names = []
        for _, fields in page:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                names.append(str(json.loads(next(iter(fields.values())))["DataStreamName"]))
        if not names:
            raise NotNow("no stream is announced")
        return self.dice.choice(names)


def _slots(node: Server) -> bool:
    """Whether this node serves slots, as it sees it."""
    ports = {primary[1] for _, _, primary, *_ in node.command("CLUSTER", "SLOTS")}
    return node.port in ports
