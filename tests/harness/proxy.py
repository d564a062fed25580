"""A TCP proxy that makes the network fail in the ways that networks fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from tests.harness.ports import HOST, free_port

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 65_536
ATTEMPTS = 100
PIECE = 0.02
"""Seconds that a piece takes on a line with a bandwidth: so soon comes the next one's turn, or another rate."""
BURST = 0.05
"""Seconds by which a line may lag behind its rate and then catch up: a busy event loop is late all the time."""

Action = Literal["drop replies", "hold replies", "drop requests", "hold requests", "forget replies"]


@dataclass(eq=False)
class Fault:
    """A fault that strikes a connection from the first request on that contains `pattern`.

    Requests are compared as bytes on the wire: the upper-case names of commands, the SHA of a script, a key.
    `connections` is how many connections it will still strike (None: every one that sends the pattern).
    """

    pattern: bytes
    action: Action
    connections: int | None
    cut: bool
    matched: int = 0
    """How many connections were struck so far."""
    swallowed: int = 0
    """How many bytes were swallowed; for replies, more than 0 means that the server has answered."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when held requests or replies may go."""

    def release(self) -> None:
        """Let what is held go, late, and strike no more connections."""
        self.connections = 0
        self.released.set()


class Line:
    """One direction of the line between all clients and the server: so many bytes a second, whoever sends them.

    What waits is served in turn, a small piece of each connection after the other.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        """Bytes per second; None: no limit."""
        self._free_at = 0.0
        self._turn = asyncio.Lock()

    @property
    def limited(self) -> bool:
        """Whether it has a limit now; it may be lifted while somebody waits."""
        return self.rate is not None

    async def carry(self, length: int) -> int:
        """Wait for the line; returns how many of `length` bytes have passed."""
        if not self.limited:
            return length
        async with self._turn:
            rate = self.rate
            if rate is None:
                return length
            passed = min(length, max(1, round(rate * PIECE)))
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BURST) + passed / rate
            await asyncio.sleep(self._free_at - now)
            return passed


class TcpProxy:
    """A proxy on 127.0.0.1 before a server on the same host; `async with` opens and closes it.

    A connection that lost bytes never gets later ones, as in TCP: it stays mute until somebody closes it.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.accepted = 0
        """How many connections were accepted so far."""
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.request_delay = 0.0
        """Seconds for which each piece of a request is held; a busy connection may wait up to twice that."""
        self.reply_delay = 0.0
        """The same for replies."""
        self.request_line = Line()
        self.reply_line = Line()
        self.faults: list[Fault] = []
        self._server: asyncio.Server | None = None
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self.requests_flow = asyncio.Event()
        self.replies_flow = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.thaw()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        tasks = list(self._links.values())
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """What to give to `Redis.from_url`."""
        return f"redis://{HOST}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def cut(self) -> int:
        """Reset every open connection, on both sides, and return how many there were."""
        links = list(self._links.items())
        for link, task in links:
            link.abort()
            task.cancel()
        return len(links)

    async def refuse(self) -> None:
        """Refuse new connections; the open ones live on."""
        if self._server is not None:
            server, self._server = self._server, None
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            # Of a connection that is half accepted when its server closes, CPython 3.11 forgets the socket.
            await asyncio.sleep(0)
            server.close()
            await asyncio.sleep(0)  # the listening socket is closed in the loop's next round

    async def accept(self) -> None:
        """Accept connections again after `refuse`, on the same port."""
        if self._server is not None:
            return
        for _ in range(ATTEMPTS):
            port = self.port or free_port()
            with contextlib.suppress(OSError):
                self._server = await asyncio.start_server(self._connected, HOST, port, limit=CHUNK)
                self.port = port
                return
            await asyncio.sleep(0.01)
        raise RuntimeError("the proxy found no port to listen on")

    def freeze(self, *, requests: bool = True, replies: bool = True) -> None:
        """Hold all bytes, in both directions or in one, while connections stay open and new ones connect."""
        if requests:
            self.requests_flow.clear()
        if replies:
            self.replies_flow.clear()

    def thaw(self) -> None:
        """Let go what was held and all that follows."""
        self.requests_flow.set()
        self.replies_flow.set()

    def delay(self, *, requests: float = 0.0, replies: float = 0.0) -> None:
        """Delay each direction by so many seconds; `delay()` ends it."""
        self.request_delay, self.reply_delay = requests, replies

    def bandwidth(self, *, requests: float | None = None, replies: float | None = None) -> None:
        """Let so many bytes per second pass in each direction, on all connections together; None: no limit.

        It counts from now on, also for what is under way. `bandwidth()` ends it.
        """
        self.request_line.rate, self.reply_line.rate = requests, replies

    def drop_replies(self) -> Fault:
        """Swallow from now on all that the server says, on open connections and on new ones."""
        fault = self.drop_replies_after(b"")
        for link in self._links:
            link.strike_with(fault)
        return fault

    def drop_replies_after(self, pattern: bytes, *, connections: int | None = None, cut: bool = False) -> Fault:
        """Execute, but do not answer: forward a request with `pattern`, swallow its reply and all later ones.

        With `cut` the connection is reset when the reply arrives: executed for certain, and the client knows
        at once that something is wrong. `connections=1` strikes the next such connection only.
        """
        return self._add(Fault(pattern, "drop replies", connections, cut))

    def hold_replies_after(self, pattern: bytes, *, connections: int | None = None) -> Fault:
        """Answer late: as `drop_replies_after`, but the replies are delivered when the fault is released."""
        return self._add(Fault(pattern, "hold replies", connections, cut=False))

    def forget_replies_with(self, pattern: bytes) -> Fault:
        """Swallow what the server says in one piece with `pattern`, such as a message, and nothing else.

        Only for whole messages: a connection that misses a part of one cannot be understood any more.
        """
        return self._add(Fault(pattern, "forget replies", None, cut=False))

    def drop_requests_matching(
        self, pattern: bytes, *, connections: int | None = None, cut: bool = False
    ) -> Fault:
        """Never execute: swallow a request with `pattern` and all later ones of its connection, or cut it."""
        return self._add(Fault(pattern, "drop requests", connections, cut))

    def hold_requests_matching(self, pattern: bytes, *, connections: int | None = 1) -> Fault:
        """Execute late: hold a request with `pattern`, and all later ones of its connection, until the fault is
        released."""
        return self._add(Fault(pattern, "hold requests", connections, cut=False))

    def heal(self) -> None:
        """End every fault. Connections that lost bytes are reset, since they can never be right again."""
        self.delay()
        self.bandwidth()
        for fault in self.faults:
            fault.release()
        self.faults.clear()
        self.thaw()
        for link, task in list(self._links.items()):
            if link.lost_bytes:
                link.abort()
                task.cancel()

    def half_close_clients(self) -> None:
        """End the stream towards every client (it reads an end of file), while it may still send."""
        for link in self._links:
            link.client.end()

    def half_close_server(self) -> None:
        """End the stream towards the server on every connection, while its answers still pass."""
        for link in self._links:
            if link.server is not None:
                link.server.end()

    def vanish(self) -> None:
        """Close every open connection towards the server. The clients hear nothing: to them their connections are
        open, and mute. New ones work."""
        self.drop_replies().release()
        self.half_close_server()

    def _add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, _Side(reader, writer))
        task = asyncio.create_task(link.run(), name=f"proxy connection {self.accepted}")
        self._links[link] = task

        def ended(_: asyncio.Task[None]) -> None:
            del self._links[link]
            link.abort()  # a task that is cancelled before it has begun closes nothing

        task.add_done_callback(ended)


