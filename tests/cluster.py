"""Redis Cluster for the tests: three nodes, each with a third of the slots, and no replicas."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.ports import HOST
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

NODES = 3


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes, all of them masters."""

    nodes: Sequence[Server]

    @property
    def url(self) -> str:
        """What to give to `RedisCluster.from_url`."""
        return self.nodes[0].url

    def owner_of(self, key: str) -> Server:
        """Return the node that has this key's slot now."""
        slot = key_slot(key.encode())
        for first, last, primary, *_ in self.nodes[0].command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise LookupError(f"no node has slot {slot}")

    def start_to_move(self, key: str) -> Move:
        """Declare that the key's slot moves to another node; its keys are where they were."""
        source = self.owner_of(key)
        target = next(node for node in self.nodes if node is not source)
        move = Move(self, key_slot(key.encode()), source, target)
        target.command("CLUSTER", "SETSLOT", move.slot, "IMPORTING", _id(source))
        source.command("CLUSTER", "SETSLOT", move.slot, "MIGRATING", _id(target))
        return move


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
        """Tell all nodes who has the slot now, the new owner first."""
        for node in sorted(self.cluster.nodes, key=lambda node: node is not self.target):
            node.command("CLUSTER", "SETSLOT", self.slot, "NODE", _id(self.target))


@contextlib.contextmanager
def start_cluster() -> Generator[Cluster]:
    """Start the nodes, make them a cluster, and end them."""
    with contextlib.ExitStack() as servers:
        nodes = [
            servers.enter_context(Server("--cluster-enabled", "yes", "--cluster-node-timeout", "5000"))
            for _ in range(NODES)
        ]
        ends = [i * REDIS_CLUSTER_HASH_SLOTS // NODES for i in range(NODES + 1)]
        for i, node in enumerate(nodes):
            node.command("CLUSTER", "ADDSLOTS", *range(ends[i], ends[i + 1]))
            node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in nodes[1:]:
            nodes[0].command("CLUSTER", "MEET", HOST, node.port)
        deadline = time.monotonic() + 30.0
        while not all(_agrees(node) for node in nodes):
            if time.monotonic() > deadline:
                raise TimeoutError("the nodes do not make a cluster within 30 s")
            time.sleep(0.05)
        yield Cluster(nodes)


def _agrees(node: Server) -> bool:
    """Whether this node knows of all the others and of all their slots."""
    info = node.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and f"cluster_known_nodes:{NODES}".encode() in info


def _id(node: Server) -> bytes:
    name: bytes = node.command("CLUSTER", "MYID")
    return name
