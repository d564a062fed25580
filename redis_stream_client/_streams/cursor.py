"""How far one data stream was read, and what is known about it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis_stream_client._concurrency import clock
from redis_stream_client._model.entry import Entry, from_reply
from redis_stream_client._model.gaps import Count, Gap
from redis_stream_client._streams.read_sizes import FIRST_PIECE


class ReadRequests(Protocol):
    """Who has cursors read: the fetcher of all streams."""

    def read(self, cursor: "Cursor") -> None:
        """Read its stream soon."""
        ...

    def forget(self, cursor: "Cursor") -> None:
        """It is not needed any more."""
        ...


class Reader(Protocol):
    """Who reads a cursor's stream now."""

    def remove(self, cursor: "Cursor") -> None:
        """It is read elsewhere from now on, or not any more."""
        ...


class Cursor:
    """How far one data stream was read.

    Attributes:
        stream: its name.
        position: id of the last entry that was read.
        history: of the server that it was read on; None where that is not known.
        careful: whether a gap must be known before an entry behind it is read.
        stale: the server may have lost writes since, so that its entries are no longer those that were read: this
            cursor reads no more, and whoever reads begins anew at the checkpoint.
        count: how many entries to ask for.
        server: who reads it now.
        idle: the last read brought nothing.
        reassured: it is looked at although nothing was heard.
        since: when reading became due; None when it is not.
    """

    __slots__ = (
        "_caught_up", "_changed", "_closed", "_fetcher", "_items", "_on_restart", "_reading", "_waiter",
        "added", "careful", "count", "history", "idle", "position", "reassured", "server", "since", "stale",
        "stream",
    )  # fmt: skip

    def __init__(
        self, fetcher: ReadRequests, stream: str, position: str, added: Count, on_restart: Callable[[str], None]
    ) -> None:
        self._fetcher = fetcher
        self._on_restart = on_restart
        self._items: list[Entry | Gap] = []
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self._caught_up = False  # nothing to read until a change is heard
        self._changed = False  # while it was being read
        self._closed = False
        self.stream = stream
        self.position = position
        self.added = added
        self.history: str | None = None
        self.careful = False
        self.stale = False
        self.count = FIRST_PIECE
        self.server: Reader | None = None
        self.idle = False
        self.reassured = False
        self.since: float | None = None

    # For whoever takes the entries.

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order, and where some are missing."""
        items, self._items = self._items, []
        return items

    def want(self, waiter: asyncio.Future[None]) -> None:
        """Have `waiter` resolved when there is something to take, or fail with what went wrong for good."""
        self._waiter = waiter
        if self._items or self.stale:
            self.tell(None)
        elif not (self._caught_up or self._reading):
            self._fetcher.read(self)

    def close(self) -> None:
        """Read no more."""
        if not self._closed:
            self._closed = True
            self._fetcher.forget(self)

    # For whoever reads.

    @property
    def closed(self) -> bool:
        """Whether nobody needs it any more."""
        return self._closed or self.stale

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for entries."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def reading(self) -> bool:
        """Whether it is being read."""
        return self._reading

    def tell(self, failure: Exception | None) -> None:
        """Wake who waits."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(failure)

    def due(self) -> None:
        """It is to be read."""
        if self.since is None:
            self.since = clock.now()

    def begin(self) -> None:
        """A read begins: a change from now on may come too late for it."""
        self._reading = True
        self._changed = False

    def end(self) -> None:
        """A read has failed."""
        self._reading = False

    def changed(self, heard: bool) -> bool:
        """There may be news. Returns whether to read now."""
        self.reassured = self._caught_up and not heard
        self._caught_up = False
        if self._reading:
            self._changed = True
            return False
        return self.waiting

    def arrived(self, raw: Sequence[Any], count: int, heard: bool) -> None:
        """A read for `count` entries has ended; `heard` says whether changes from now on are heard of."""
        self._reading = False
        self.since = None
        self.idle = not raw
        self._caught_up = heard and not self._changed and len(raw) < count
        if raw:
            self._add(raw)
        elif self.waiting and heard and not self._caught_up:
            self._fetcher.read(self)

    def arrived_by_bypass(self, raw: Sequence[Any]) -> None:
        """Something was read while another read is due, or under way, which will find less."""
        self.since = None
        self._add(raw)

    def _add(self, raw: Sequence[Any]) -> None:
        entries = [from_reply(item) for item in raw]
        self._items += entries
        self.position = entries[-1].id
        self.added.read(len(entries))
        self.tell(None)

    def skipped(self, gap: Gap) -> None:
        """Entries are missing before the next that is read."""
        self._items.append(gap)
        self.tell(None)

    def restart(self, history: str) -> None:
        """What was read may never have been, for the server of this history, which is read now."""
        self.stale = True
        self._on_restart(history)
        self._items = []
        self._fetcher.forget(self)
        self.tell(None)