class _Side:
    """One of the two sockets of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ended = False

    async def send(self, data: bytes) -> None:
        """Write, unless the stream towards this side was ended."""
        if not self.ended:
            self.writer.write(data)
            await self.writer.drain()

    def end(self) -> None:
        """Say that nothing more will come, and go on to listen."""
        if not self.ended and not self.writer.is_closing():
            self.ended = True
            self.writer.write_eof()

    def abort(self) -> None:
        """Close with a reset rather than an orderly end."""
        if not self.writer.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class _Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: TcpProxy, client: _Side) -> None:
        self.proxy = proxy
        self.client = client
        self.server: _Side | None = None
        self.replies_lost: Fault | None = None
        self.replies_held: Fault | None = None
        self.requests_lost: Fault | None = None
        self.requests_held: Fault | None = None
        self._tail = b""

    @property
    def lost_bytes(self) -> bool:
        return self.replies_lost is not None or self.requests_lost is not None

    def abort(self) -> None:
        self.client.abort()
        if self.server is not None:
            self.server.abort()

    async def run(self) -> None:
        try:
            server = _Side(*await asyncio.open_connection(HOST, self.proxy.upstream_port))
            self.server = server
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump_requests(server))
                pumps.create_task(self._pump_replies(server))
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            self.abort()

    async def _pump_requests(self, server: _Side) -> None:
        proxy = self.proxy
        while True:
            data = await self.client.reader.read(CHUNK)
            await asyncio.sleep(proxy.request_delay)
            await proxy.requests_flow.wait()
            self._strike(data)
            if not data:
                server.end()
                return
            if self.requests_lost is not None:
                self._swallow(data, self.requests_lost)
                continue
            if self.requests_held is not None:
                await self.requests_held.released.wait()
            while data:
                passed = await proxy.request_line.carry(len(data))
                await proxy.requests_flow.wait()
                proxy.bytes_to_server += passed
                await server.send(data[:passed])
                data = data[passed:]

    async def _pump_replies(self, server: _Side) -> None:
        proxy = self.proxy
        while True:
            data = await server.reader.read(CHUNK)
            await asyncio.sleep(proxy.reply_delay)
            await proxy.replies_flow.wait()
            if self.replies_held is not None:
                await self.replies_held.released.wait()
            if not data:
                if self.replies_lost is not None:
                    self._swallow(data, self.replies_lost)  # the end of the stream too
                else:
                    self.client.end()
                return
            for fault in proxy.faults:
                if fault.action == "forget replies" and fault.connections != 0 and fault.pattern in data:
                    fault.matched += 1
                    fault.swallowed += len(data)
                    data = b""
            while data and self.replies_lost is None:
                passed = await proxy.reply_line.carry(len(data))
                await proxy.replies_flow.wait()
                proxy.bytes_to_client += passed
                await self.client.send(data[:passed])
                data = data[passed:]
            if data and self.replies_lost is not None:
                self._swallow(data, self.replies_lost)

    def _swallow(self, data: bytes, fault: Fault) -> None:
        fault.swallowed += len(data)
        if fault.cut:
            raise ConnectionResetError

    def strike_with(self, fault: Fault) -> None:
        """Have the fault on this connection from now on."""
        match fault.action:
            case "drop replies":
                self.replies_lost = fault
            case "hold replies":
                self.replies_held = fault
            case "drop requests":
                self.requests_lost = fault
            case "hold requests":
                self.requests_held = fault
        fault.matched += 1
        if fault.connections is not None:
            fault.connections -= 1

    def _strike(self, data: bytes) -> None:
        """Look for the faults' patterns in what was sent, also where one arrives in pieces."""
        if not data:
            return
        seen = len(self._tail)
        data = self._tail + data
        struck = (self.replies_lost, self.replies_held, self.requests_lost, self.requests_held)
        for fault in self.proxy.faults:
            start = max(0, seen - len(fault.pattern) + 1)  # what lies before was looked at already
            if fault.action == "forget replies":
                continue
            if fault.connections != 0 and fault not in struck and data.find(fault.pattern, start) >= 0:
                self.strike_with(fault)
        longest = max((len(fault.pattern) for fault in self.proxy.faults), default=0)
        self._tail = data[-(longest - 1) :] if longest > 1 else b""
