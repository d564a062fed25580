"""Redis Cluster for the tests: three masters with a third of the slots each, with replicas if wanted.

Nodes may be killed, frozen and started again like any `Server`; slots may move, and nodes come and go. Everything
here blocks: an async test whose event loop must not stall meanwhile uses `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ResponseError

from tests.harness.ports import HOST
from tests.harness.servers import SYNC_AT_ONCE, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

NODES = 3
START = 30.0
"""Seconds that the nodes have to agree on something."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """All nodes that belong to it, the first masters first; and the end of servers that a test adds."""

    nodes: list[Server]
    servers: contextlib.ExitStack

    @property
    def url(self) -> str:
        """What to give to `RedisCluster.from_url`."""
        return self.nodes[0].url

    @property
    def living(self) -> list[Server]:
        """The nodes that answer."""
        return [node for node in self.nodes if node.running and not node.frozen]

    @property
    def masters(self) -> list[Server]:
        """The nodes that answer and say that they are masters."""
        return [node for node in self.living if is_master(node)]

    def owner_of(self, key: str) -> Server:
        """Return the node that has this key's slot now."""
        port = self._owner(key_slot(key.encode()), self.living[0])
        return next(node for node in self.nodes if node.port == port)

    def _owner(self, slot: int, asked: Server) -> int:
        for first, last, primary, *_ in asked.command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        raise LookupError(f"no node has slot {slot}")

    def replica_of(self, master: Server) -> Server:
        """Return a replica of this master that answers."""
        for node in self.living:
            role = node.command("ROLE")
            if role[0] == b"slave" and role[2] == master.port:
                return node
        raise LookupError(f"{master!r} has no replica")

    def key_on(self, node: Server, pattern: str = "call-{}") -> str:
        """Return a key that this node has now."""
        return next(key for i in range(10_000) if self.owner_of(key := pattern.format(i)) is node)

    def key_apart_from(self, key: str, pattern: str = "call-{}") -> str:
        """Return a key that another node has than `key`."""
        other = next(node for node in self.masters if node is not self.owner_of(key))
        return self.key_on(other, pattern)

    # Failovers.

    def fail_over(self, master: Server, how: str = "") -> Server:
        """Have a replica take this master's place, which lives on as its replica. Returns the new master.

        `how` is "" (nothing is lost, the master must answer), "FORCE" or "TAKEOVER".
        """
        replica = self.replica_of(master)
        _wait(lambda: _takes_over(replica, how), "the replica hears its master")
        _wait(lambda: is_master(replica), "the replica is master")
        self.wait_until_replaced(master)
        return replica

    def wait_until_replaced(self, master: Server) -> None:
        """Wait until all nodes that answer know another master for a killed, frozen or deposed one's slots."""
        _wait(
            lambda: all(
                b"cluster_state:ok" in node.command("CLUSTER", "INFO") and master.port not in _primaries(node)
                for node in self.living
                if node is not master
            ),
            "the slots have another master",
        )

    # Slots and nodes.

    def start_to_move(self, key: str, to: Server | None = None) -> Move:
        """Declare that the key's slot moves to another node, `to` or any; its keys are where they were."""
        source = self.owner_of(key)
        target = to or next(node for node in self.masters if node is not source)
        move = Move(self, key_slot(key.encode()), source, target)
        target.command("CLUSTER", "SETSLOT", move.slot, "IMPORTING", node_id(source))
        source.command("CLUSTER", "SETSLOT", move.slot, "MIGRATING", node_id(target))
        return move

    def move(self, key: str, to: Server | None = None) -> Server:
        """Move the key's slot with all its keys to another node, `to` or any. Returns the node that has it now."""
        move = self.start_to_move(key, to)
        while move.keys():
            pass
        move.finish()
        _wait(lambda: all(self._owner(move.slot, node) == move.target.port for node in self.living), "all know it")
        return move.target

    def add_node(self) -> Server:
        """Add an empty master: no slots, no keys."""
        node = self.servers.enter_context(_start_node(5.0))
        self._meet(node)
        return node

    def add_replica(self, master: Server) -> Server:
        """Add a replica of `master`, and wait until it is in step."""
        node = self.add_node()
        node.command("CLUSTER", "REPLICATE", node_id(master))
        self.wait_for_replicas([node])
        return node

    def remove(self, node: Server) -> None:
        """Remove a node that has no slots, as an operator does: it lives on, alone, and knows no other."""
        assert node.port not in _primaries(self.living[0]), "move its slots away first"
        name = node_id(node)
        self.nodes.remove(node)
        for other in self.living:
            other.command("CLUSTER", "FORGET", name)
        node.command("CLUSTER", "RESET")

    def wait_for_replicas(self, replicas: list[Server]) -> None:
        """Wait until these are in step with their masters, and all nodes know it."""
        _wait(
            lambda: all(
                node.command("INFO", "replication").get("master_link_status") == "up" for node in replicas
            ),
            "the replicas are in step",
        )
        # The next heartbeat may be seconds away: have each replica introduce itself once more.
        for replica in replicas:
            for node in self.living:
                if node is not replica:
                    replica.command("CLUSTER", "MEET", HOST, node.port)
        ports = {node.port for node in replicas}
        _wait(lambda: all(ports <= _replicas(node) for node in self.living), "all know the replicas")

    def _meet(self, node: Server) -> None:
        self.nodes[0].command("CLUSTER", "MEET", HOST, node.port)
        self.nodes.append(node)
        self.wait_until_agreed()

    def wait_until_known(self) -> None:
        """Wait until each node knows of all the others."""
        ports = {node.port for node in self.nodes}

        def knows(node: Server) -> bool:
            lines = node.command("CLUSTER", "NODES").splitlines()
            return ports <= {
                int(port) for line in lines if b"handshake" not in line for port in re.findall(rb":(\d+)@", line)
            }

        _wait(lambda: all(knows(node) for node in self.nodes), "the nodes know each other")

    def wait_until_agreed(self) -> None:
        """Wait until each node knows of all the others and of all their slots."""
        known = f"cluster_known_nodes:{len(self.nodes)}\r".encode()

        def agrees(node: Server) -> bool:
            info = node.command("CLUSTER", "INFO")
            return b"cluster_state:ok" in info and known in info

        _wait(lambda: all(agrees(node) for node in self.nodes), "the nodes make a cluster")


