"""Ask a health port, as a prober does."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tests.harness.ports import HOST


class Response(NamedTuple):
    """What came back: the status, the headers by lower-case names, and the body."""

    status: int
    headers: dict[str, str]
    body: str


async def send(port: int, request: bytes, *, timeout: float = 10.0) -> bytes:
    """Send bytes on a connection of its own; returns all that comes back until it ends."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


async def ask(port: int | None, target: str, method: str = "GET", *, timeout: float = 10.0) -> Response:
    """Send a request; a connection that is refused is a ``ConnectionRefusedError``."""
    if port is None:
        raise ConnectionRefusedError("there is no port")
    received = await send(port, f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), timeout=timeout)
    head, _, body = received.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Response(int(first.split(" ")[1]), headers, body)


async def says(port: int | None, target: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    response = await ask(port, target)
    return response.status, response.body.removesuffix("\n")
