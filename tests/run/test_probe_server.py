"""The probe server: what it answers to good requests and to bad ones, and that nobody can make it keep much."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._run import probe_server
from redis_stream_client._run.answers import Answer
from redis_stream_client._run.probe_server import LONGEST_REQUEST, MOST_CONNECTIONS, ProbeServer
from tests.harness.ports import HOST
from tests.harness.probing import ask, says, send
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CHECKS = {"/livez": lambda: Answer(True, "live"), "/readyz": lambda: Answer(False, "not ready: so be it")}


@contextlib.asynccontextmanager
async def serving(host: str = HOST, port: int = 0) -> AsyncGenerator[int]:
    server = ProbeServer(host, port, CHECKS)
    await server.open()
    try:
        assert server.port is not None
        yield server.port
    finally:
        server.close()
        assert server.port is None


@pytest.fixture
async def port() -> AsyncGenerator[int]:
    async with serving() as port:
        yield port


async def test_it_says_whether_all_is_well_and_why_not(port: int) -> None:
    assert await says(port, "/livez") == (200, "live")
    assert await says(port, "/readyz") == (503, "not ready: so be it")
    assert await says(port, "/readyz?verbose=1") == (503, "not ready: so be it")
    response = await ask(port, "/livez")
    assert response.headers["content-length"] == str(len("live\n"))
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["connection"] == "close"


async def test_head_has_the_same_headers_and_no_body(port: int) -> None:
    for path in CHECKS:
        got, head = await ask(port, path), await ask(port, path, "HEAD")
        assert (head.status, head.headers, head.body) == (got.status, got.headers, "")


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez/", "/LIVEZ", "//livez", "livez", "*", "/%6civez"])
async def test_other_paths_are_not_found(port: int, path: str) -> None:
    status, text = await says(port, path)
    assert status == 404
    assert "/livez" in text
    assert (await ask(port, path, "POST")).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"])
async def test_other_methods_are_not_allowed(port: int, method: str) -> None:
    response = await ask(port, "/livez", method)
    assert response.status == 405
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "request_line", [b"", b"GET", b"GET /livez", b"GET /livez HTTP/2.0", b"GET  /livez HTTP/1.1", b"\xff\xfe \x00"]
)
async def test_what_is_no_request_is_refused(port: int, request_line: bytes) -> None:
    assert (await send(port, request_line + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert await says(port, "/livez") == (200, "live")


async def test_a_request_may_come_byte_by_byte(port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    for byte in b"GET /livez HTTP/1.0\r\nHost: x\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_garbage_harms_nobody(port: int) -> None:
    chance = random.Random(17)
    for length in (1, 100, 10_000, 1_000_000):
        with contextlib.suppress(ConnectionError, TimeoutError):
            await send(port, chance.randbytes(length) + b"\r\n\r\n", timeout=1)
    assert await says(port, "/livez") == (200, "live")


async def test_a_request_that_never_ends_is_refused(port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * (LONGEST_REQUEST // 6))
    assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_who_says_nothing_is_cut_off_after_a_while(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server, "TIMEOUT", 0.1)
    assert await send(port, b"GET /livez", timeout=10) == b""
    assert await says(port, "/livez") == (200, "live")


async def test_a_thousand_connections_that_say_nothing_make_room_for_who_asks(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_server, "TIMEOUT", 3600.0)  # they are ended by who comes after them
    silent: list[socket.socket] = []
    before = descriptors()
    try:
        for count in range(1_000):
            silent.append(one := socket.socket())
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, (HOST, port))
            if count % 100 == 99:
                assert await says(port, "/livez") == (200, "live")
        await wait_until(
            lambda: descriptors() - before - len(silent) <= MOST_CONNECTIONS, "only so many are kept open"
        )
        assert await says(port, "/livez") == (200, "live")
    finally:
        for one in silent:
            one.close()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_port_in_use_is_named(port: int) -> None:
    with pytest.raises(
        OSError, match=f"health_port={port} with health_host='{HOST}' cannot be opened: .*in use"
    ) as at:
        async with serving(port=port):
            pass
    assert at.value.errno == errno.EADDRINUSE
    assert await says(port, "/livez") == (200, "live")


async def test_the_end_cuts_connections_off_and_frees_the_port() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        assert await says(port, "/livez") == (200, "live")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await says(port, "/livez")
    async with serving(port=port) as again:
        assert again == port


@pytest.mark.parametrize("turns", range(4))
async def test_opening_that_is_cancelled_leaves_no_port_behind(turns: int) -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    server = ProbeServer(HOST, port, CHECKS)
    opening = asyncio.create_task(server.open())
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait((opening,))
    server.close()
    async with serving(port=port):
        assert await says(port, "/livez") == (200, "live")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1"])
async def test_other_hosts(host: str) -> None:
    try:
        async with serving(host) as port:
            if host != "::1":
                assert await says(port, "/livez") == (200, "live")
    except OSError as error:
        if ":" not in host or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise  # this machine has IPv6, or it is about IPv4


FORKS = """
import asyncio, os, sys
from redis_stream_client._run.probe_server import ProbeServer

async def main():
    server = ProbeServer("127.0.0.1", 0, {})
    await server.open()
    port = server.port
    reading, writing = os.pipe()
    begun, begin = os.pipe()
    if not os.fork():
        os.close(writing)
        os.write(begin, b"!")
        os.read(reading, 1)  # until its parent has ended
        os._exit(0)
    os.read(begun, 1)
    server.close()
    await asyncio.sleep(0)
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        print("refused")

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_keep_the_port() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert ran.stdout == "refused\n"
