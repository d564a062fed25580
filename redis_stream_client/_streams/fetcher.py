"""Reading data streams: few connections and few commands for any number of streams.

``XREAD`` has no side effects, so what a consumer reads that has lost its stream steals nothing. Whoever wants
entries at about the same time shares one command; a stream that has none costs nothing until Redis says that it
changed (`tracking`). A busy stream is read in pieces that grow.
"""

import asyncio
import contextlib
from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.gaps import Count
from redis_stream_client._model.logs import log
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.placement import Placement
from redis_stream_client._streams.cursor import Cursor
from redis_stream_client._streams.intervals import LOOK_AROUND
from redis_stream_client._streams.node_fetcher import NodeFetcher


class Fetcher:
    """All data streams that one client follows.

    Args:
        placement: where the streams are.
        quiet: seconds of silence after which a connection is doubted.
        spawn: starts tasks, which are cancelled at the end of the session.
        gone: the error after that end.
        lock: key that this client changes all the time, as long as it lives.
        renewed: told when a connection meets a server that has another history than before.

    Attributes:
        requests_shrunk: reads that went unanswered, and were repeated for less.
    """

    def __init__(
        self,
        placement: Placement,
        quiet: float,
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        *,
        lock: str | None = None,
        renewed: Callable[[Endpoint, str], None] = lambda endpoint, history: None,
    ) -> None:
        self._placement = placement
        self._quiet = quiet
        self._spawn = spawn
        self._gone = gone
        self._lock = lock
        self._renewed = renewed
        self._servers: dict[Endpoint, NodeFetcher] = {}
        self._tasks: dict[NodeFetcher, list[asyncio.Task[None]]] = {}
        self._homeless: dict[Cursor, None] = {}
        self._finding: asyncio.Task[None] | None = None
        self._doubted = False
        self._looked_around = clock.now()
        self._version = placement.version
        self.requests_shrunk = 0

    def follow(self, stream: str, position: str, added: Count, on_restart: Callable[[str], None]) -> Cursor:
        """A cursor after the entry `position`, up to which so many were `added`.

        `on_restart` is called with the history of a server that may have lost what the cursor has read. The cursor
        is of no use any more then, and reading is to begin again at the checkpoint.
        """
        cursor = Cursor(self, stream, position, added, on_restart)
        endpoint = self._placement.endpoint(stream)
        server = self._servers.get(endpoint) if endpoint is not None else None
        if server is not None:
            cursor.history = server.history
        return cursor

    def read(self, cursor: Cursor) -> None:
        """Read a cursor's stream soon."""
        if cursor.closed:
            return
        try:
            endpoint = self._placement.endpoint(cursor.stream)
            if endpoint is None:
                cursor.due()
                self._homeless[cursor] = None
                self._find_out()
            else:
                self._server(endpoint).read(cursor)
        except ClientClosed as error:
            cursor.tell(error)

    def forget(self, cursor: Cursor) -> None:
        """A cursor is not needed any more."""
        self._homeless.pop(cursor, None)
        if cursor.server is not None:
            cursor.server.remove(cursor)

    def _server(self, endpoint: Endpoint) -> NodeFetcher:
        server = self._servers.get(endpoint)
        if server is None:
            server = NodeFetcher(self, endpoint, self._placement, self._quiet, self._lock)
            self._tasks[server] = [self._spawn(part.run()) for part in (server.tracking, server)]
            self._servers[endpoint] = server
        return server

    # Where streams are.

    def doubt(self) -> None:
        """A server did not answer, or says that it is another's task: look where the streams are now."""
        self._placement.forget()
        self._doubted = True
        with contextlib.suppress(ClientClosed):
            self._find_out()

    def look_around(self) -> None:
        """Now and then: a slot without keys moves without a word."""
        if clock.now() - self._looked_around >= LOOK_AROUND:
            self._looked_around = clock.now()
            self.doubt()

    def _find_out(self) -> None:
        if self._finding is None or self._finding.done():
            self._finding = self._spawn(self._find())

    async def _find(self) -> None:
        """Learn where the streams are, and read them there."""
        backoff = Backoff(0.01, 0.5)
        while self._homeless or self._doubted:
            self._doubted = False
            try:
                await self._placement.learn(self._quiet)
            except (Unanswered, RedisRejected) as error:
                log.debug("where are the data streams? %s", error)
                self._doubted = True
                await asyncio.sleep(backoff.pause())
                continue
            homeless, self._homeless = self._homeless, {}
            for cursor in homeless:
                self.read(cursor)
            if self._version != self._placement.version:
                self._version = self._placement.version
                self._relocate()
            await asyncio.sleep(backoff.pause())

    def _relocate(self) -> None:
        """Streams that are elsewhere now are read there; a server that has none left is not needed."""
        for endpoint, server in list(self._servers.items()):
            for cursor in server.cursors:
                here = self._placement.endpoint(cursor.stream)
                if here is endpoint or here is None or cursor.reading:  # what is being read fails by itself
                    continue
                server.remove(cursor)
                if cursor.changed(heard=False):
                    self.read(cursor)
            if not server.cursors:
                self.unused(server)

    def unused(self, reading: NodeFetcher) -> None:
        """A server that nothing is read from: close its connections."""
        self._servers.pop(reading.endpoint, None)
        for task in self._tasks.pop(reading, ()):
            if task is not asyncio.current_task():
                task.cancel()
        with contextlib.suppress(ClientClosed):
            self._spawn(reading.close())

    def renew(self, endpoint: Endpoint | None = None) -> None:
        """Open the connections to one server, or to all, anew, and look at everything again.

        What is believed about the streams may come from another server, or from one that has lost writes.
        """
        for server in list(self._servers.values()):
            if endpoint is None or server.endpoint is endpoint:
                server.renew("another server is responsible now")
        self.doubt()

    def met(self, endpoint: Endpoint, history: str) -> None:
        """A connection to this server has met another history than before: what was read there may be lost."""
        server = self._servers.get(endpoint)
        if server is not None:
            server.met(history)

    # What is asked.

    def renewed(self, endpoint: Endpoint, history: str) -> None:
        """A connection of ours has met another history than before."""
        self._renewed(endpoint, history)

    def shrunk(self) -> None:
        """A read went unanswered, and is repeated for less."""
        self.requests_shrunk += 1

    def oldest_unread(self, now: float) -> tuple[str, float] | None:
        """The stream that is due to be read for the longest time, and for how many seconds; None if none is."""
        cursors = [*self._homeless, *(cursor for server in self._servers.values() for cursor in server.cursors)]
        due = [(cursor.since, cursor.stream) for cursor in cursors if cursor.since is not None and cursor.waiting]
        if not due:
            return None
        since, stream = min(due)
        return stream, max(0.0, now - since)

    async def close(self) -> None:
        """Close the connections."""
        for server in list(self._servers.values()):
            await server.close()
