"""TLS for the tests: a certificate, and a server behind it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from functools import cache
from typing import TYPE_CHECKING

from tests.harness.binaries import Binary, chosen, locate
from tests.harness.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from tests.harness.servers import Server


class NoOpenSSL(RuntimeError):
    """There is no `openssl` command here to make a certificate with."""


class Certificate:
    """A new certificate for 127.0.0.1 that vouches for itself, and its key, in `folder`."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise NoOpenSSL("TLS NOT TESTED: there is no `openssl` command to make a certificate with")
        self.path = folder / "certificate.pem"
        self.key = folder / "key.pem"
        subprocess.run(
            [
                *(program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=redis_stream_client tests", "-addext", f"subjectAltName=IP:{HOST}"),
                *("-keyout", str(self.key), "-out", str(self.path)),
            ],
            check=True,
            capture_output=True,
        )


@contextlib.asynccontextmanager
async def serve_tls(own_server: Callable[..., Server], certificate: Certificate) -> AsyncGenerator[int]:
    """Start a server that speaks TLS, and give the port: its own TLS, or else that of a relay before it."""
    if _speaks_tls(locate(chosen())):
        port = free_port()
        own_server(
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificate.path)),
            *("--tls-cert-file", str(certificate.path), "--tls-key-file", str(certificate.key)),
        )
        yield port
        return
    async with _relay(own_server().port, certificate) as port:
        yield port


@cache
def _speaks_tls(binary: Binary) -> bool:
    """Whether this server was built with TLS: only then it misses the certificate."""
    said = subprocess.run(
        [binary.path, "--port", "0", "--tls-port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return "No tls-cert-file configured" in said.stdout


@contextlib.asynccontextmanager
async def _relay(port: int, certificate: Certificate) -> AsyncGenerator[int]:
    """Accept TLS and pass on what is inside, as a load balancer that terminates TLS does."""
    links: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(HOST, port)
        try:
            await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))
        finally:
            upstream_writer.transport.abort()
            with contextlib.suppress(AttributeError):  # what Python 3.11.2 has to say when it is closed already
                writer.transport.abort()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(link(reader, writer), name="TLS relay")
        links.add(task)
        task.add_done_callback(links.discard)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    server = await asyncio.start_server(accepted, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(links):
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