@dataclass(frozen=True, slots=True)
class Move:
    """A slot that is being moved, as an operator does it."""

    cluster: Cluster
    slot: int
    source: Server
    target: Server

    def keys(self) -> list[bytes]:
        """Move the keys that the source has; clients are asked to look for them at the target."""
        keys: list[bytes] = self.source.command("CLUSTER", "GETKEYSINSLOT", self.slot, 1000)
        if keys:
            self.source.command("MIGRATE", HOST, self.target.port, "", 0, 5000, "KEYS", *keys)
        return keys

    def finish(self) -> None:
        """Tell all masters who has the slot now, the new owner first.

        One that has given its last slot away makes itself a replica of the new owner.
        """
        for node in sorted(self.cluster.masters, key=lambda node: node is not self.target):
            try:
                node.command("CLUSTER", "SETSLOT", self.slot, "NODE", node_id(self.target))
            except ResponseError as error:
                if "only with masters" not in str(error):
                    raise


@contextlib.contextmanager
def start_cluster(
    replicas: int = 0, *, node_timeout: float | None = None, arguments: Sequence[str] = (), name: str | None = None
) -> Generator[Cluster]:
    """Start the nodes, make them a cluster, and end them.

    Args:
        replicas: of each master.
        node_timeout: seconds of silence after which a node counts as failed; default 5, and 1.5 with replicas,
            whose failover takes about a second more.
        arguments, name: as for `Server`, of each node.
    """
    node_timeout = node_timeout or (1.5 if replicas else 5.0)
    with contextlib.ExitStack() as servers:
        nodes = [
            servers.enter_context(_start_node(node_timeout, *arguments, name=name))
            for _ in range(NODES * (1 + replicas))
        ]
        masters = nodes[:NODES]
        ends = [i * REDIS_CLUSTER_HASH_SLOTS // NODES for i in range(NODES + 1)]
        for i, node in enumerate(masters):
            node.command("CLUSTER", "ADDSLOTS", *range(ends[i], ends[i + 1]))
            node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in nodes[1:]:
            nodes[0].command("CLUSTER", "MEET", HOST, node.port)
        cluster = Cluster(nodes, servers)
        cluster.wait_until_known()
        for i, node in enumerate(nodes[NODES:]):
            node.command("CLUSTER", "REPLICATE", node_id(masters[i % NODES]))
        for master in masters if replicas else ():
            master.command("FLUSHALL")  # CLUSTER SLOTS names no replica to which nothing was ever written
        cluster.wait_for_replicas(nodes[NODES:])
        cluster.wait_until_agreed()  # no master serves in its first two seconds
        yield cluster


def _start_node(node_timeout: float, *arguments: str, name: str | None = None) -> Server:
    return Server(
        *("--cluster-enabled", "yes", "--cluster-node-timeout", str(round(node_timeout * 1000))),
        *("--cluster-replica-validity-factor", "0"),
        *SYNC_AT_ONCE,
        *arguments,
        name=name,
    )


def node_id(node: Server) -> bytes:
    """What the cluster calls this node."""
    name: bytes = node.command("CLUSTER", "MYID")
    return name


_id = node_id


def is_master(node: Server) -> bool:
    """Whether the node says that it is a master, with slots or without."""
    return bool(node.command("ROLE")[0] == b"master")


def _primaries(node: Server) -> set[Any]:
    """The ports of those that have slots, as this node sees it."""
    return {primary[1] for _, _, primary, *_ in node.command("CLUSTER", "SLOTS")}


def _replicas(node: Server) -> set[Any]:
    return {replica[1] for _, _, _, *replicas in node.command("CLUSTER", "SLOTS") for replica in replicas}


def _takes_over(replica: Server, how: str) -> bool:
    """Order a failover. False: nodes connect to each other anew now and then, and it has no link to its master."""
    try:
        replica.command("CLUSTER", "FAILOVER", *how.split())
    except ResponseError as error:
        if "Master is down" in str(error) or "Primary is down" in str(error):
            return False
        raise
    return True


def _wait(condition: Callable[[], object], description: str) -> None:
    deadline = time.monotonic() + START
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {START:g} s: {description}")
        time.sleep(0.02)
