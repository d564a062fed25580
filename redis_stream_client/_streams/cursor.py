"""A cursor: how far one data stream was read, and what is known about it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis_stream_client._concurrency import clock
from redis_stream_client._model.entry import Entry, from_reply
from redis_stream_client._model.gaps import Count, Gap
from redis_stream_client._streams.read_sizes import FIRST_PIECE


class ReadRequests(Protocol):
    """Accepts requests to read: the fetcher of all streams."""

    def read(self, cursor: "Cursor") -> None:
        """Read the stream of this cursor soon."""
        ...

    def forget(self, cursor: "Cursor") -> None:
        """Forget this cursor: nobody needs it any more."""
        ...


class Reader(Protocol):
    """Reads the stream of a cursor now."""

    def remove(self, cursor: "Cursor") -> None:
        """Stop reading this cursor here."""
        ...


class Cursor:
    """How far one data stream was read.

    Attributes:
        stream: name of the data stream.
        position: id of the last entry that was read.
        history: history of the server that it was read on; None if not known.
        careful: whether to look for a gap before any entry behind it is read.
        stale: whether the server may have lost writes, so that it may hold other entries than those that were
            read. Such a cursor reads no more; its user begins again at the checkpoint.
        count: how many entries to ask for.
        server: what reads this cursor now.
        idle: whether the last read brought nothing.
        reassured: whether it is read although Redis has not announced a change.
        since: when the next read became due; None if none is due.
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
        self._caught_up = False  # nothing to read until Redis announces a change
        self._changed = False  # a change was announced during a read
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

    # For the user of the entries.

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._items)

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order, with a `Gap` where some are missing."""
        items, self._items = self._items, []
        return items

    def want(self, waiter: asyncio.Future[None]) -> None:
        """Resolve `waiter` when there is something to take. It fails if Redis refuses for good."""
        self._waiter = waiter
        if self._items or self.stale:
            self.tell(None)
        elif not (self._caught_up or self._reading):
            self._fetcher.read(self)

    @property
    def caught_up(self) -> bool:
        """Whether everything was read and taken, as far as is known."""
        if self._items or self._changed:
            return False
        return self._caught_up or (self.idle and self.since is None)

    def close(self) -> None:
        """Stop reading."""
        if not self._closed:
            self._closed = True
            self._fetcher.forget(self)

    # For the reader.

    @property
    def closed(self) -> bool:
        """Whether nobody needs this cursor any more."""
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
        """Wake the waiter."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(failure)

    def due(self) -> None:
        """Note that a read is due."""
        if self.since is None:
            self.since = clock.now()

    def begin(self) -> None:
        """A read begins. It may miss a change that happens from now on."""
        self._reading = True
        self._changed = False

    def end(self) -> None:
        """A read has failed."""
        self._reading = False

    def changed(self, heard: bool) -> bool:
        """The stream may have changed. Returns whether to read it now."""
        self.reassured = self._caught_up and not heard
        self._caught_up = False
        if self._reading:
            self._changed = True
            return False
        return self.waiting

    def arrived(self, raw: Sequence[Any], count: int, heard: bool) -> None:
        """A read for `count` entries has ended. `heard`: whether Redis announces changes from now on."""
        self._reading = False
        self.since = None
        self.idle = not raw
        self._caught_up = heard and not self._changed and len(raw) < count
        if raw:
            self._add(raw)
        elif self.waiting and heard and not self._caught_up:
            self._fetcher.read(self)

    def arrived_by_bypass(self, raw: Sequence[Any]) -> None:
        """The bypass reader has read entries, while a usual read is due or under way."""
        self.since = None
        self._add(raw)

    def _add(self, raw: Sequence[Any]) -> None:
        entries = [from_reply(item, self.stream) for item in raw]
        self._items += entries
        self.position = entries[-1].id
        self.added.read(len(entries))
        self.tell(None)

    def skipped(self, gap: Gap) -> None:
        """Note a gap before the next entry."""
        self._items.append(gap)
        self.tell(None)

    def restart(self, history: str) -> None:
        """Note that the server, with this new history, may have lost entries that were read."""
        self.stale = True
        self._on_restart(history)
        self._items = []
        self._fetcher.forget(self)
        self.tell(None)
