"""Following a lease's data stream, entry by entry."""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Protocol

from redis_stream_client.entry import Entry
from redis_stream_client.errors import RedisRejected

if TYPE_CHECKING:
    from redis_stream_client.lease import Lease

IN_DOUBT = 0.01
"""Seconds between two looks whether a lock that is in doubt is held again."""


class Source(Protocol):
    """Where entries come from."""

    def take(self) -> list[Entry]:
        """The entries that have arrived, in order."""
        ...

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Have `waiter` resolved when there are entries to take, or fail with what went wrong for good."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class Entries:
    """The entries of one lease's data stream, from the one after its checkpoint. Never ends by itself."""

    def __init__(self, lease: "Lease") -> None:
        self._lease = lease
        self._source: Source | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: deque[Entry] = deque()
        self._busy = False

    def __aiter__(self) -> "Entries":
        return self

    async def __anext__(self) -> Entry:
        if self._busy:
            raise RuntimeError("another task waits for the next of these entries; call entries() once for each")
        self._busy = True
        try:
            lease = self._lease
            while True:
                if lease._must_pause:
                    await lease._pause()
                elif self._arrived:
                    lease._hand_over()
                    return self._arrived.popleft()
                else:
                    await self._fetch()
        finally:
            self._busy = False

    async def _fetch(self) -> None:
        """Wait for more entries, or for the end of the lease."""
        lease = self._lease
        if self._source is None:
            await lease._ensure_begun()
            self._source = lease._host.plane.follow(lease)
            self._loop = asyncio.get_running_loop()
            return  # meanwhile it may have been drained
        waiter = lease._start_waiting()
        try:
            self._source.want(waiter)
            await waiter
        except RedisRejected as refused:
            lease._refused = refused
            raise
        finally:
            lease._stop_waiting(waiter)
        self._arrived += self._source.take()

    def __del__(self) -> None:
        """Called by the garbage collector, so perhaps from another thread."""
        if self._source is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._source.close)
