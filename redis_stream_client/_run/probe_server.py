"""The probe server: a few lines of HTTP that say whether one client is live and ready.

It answers one request per connection and closes it. Nothing that others send can make it keep much: connections,
their size and their life are bounded, and whoever says nothing makes room for the next one.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping
from http import HTTPMethod, HTTPStatus
from typing import cast

from redis_stream_client._concurrency import forks
from redis_stream_client._run.answers import Answer

MOST_CONNECTIONS = 32
"""Connections that are open at a time. One more ends the oldest, which has said nothing for longest: a prober
sends its request at once."""

LONGEST_REQUEST = 8192
"""Bytes of a request, without its body, which nobody reads."""

TIMEOUT = 5.0
"""Seconds that a connection may take for everything."""

METHODS = (HTTPMethod.GET.value, HTTPMethod.HEAD.value)


Check = Callable[[], Answer]


class ProbeServer:
    """Listens on one port, from `open` to `close`.

    Args:
        host: the IP address to listen on.
        port: the port; 0: the system chooses one.
        checks: what to answer, for each path.
    """

    def __init__(self, host: str, port: int, checks: Mapping[str, Check]) -> None:
        self._host = host
        self._wanted_port = port
        self._checks = checks
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self.port: int | None = None

    async def open(self) -> None:
        """Listen. Raises ``OSError`` with what to change, for example if the port is in use."""
        listening = self._listen()
        self._socket, self.port = listening, listening.getsockname()[1]
        forks.watch(self)
        loop = asyncio.get_running_loop()
        try:
            # In two steps, since only the second one may be cancelled: then close() knows the server already.
            self._server = await loop.create_server(
                lambda: _Connection(self), sock=listening, backlog=MOST_CONNECTIONS, start_serving=False
            )
            await self._server.start_serving()
        except BaseException:
            self.close()
            raise

    def _listen(self) -> socket.socket:
        version = ipaddress.ip_address(self._host).version
        try:
            return socket.create_server(
                (self._host, self._wanted_port),
                family=socket.AF_INET if version == 4 else socket.AF_INET6,
                dualstack_ipv6=self._host == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            where = f"health_port={self._wanted_port} with health_host={self._host!r}"
            raise OSError(error.errno, f"{where} cannot be opened: {error.strerror}") from error

    def close(self) -> None:
        """Stop listening, and end all connections."""
        self.port = None
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for connection in list(self._connections):
            self.closed(connection)
            connection.abort()

    def inherited(self) -> None:
        """In a forked child, which must not keep the port of its parent."""
        if self._socket is not None:
            self._socket.close()

    # For its connections.

    def opened(self, connection: "_Connection") -> None:
        """There is a new connection."""
        if self._socket is None:  # it was accepted just before the end
            connection.abort()
            return
        self._connections[connection] = None
        if len(self._connections) > MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            self.closed(oldest)
            oldest.abort()

    def closed(self, connection: "_Connection") -> None:
        """A connection ends."""
        self._connections.pop(connection, None)

    def respond(self, head: bytes) -> bytes:
        """The response to a request, given without its body."""
        line = head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1")
        match line.split(" "):
            case [method, target, version] if version.startswith("HTTP/1."):
                check = self._checks.get(target.partition("?")[0])
            case _:
                return _response(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
        if check is None:
            return _response(HTTPStatus.NOT_FOUND, f"there is only {' and '.join(self._checks)}")
        if method not in METHODS:
            return _response(
                HTTPStatus.METHOD_NOT_ALLOWED, f"only {' and '.join(METHODS)}", f"Allow: {', '.join(METHODS)}\r\n"
            )
        answer = check()
        status = HTTPStatus.OK if answer.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, answer.text, body=method != HTTPMethod.HEAD.value)


class _Connection(asyncio.Protocol):
    """One connection: reads a request, answers, and ends."""

    def __init__(self, server: ProbeServer) -> None:
        self._server = server
        self._received = b""
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self.abort)
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._received += data
        head, end, _ = self._received.partition(b"\r\n\r\n")
        if end and len(head) <= LONGEST_REQUEST:
            self._answer(self._server.respond(head))
        elif len(self._received) > LONGEST_REQUEST:
            self._answer(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too long"))

    def _answer(self, response: bytes) -> None:
        assert self._transport is not None
        self._answered = True
        self._received = b""
        self._transport.write(response)
        self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.closed(self)


def _response(status: HTTPStatus, text: str, more_headers: str = "", *, body: bool = True) -> bytes:
    content = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        f"{more_headers}\r\n"
    )
    return head.encode() + (content if body else b"")
