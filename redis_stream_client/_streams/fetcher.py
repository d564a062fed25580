"""The fetcher: reads any number of data streams with few connections and few commands.

``XREAD`` has no side effects, so a consumer that has lost a stream steals nothing by reading it. Streams that are
due at about the same time share one command. An idle stream costs nothing until Redis announces a change (see
`tracking`). A busy stream is read in pieces that grow.
"""

import asyncio
import contextlib
from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.gaps import Count
from redis_stream_client._model.logs import Log
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.placement import Placement, learn
from redis_stream_client._redis.wordings import Wording
from redis_stream_client._streams.cursor import Cursor
from redis_stream_client._streams.intervals import LOOK_AROUND
from redis_stream_client._streams.node_fetcher import NodeFetcher


class Fetcher:
    """All data streams that one client follows.

    Args:
        placement: knows which server holds which stream.
        quiet: seconds of silence after which a connection is checked.
        patience: timeout of a look-up of the servers, in seconds, if that is longer. It asks several nodes side by
            side, so that this matters only where none answers.
        spawn: starts tasks that are cancelled at the end of the session.
        gone: makes the error after that end.
        lock: the key of the consumer lock, which changes with every beat.
        renewed: called when a connection meets a server with another history than before.

    Attributes:
        requests_shrunk: reads that got no answer and were repeated for less.
    """

    def __init__(
        self,
        placement: Placement,
        quiet: float,
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        *,
        log: Log,
        outage_at: Callable[[Wording, Endpoint], OutageLog],
        lookups: OutageLog,
        patience: float = 0.0,
        lock: str | None = None,
        renewed: Callable[[Endpoint, str], None] = lambda endpoint, history: None,
    ) -> None:
        self._log = log
        self._outage_at = outage_at
        self._lookups = lookups
        self._placement = placement
        self._quiet = quiet
        self._patience = max(quiet, patience)
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
        """A cursor after the entry `position`. `added`: the number of entries up to there.

        If the server may have lost entries that the cursor has read, `on_restart` is called with the history of
        the server. The cursor is useless then, and reading must begin again at the checkpoint.
        """
        cursor = Cursor(self, stream, position, added, on_restart)
        endpoint = self._placement.endpoint(stream)
        server = self._servers.get(endpoint) if endpoint is not None else None
        if server is not None:
            cursor.history = server.history
        return cursor

    def read(self, cursor: Cursor) -> None:
        """Read the stream of a cursor soon."""
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
        """Forget a cursor that nobody needs any more."""
        self._homeless.pop(cursor, None)
        if cursor.server is not None:
            cursor.server.remove(cursor)

    def _server(self, endpoint: Endpoint) -> NodeFetcher:
        server = self._servers.get(endpoint)
        if server is None:
            server = NodeFetcher(
                self,
                endpoint,
                self._placement,
                self._quiet,
                self._lock,
                log=self._log,
                outage_at=self._outage_at,
            )
            self._tasks[server] = [self._spawn(part.run()) for part in (server.tracking, server)]
            self._servers[endpoint] = server
        return server

    # Where streams are.

    def doubt(self) -> None:
        """Look up where the streams are: a server did not answer, or is not responsible any more."""
        self._placement.forget()
        self._doubted = True
        with contextlib.suppress(ClientClosed):
            self._find_out()

    def look_around(self) -> None:
        """Look up where the streams are, now and then: Redis does not announce that a slot without keys moves."""
        if clock.now() - self._looked_around >= LOOK_AROUND:
            self._looked_around = clock.now()
            self.doubt()

    def _find_out(self) -> None:
        if self._finding is None or self._finding.done():
            self._finding = self._spawn(self._find())

    async def _find(self) -> None:
        """Look up where the streams are, and read them there."""
        backoff = Backoff(0.01, 0.5)
        while self._homeless or self._doubted:
            self._doubted = False
            try:
                await learn(self._placement, self._patience, self._lookups)
            except (Unanswered, RedisRejected):
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
        """Read each stream on the server that holds it now, and drop servers that hold none."""
        for endpoint, server in list(self._servers.items()):
            for cursor in server.cursors:
                here = self._placement.endpoint(cursor.stream)
                if here is endpoint or here is None or cursor.reading:  # a read under way fails by itself
                    continue
                server.remove(cursor)
                if cursor.changed(heard=False):
                    self.read(cursor)
            if not server.cursors:
                self.unused(server)

    def unused(self, reading: NodeFetcher) -> None:
        """Close the connections to a server from which no stream is read."""
        self._servers.pop(reading.endpoint, None)
        for task in self._tasks.pop(reading, ()):
            if task is not asyncio.current_task():
                task.cancel()
        with contextlib.suppress(ClientClosed):
            self._spawn(reading.close())

    def renew(self, endpoint: Endpoint | None = None) -> None:
        """Reopen the connections to one server, or to all, and read all streams again.

        What we know about the streams may come from another server, or from one that has lost writes.
        """
        for server in list(self._servers.values()):
            if endpoint is None or server.endpoint is endpoint:
                server.renew("another server is responsible now")
        self.doubt()

    def met(self, endpoint: Endpoint, history: str) -> None:
        """A connection to this server has met a new history: the server may have lost entries that we have
        read."""
        server = self._servers.get(endpoint)
        if server is not None:
            server.met(history)

    # What others ask.

    def renewed(self, endpoint: Endpoint, history: str) -> None:
        """One of our connections has met a new history."""
        self._renewed(endpoint, history)

    def shrunk(self) -> None:
        """Count a read that got no answer and is repeated for less."""
        self.requests_shrunk += 1

    def oldest_unread(self, now: float) -> tuple[str, float] | None:
        """The stream whose read is overdue for the longest time, and for how many seconds; None if no read is
        due."""
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
