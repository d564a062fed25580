"""The servers of the suite: started, stopped, frozen and gone when nobody needs them."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import redis as redis_py

from tests.harness.binaries import chosen, locate
from tests.harness.ports import PORTS, free_port
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection

ROOT = Path(__file__).parent.parent.parent
START_AND_DIE = """
import os, signal
from tests.harness.servers import Server

server = Server()
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_is_the_chosen_one(server: Server) -> None:
    info = server.command("INFO", "server")
    version = info.get("valkey_version") if chosen() == "valkey" else info["redis_version"]
    assert tuple(int(part) for part in version.split(".")[:2]) == locate(chosen()).version


def test_an_unknown_server_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"valkey, redis-6\.2"):
        locate("memcached")


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_the_shared_server_as_new(server: Server, turn: int) -> None:
    assert server.command("DBSIZE") == 0
    assert server.command("CONFIG", "GET", "notify-keyspace-events") == {b"notify-keyspace-events": b""}
    server.command("SET", "left", "behind")
    server.command("CONFIG", "SET", "notify-keyspace-events", "Kx")


@pytest.mark.parametrize("keep_data", [True, False])
def test_restart_with_and_without_data(own_server: Callable[..., Server], keep_data: bool) -> None:
    server = own_server()
    server.command("SET", "key", "value")
    before = server.pid, server.port
    server.restart(keep_data=keep_data)
    assert (server.pid != before[0], server.port) == (True, before[1])
    assert server.command("GET", "key") == (b"value" if keep_data else None)


def test_a_crash_loses_everything(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.command("SET", "key", "value")
    server.kill()
    assert not server.running
    server.start()
    assert server.command("GET", "key") is None


def test_a_frozen_server_hangs_and_then_goes_on(own_server: Callable[..., Server]) -> None:
    server = own_server()
    client = redis_py.Redis.from_url(server.url, socket_timeout=0.1)
    with client:
        client.set("key", "value")
        server.freeze()
        with pytest.raises(redis_py.TimeoutError):
            client.get("key")
        server.thaw()
    assert server.command("GET", "key") == b"value"


def test_arguments_reach_the_server(own_server: Callable[..., Server]) -> None:
    server = own_server("--maxmemory", "64mb", "--appendonly", "yes")
    assert server.command("CONFIG", "GET", "maxmemory") == {b"maxmemory": str(2**26).encode()}
    assert server.command("CONFIG", "GET", "appendonly") == {b"appendonly": b"yes"}


def test_a_taken_port_is_left_to_its_owner(
    own_server: Callable[..., Server], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([server.port, server.port, free_port()])
    monkeypatch.setattr("tests.harness.servers.free_port", lambda: next(ports))
    other = own_server()
    assert other.port != server.port
    assert other.command("INFO", "server")["process_id"] == other.pid


def test_ports_are_outside_the_ephemeral_range() -> None:
    assert free_port() in PORTS
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ephemeral.exists():
        assert PORTS.stop <= int(ephemeral.read_text().split()[0])


def test_closing_leaves_nothing_behind() -> None:
    server = Server()
    with server:
        directory = server.directory
        pid = server.pid
    assert not directory.exists()
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
async def test_a_server_dies_with_the_process_that_started_it() -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", START_AND_DIE), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await parent.communicate()
    assert parent.returncode == -signal.SIGKILL

    def gone() -> bool:
        try:
            return psutil.Process(int(said)).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await wait_until(gone, "the orphaned server is gone")


async def test_the_connection_of_the_suite_returns_bytes(redis: Connection, service: str) -> None:
    await redis.set(service, "value")
    assert await redis.get(service) == b"value"


def test_the_environment_chooses_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSC_TEST_SERVER", "redis-6.2")
    assert chosen() == "redis-6.2"
    monkeypatch.setenv("RSC_TEST_SERVER", "")
    assert chosen() == "valkey"
