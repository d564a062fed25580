"""Redis Sentinel for the tests: a master, its replica, and a sentinel that watches them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tests.harness.ports import HOST
from tests.harness.servers import SYNC_AT_ONCE, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

NAME = "fleet"
"""What the sentinel calls the master."""


class SentinelServer(Server):
    """The same program as the server, as a sentinel that watches `master` and holds half a second for long."""

    def __init__(self, master: Server) -> None:
        super().__init__()
        self._master = master

    def _command_line(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"bind {HOST}\n"
            f"port {self.port}\n"
            f"dir {self.directory}\n"
            f"sentinel monitor {NAME} {HOST} {self._master.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 500\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        return [str(self.binary.path), str(config), "--sentinel"]


class Pair:
    """A master and its replica, in step."""

    def __init__(self, master: Server, replica: Server) -> None:
        self.master = master
        self.replica = replica
        _wait(lambda: self._replica_field("master_link_status") == "up", "the replica is in step")

    def _replica_field(self, field: str) -> Any:
        return self.replica.command("INFO", "replication").get(field)

    def in_step(self) -> None:
        """Wait until the replica has all that the master has written so far."""
        offset = self.master.command("INFO", "replication")["master_repl_offset"]
        _wait(lambda: int(self._replica_field("slave_repl_offset")) >= offset, "the replica is in step")

    def cut_off_the_replica(self) -> None:
        """Freeze the replica, and have what the master writes from here on never reach it."""
        self.in_step()
        self.replica.freeze()
        self.master.command("CLIENT", "KILL", "TYPE", "replica")  # else the socket would keep it until the thaw

    def change_places(self) -> None:
        """Make the replica the master, and the master its replica, which lives on with all its connections.

        Nothing is lost. As `REPLICAOF` by hand does it, or a name that now leads to another server; `master` and
        `replica` are the new ones afterwards.
        """
        self.in_step()
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.master.command("REPLICAOF", HOST, self.replica.port)
        self.master, self.replica = self.replica, self.master
        _wait(lambda: self._replica_field("master_link_status") == "up", "the old master is in step")

    def promote_the_replica(self) -> None:
        """Kill the master, and have the replica take its place with what it has."""
        self.master.kill()
        self.replica.thaw()
        self.replica.command("REPLICAOF", "NO", "ONE")


class Deployment(Pair):
    """A master and its replica, in step, and the sentinel that knows both."""

    def __init__(self, master: Server, replica: Server, sentinel: Server) -> None:
        super().__init__(master, replica)
        self.sentinel = sentinel
        _wait(lambda: len(sentinel.command("SENTINEL", "REPLICAS", NAME)) == 1, "the sentinel knows the replica")

    def named(self) -> int:
        """The port of the server that the sentinel names as the master."""
        return int(self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def change_places(self) -> None:
        """As `Pair.change_places`, and the sentinel learns of it at once: it kills no connection, either."""
        super().change_places()
        self.sentinel.command("SENTINEL", "REMOVE", NAME)
        self.sentinel.command("SENTINEL", "MONITOR", NAME, HOST, self.master.port, 1)
        self.sentinel.command("SENTINEL", "SET", NAME, "down-after-milliseconds", 500, "failover-timeout", 3000)
        _wait(lambda: self.named() == self.master.port, "the sentinel names the new master")

    def fail_over(self) -> None:
        """Have the sentinel do it: it promotes the replica, and some ten seconds later makes the old master, which
        lives on, its replica. Until then that one takes writes, and forgets them then."""
        self.sentinel.command("SENTINEL", "FAILOVER", NAME)
        _wait(lambda: self.named() == self.replica.port, "the sentinel names the new master")
        self.master, self.replica = self.replica, self.master


@contextlib.contextmanager
def replicate() -> Generator[Pair]:
    """Start a master and its replica, and end them."""
    with (
        Server(*SYNC_AT_ONCE) as master,
        Server("--replicaof", HOST, str(master.port), *SYNC_AT_ONCE) as replica,
    ):
        yield Pair(master, replica)


@contextlib.contextmanager
def deploy() -> Generator[Deployment]:
    """Start all three, and end them."""
    with replicate() as pair, SentinelServer(pair.master) as sentinel:
        yield Deployment(pair.master, pair.replica, sentinel)


def _wait(condition: Callable[[], object], description: str, timeout: float = 20.0) -> None:
    """Wait outside of any event loop, as a start does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {description}")
        time.sleep(0.02)
