"""Connections to the nodes of a cluster that are lent for a few commands, and kept for a while."""

import asyncio
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from redis.asyncio.connection import AbstractConnection

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._concurrency.loop_end import AtLoopEnd
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered

KEPT = 10.0
"""Seconds for which a connection is kept that nobody uses. To open one takes as long as five requests."""

MOST = 16
"""The most connections to one node at a time; whoever wants another one waits."""


class NotLent(Unanswered):
    """There was no connection to lend, which says nothing about the node."""


class NodeConnections:
    """The connections of one event loop. Nobody has to close them: those that nobody uses are closed after `KEPT`
    seconds, and when the loop ends."""

    def __init__(self) -> None:
        self._idle: dict[Endpoint, list[tuple[AbstractConnection, float]]] = defaultdict(list)
        self._free: weakref.WeakKeyDictionary[Endpoint, asyncio.Semaphore] = weakref.WeakKeyDictionary()
        self._closed: weakref.WeakKeyDictionary[Endpoint, int] = weakref.WeakKeyDictionary()  # how often
        self._timer: asyncio.TimerHandle | None = None
        self._at_end: AtLoopEnd | None = None
        forks.watch(self)

    @asynccontextmanager
    async def lent(self, node: Endpoint, timeout: float, turn: float) -> AsyncGenerator[AbstractConnection]:
        """Borrow a connection to a node. One that was closed in the block is not kept.

        Args:
            node: the node.
            timeout: seconds to open a connection.
            turn: seconds to wait for others that have all of them.

        Raises `NotLent` if others had all of them, or have closed those to this node meanwhile: ask where to go
        now. Raises `Unanswered` or `RedisRejected` if none could be opened.
        """
        free = self._free.setdefault(node, asyncio.Semaphore(MOST))
        before = self._closed.get(node, 0)
        until = clock.now() + turn
        try:
            async with asyncio.timeout(turn):
                await free.acquire()
        except TimeoutError:
            raise NotLent(f"all connections to {node.where} are in use", maybe_executed=False) from None
        try:
            if self._closed.get(node, 0) != before:
                raise NotLent(f"{node.where} has not answered", maybe_executed=False)
            connection = self._kept(node) or await node.open(min(timeout, max(0.0, until - clock.now())))
            try:
                yield connection
            except BaseException:
                wire.abort(connection)
                raise
            self._keep(node, connection)
        finally:
            free.release()

    def close(self, node: Endpoint) -> None:
        """Close the idle connections to a node that does not answer, and have those who wait look for another."""
        self._closed[node] = self._closed.get(node, 0) + 1
        for connection, _ in self._idle.pop(node, ()):
            wire.abort(connection)

    def _kept(self, node: Endpoint) -> AbstractConnection | None:
        idle = self._idle.get(node, [])
        while idle:
            connection, _ = idle.pop()
            if not wire.is_ended(connection):
                return connection
            wire.abort(connection)
        return None

    def _keep(self, node: Endpoint, connection: AbstractConnection) -> None:
        if wire.is_ended(connection):
            wire.abort(connection)
            return
        self._idle[node].append((connection, clock.now() + KEPT))
        if self._at_end is None:
            self._at_end = AtLoopEnd(self._close_all)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT, self._close_old)

    def _close_old(self) -> None:
        """Close what was idle for too long; with nothing left, wait for nothing."""
        now = clock.now()
        for node, idle in list(self._idle.items()):
            while idle and idle[0][1] <= now:
                wire.abort(idle.pop(0)[0])
            if not idle:
                del self._idle[node]
        self._timer = None
        if self._idle:
            first = min(idle[0][1] for idle in self._idle.values())
            self._timer = asyncio.get_running_loop().call_later(max(0.0, first - now), self._close_old)
        elif self._at_end is not None:
            at_end, self._at_end = self._at_end, None
            at_end.forget()

    def _close_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for node in list(self._idle):
            self.close(node)
        self._at_end = None

    def inherited(self) -> None:
        """In a forked child: the connections are the parent's."""
        for idle in self._idle.values():
            for connection, _ in idle:
                wire.disown(connection)
