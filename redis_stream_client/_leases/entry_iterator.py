"""Following a lease's data stream, entry by entry."""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol

from redis_stream_client._concurrency import forks
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.errors import EntriesTrimmed, RedisRejected, RedisUnavailable
from redis_stream_client._model.gaps import Gap

if TYPE_CHECKING:
    from redis_stream_client._leases.lease import Lease

IN_DOUBT = 0.01
"""Seconds between two looks whether a lock that is in doubt is held again."""

RETRY = 0.2
"""Seconds until the record is asked again that did not answer."""

OnGap = Literal["warn", "raise"]


class Source(Protocol):
    """Where entries come from."""

    careful: bool
    """Whether a gap must be known before an entry behind it is taken."""

    @property
    def stale(self) -> bool:
        """Whether the server may have lost writes: what was read is to be forgotten."""
        ...

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order, and where some are missing."""
        ...

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Have `waiter` resolved when there is something to take, or fail with what went wrong for good."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class Entries:
    """The entries of one lease's data stream, from the one after its checkpoint. Never ends by itself."""

    def __init__(self, lease: "Lease", on_gap: OnGap = "warn") -> None:
        self._lease = lease
        self._on_gap = on_gap
        self._source: Source | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = forks.here()
        self._arrived: deque[Entry | Gap] = deque()
        self._busy = False
        self._added: int | None = None
        self._last: str | None = None

    def __aiter__(self) -> "Entries":
        return self

    async def __anext__(self) -> Entry:
        if self._busy:
            raise RuntimeError("another task waits for the next of these entries; call entries() once for each")
        self._busy = True
        try:
            while True:
                if self._lease._must_pause:
                    await self._lease._pause()
                elif self._source is not None and self._source.stale:
                    await self._start_again(self._source)
                elif not self._arrived:
                    await self._fetch()
                elif (entry := self._next(self._arrived.popleft())) is not None:
                    return entry
        finally:
            self._busy = False

    def _next(self, item: Entry | Gap) -> Entry | None:
        """Hand over what has arrived; None for a gap that is passed over."""
        lease = self._lease
        if isinstance(item, Gap):
            if self._added is not None:
                self._added += item.entries
            lease._skip(item)
            if self._on_gap == "raise":
                raise EntriesTrimmed(
                    f"{item.entries} entries of {lease.stream!r} were trimmed or deleted before they were read: "
                    f"they came after {item.after}",
                    gap=item,
                    stream=lease.stream,
                    lbs_id=lease.lbs_id,
                    hint="the next step of these entries() goes on behind the gap",
                )
            return None
        if self._added is not None:
            self._added += 1
        lease._hand_over(item.id, self._last, self._added)
        self._last = item.id
        return item

    async def _fetch(self) -> None:
        """Wait for more entries, or for the end of the lease."""
        lease = self._lease
        if self._source is None:
            await lease._ensure_begun()
            self._added = lease._start_reading()
            self._source = lease._host.plane.follow(lease)
            self._source.careful = self._on_gap == "raise"
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

    async def _start_again(self, source: Source) -> None:
        """The server has lost writes, perhaps some of those that were read: ask how far it knows us to be."""
        source.close()
        self._arrived.clear()
        try:
            await self._lease._begin_again()
        except RedisUnavailable:
            if self._lease._lost is not None:
                raise
            await asyncio.sleep(RETRY)
            return
        self._source = None

    def __del__(self) -> None:
        """Called by the garbage collector, so perhaps from another thread."""
        if self._source is not None and self._loop is not None and self._process == forks.here():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._source.close)
