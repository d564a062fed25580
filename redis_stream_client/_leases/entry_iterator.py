"""``lease.entries()``: follows the data stream of a lease, entry by entry."""

import asyncio
import contextlib
from collections import deque
from typing import Literal

from redis_stream_client._concurrency import forks
from redis_stream_client._leases.backend import Asking, LeaseBackend, Source
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.errors import EntriesTrimmed, RedisRejected, RedisUnavailable
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.logs import log

IN_DOUBT = 0.01
"""Seconds between two checks whether a lock in doubt is held again."""

RETRY = 0.2
"""Seconds before the next attempt to read a progress record, when Redis did not answer."""

OnGap = Literal["warn", "raise"]


class Entries:
    """The entries of the data stream of one lease, from the first one after its checkpoint. Never ends by
    itself."""

    def __init__(self, lease: LeaseState, backend: LeaseBackend, on_gap: OnGap = "warn") -> None:
        self._lease = lease
        self._backend = backend
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
        lease = self._lease
        try:
            while True:
                if lease.lost is not None or not self._backend.held or lease.drained:
                    await self._pause()
                elif self._source is not None and self._source.stale:
                    await self._start_again(self._source)
                elif not self._arrived:
                    await self._fetch()
                elif (entry := self._next(self._arrived.popleft())) is not None:
                    return entry
        finally:
            self._busy = False

    async def _pause(self) -> None:
        """Wait, or end the loop: no entry may be handed out now."""
        lease = self._lease
        if lease.lost is None and not self._backend.held:
            with Asking(lease, self._backend):
                await asyncio.sleep(IN_DOUBT)
            return
        if lease.lost is None and lease.cancel_scope is not None:
            if lease.cancel_scope.fired_here:  # somebody took the cancellation for another one
                raise asyncio.CancelledError
            lease.cancel("draining")
            await lease.wait_for_the_end()
        await asyncio.sleep(0)  # a cancellation that is on its way arrives here
        raise lease.not_owner()

    def _next(self, item: Entry | Gap) -> Entry | None:
        """Hand out an entry that has arrived. None for a gap: the loop goes on behind it."""
        if isinstance(item, Gap):
            self._skip(item)
            return None
        if self._added is not None:
            self._added += 1
        self._lease.hand_over(item.id, self._last, self._added)
        self._last = item.id
        return item

    def _skip(self, gap: Gap) -> None:
        lease = self._lease
        if self._added is not None:
            self._added += gap.entries
        if lease.skip(gap):
            log.warning(
                "%d entries of %s after %s%s were trimmed or deleted before they were read",
                gap.entries,
                lease.stream,
                gap.after,
                f" and before {gap.before}" if gap.before is not None else "",
                extra=lease.log_fields(),
            )
            self._backend.skipped(gap.entries)
        if self._on_gap == "raise":
            raise EntriesTrimmed(
                f"{gap.entries} entries of {lease.stream!r} were trimmed or deleted before they were read: "
                f"they came after {gap.after}",
                gap=gap,
                stream=lease.stream,
                lbs_id=lease.lbs_id,
                hint="the next step of these entries() goes on behind the gap",
            )

    async def _fetch(self) -> None:
        """Wait for more entries, or for the end of the lease."""
        lease = self._lease
        if self._source is None:
            if not lease.begun:
                await self._begin()
            self._added = lease.start_reading()
            self._source = self._backend.plane.follow(lease)
            self._source.careful = self._on_gap == "raise"
            self._loop = asyncio.get_running_loop()
            return  # meanwhile it may have been drained
        waiter = lease.start_waiting()
        try:
            self._source.want(waiter)
            await waiter
        except RedisRejected as refused:
            lease.refused = refused
            raise
        finally:
            lease.stop_waiting(waiter)
        self._arrived += self._source.take()

    async def _begin(self) -> None:
        """Ask Redis for the checkpoint."""
        with Asking(self._lease, self._backend):
            await self._backend.plane.begin(self._lease)

    async def _start_again(self, source: Source) -> None:
        """Read the checkpoint again, and start after it: the server may have lost writes, even entries we have
        read."""
        source.close()
        self._arrived.clear()
        try:
            await self._begin()
        except RedisUnavailable:
            if self._lease.lost is not None:
                raise
            await asyncio.sleep(RETRY)
            return
        self._source = None

    def __del__(self) -> None:
        """Called by the garbage collector, so perhaps from another thread."""
        if self._source is not None and self._loop is not None and self._process == forks.here():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._source.close)
