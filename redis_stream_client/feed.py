"""Reading data streams: few connections and few commands for any number of streams.

``XREAD`` has no side effects, so what a consumer reads that has lost its stream steals nothing. Whoever wants
entries at about the same time shares one command; a stream that has none costs nothing until Redis says that it
changed (`wakeups`). A busy stream is read in pieces that grow.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from redis_stream_client import clock
from redis_stream_client.batch import Spawn
from redis_stream_client.endpoint import Endpoint
from redis_stream_client.entry import Entry
from redis_stream_client.errors import ClientClosed, RedisRejected
from redis_stream_client.faults import GroupMissing, Unanswered, WrongType
from redis_stream_client.link import Link
from redis_stream_client.logs import log
from redis_stream_client.operations import Greeter
from redis_stream_client.pacing import Backoff
from redis_stream_client.places import Places
from redis_stream_client.tasks import gather
from redis_stream_client.wakeups import Wakeups

FIRST_PIECE = 8  # entries of one stream in one read
LARGEST_PIECE = 1_024
PIECE_BYTES = 1 << 20  # pieces grow no larger than this
READ = 1_024  # entries that one command may bring, of all its streams
READ_BYTES = 1 << 24  # and about how much of it, judging by what came before
STREAMS = 512  # streams in one command
LONGEST_TIMEOUT = 30.0  # seconds for one read, after shorter ones have failed: a slow line takes its time
REASSURANCE = 20.0  # seconds after which idle streams are looked at, though nothing was heard: a slot that moves
# while its key does not exist, SWAPDB
POLL = (0.05, 1.0)  # seconds between two looks where there are no wake-ups: the shortest, and the longest
POLL_SHARE = 10  # such looks take a tenth of the time

FRUITLESS = 0.02  # seconds to rest after a wake-up that brought nothing: a full tracking table sends one per read


class Cursor:
    """How far one data stream was read."""

    __slots__ = (
        "_caught_up", "_changed", "_closed", "_entries", "_feed", "_idle", "_reading", "_server", "_waiter",
        "count", "position", "stream",
    )  # fmt: skip

    def __init__(self, feed: "Feed", stream: str, position: str) -> None:
        self._feed = feed
        self._server: _Server | None = None
        self._entries: list[Entry] = []
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self._caught_up = False  # nothing to read until a change is heard
        self._changed = False  # while it was being read
        self._idle = False  # the last read brought nothing
        self._closed = False
        self.stream = stream
        self.position = position
        self.count = FIRST_PIECE

    def take(self) -> list[Entry]:
        """The entries that have arrived, in order."""
        entries, self._entries = self._entries, []
        return entries

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Have `waiter` resolved when there are entries to take, or fail with what went wrong for good."""
        self._waiter = waiter
        if self._entries:
            self._tell(None)
        elif not (self._caught_up or self._reading):
            self._feed.read(self)

    def close(self) -> None:
        """Read no more."""
        if not self._closed:
            self._closed = True
            self._feed._homeless.pop(self, None)
            if self._server is not None:
                self._server.remove(self)

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for entries."""
        return self._waiter is not None and not self._waiter.done()

    def _tell(self, failure: Exception | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(failure)

    def _read(self, raw: Sequence[Any], heard: bool) -> None:
        """A read has ended; `heard` says whether changes from now on are heard of."""
        self._reading = False
        self._idle = not raw
        self._caught_up = heard and not self._changed and len(raw) < self.count
        if raw:
            self._entries += map(Entry.of, raw)
            self.position = self._entries[-1].id
            if len(raw) == self.count:
                self.count = _next_count(self.count, raw)
            self._tell(None)
        elif self.waiting and heard and not self._caught_up:
            self._feed.read(self)


def _next_count(count: int, raw: Sequence[Any]) -> int:
    """How many entries to ask for after a piece that was full."""
    size, entries = _size([raw])
    return max(1, min(count * 4, LARGEST_PIECE, PIECE_BYTES * entries // max(1, size)))


def _size(pieces: Iterable[Sequence[Any]]) -> tuple[int, int]:
    """Bytes and entries."""
    sizes = [sum(map(len, words)) for piece in pieces for _, words in piece]
    return sum(sizes), len(sizes)


class Feed:
    """All data streams that one client follows."""

    def __init__(self, places: Places, quiet: float, spawn: Spawn, gone: Callable[[], ClientClosed]) -> None:
        self._places = places
        self._quiet = quiet
        self._spawn = spawn
        self._gone = gone
        self._servers: dict[Endpoint, _Server] = {}
        self._homeless: dict[Cursor, None] = {}
        self._finding: asyncio.Task[None] | None = None

    def follow(self, stream: str, position: str) -> Cursor:
        """A cursor after the entry `position`."""
        return Cursor(self, stream, position)

    def read(self, cursor: Cursor) -> None:
        """Read a cursor's stream soon."""
        if cursor._closed:
            return
        try:
            endpoint = self._places.of(cursor.stream)
            if endpoint is None:
                self._homeless[cursor] = None
                if self._finding is None or self._finding.done():
                    self._finding = self._spawn(self._find())
                return
            server = self._servers.get(endpoint)
            if server is None:
                server = self._servers[endpoint] = _Server(self, endpoint, self._places, self._quiet)
                for part in (server.wakeups, server):
                    self._spawn(part.run())
            server.read(cursor)
        except ClientClosed as error:
            cursor._tell(error)

    async def _find(self) -> None:
        """Learn where the streams are, and read them there."""
        backoff = Backoff(0.01, 0.5)
        while self._homeless:
            try:
                await self._places.learn(self._quiet)
            except (Unanswered, RedisRejected) as error:
                log.debug("where are the data streams? %s", error)
                await asyncio.sleep(backoff.pause())
                continue
            homeless, self._homeless = self._homeless, {}
            for cursor in homeless:
                self.read(cursor)
            await asyncio.sleep(backoff.pause())

    def move(self) -> None:
        """Another server may be responsible now."""
        for server in self._servers.values():
            server.link.drop(Unanswered("another server is responsible now", maybe_executed=True))

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            await server.link.close()


class _Server:
    """The data streams on one server."""

    def __init__(self, feed: Feed, endpoint: Endpoint, places: Places, quiet: float) -> None:
        self._feed = feed
        self._places = places
        self._cursors: dict[bytes, list[Cursor]] = defaultdict(list)
        self._wanted: dict[Cursor, None] = {}
        self._work = asyncio.Event()
        self._backoff = Backoff(0.005, 0.25)
        self._poll = POLL[0]
        self._quiet = self._timeout = quiet
        self._entry_bytes = 0.0  # what an entry had lately, on average
        self._greeter = Greeter()
        self.link = Link(endpoint, greet=self._greet, on_loss=self._lost)
        self.wakeups = Wakeups(endpoint, quiet, self._changed, self._gap)

    async def _greet(self, connection: AbstractConnection, timeout: float) -> None:
        await self._greeter(connection, timeout)
        await self.wakeups.track(connection, timeout)

    def read(self, cursor: Cursor) -> None:
        """Read a cursor's stream with the next command."""
        if cursor._server is not self:
            if cursor._server is not None:
                cursor._server.remove(cursor)
            cursor._server = self
            self._cursors[cursor.stream.encode()].append(cursor)
        self._wanted[cursor] = None
        self._work.set()

    def remove(self, cursor: Cursor) -> None:
        """A cursor that is not needed any more."""
        self._wanted.pop(cursor, None)
        cursor._server = None
        key = cursor.stream.encode()
        cursors = self._cursors[key]
        if cursor in cursors:
            cursors.remove(cursor)
        if not cursors:
            del self._cursors[key]

    # What is heard.

    def _changed(self, keys: Sequence[bytes] | None) -> None:
        for key in list(self._cursors) if keys is None else keys:
            for cursor in self._cursors.get(key, ()):
                self._look_again(cursor)

    def _look_again(self, cursor: Cursor) -> None:
        cursor._caught_up = False
        if cursor._reading:
            cursor._changed = True
        elif cursor.waiting:
            self.read(cursor)

    def _gap(self) -> None:
        self.link.drop(Unanswered("the wake-ups were lost", maybe_executed=True))

    def _lost(self, reason: Exception) -> None:
        """Nothing is watched any more. What is being read now fails by itself."""
        self._changed(None)

    # Reading.

    async def run(self) -> None:
        """Until cancelled. However busy other streams are, all that wait are looked at in every period."""
        due = clock.now() + self._period
        while True:
            due = min(due, clock.now() + self._period)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - clock.now())):
                    await self._work.wait()
            started, found = clock.now(), False
            if started >= due:
                self._changed(None)
                due = started + self._period
            while self._wanted and clock.now() < due:
                found |= await self._read_page(self._page())
            if not self._wanted:
                self._work.clear()
            shortest = max(POLL[0], POLL_SHARE * (clock.now() - started))
            self._poll = shortest if found else max(shortest, min(self._poll * 1.5, POLL[1]))

    @property
    def _period(self) -> float:
        return REASSURANCE if self.wakeups.possible else self._poll

    def _page(self) -> list[Cursor]:
        """Cursors that are read with the same count; of one stream, one at a time. Of streams that were idle not
        much is expected, of others as much as they may bring."""
        count = next(iter(self._wanted)).count
        idle = next(iter(self._wanted))._idle
        most = (
            STREAMS
            if idle
            else min(STREAMS, READ // count, READ_BYTES // max(1, round(count * self._entry_bytes)))
        )
        page: dict[str, Cursor] = {}
        for cursor in self._wanted:
            if cursor.count == count and cursor._idle == idle:
                page.setdefault(cursor.stream, cursor)
                if len(page) >= most:
                    break
        for cursor in page.values():
            del self._wanted[cursor]
            cursor._reading = True
            cursor._changed = False
        return list(page.values())

    async def _read_page(self, page: Sequence[Cursor]) -> bool:
        """One command for each slot. Returns whether there was anything."""
        slots: dict[int, list[Cursor]] = defaultdict(list)
        for cursor in page:
            slots[self._places.slot(cursor.stream)].append(cursor)
        if len(slots) == 1:
            return await self._read_together(page)
        return any(await gather(*map(self._read_together, slots.values()), name="redis_stream_client reads"))

    async def _read_together(self, cursors: Sequence[Cursor]) -> bool:
        try:
            streams = [cursor.stream for cursor in cursors]
            positions = [cursor.position for cursor in cursors]
            command = ("XREAD", "COUNT", cursors[0].count, "STREAMS", *streams, *positions)
            reply = await self.link.request(*command, timeout=self._timeout)
        except (Unanswered, GroupMissing) as error:
            await self._failed(cursors, error)
            return False
        except RedisRejected as error:
            if len(cursors) > 1:  # one of them is no stream, or not permitted: the others go on
                return any([await self._read_together([cursor]) for cursor in cursors])
            cursors[0]._reading = False
            cursors[0]._tell(_about(cursors[0].stream, error))
            return False
        except BaseException:
            for cursor in cursors:
                cursor._reading = False
            raise
        self._backoff.reset()
        self._timeout = self._quiet
        brought = dict(reply or ())
        if brought:
            size, entries = _size(brought.values())
            self._entry_bytes += (size / entries - self._entry_bytes) / 4
        if not brought and all(cursor._idle for cursor in cursors):  # a wake-up for nothing, perhaps one of many
            await asyncio.sleep(FRUITLESS)
        heard = self.wakeups.possible
        for cursor in cursors:
            cursor._read(brought.get(cursor.stream.encode(), ()), heard)
        return bool(brought)

    async def _failed(self, cursors: Sequence[Cursor], error: Exception) -> None:
        log.debug("reading data streams: %s", error)
        self._timeout = min(self._timeout * 2, LONGEST_TIMEOUT)
        for cursor in cursors:
            cursor._reading = False
            cursor.count = max(1, cursor.count // 4)
        if isinstance(error, Unanswered) and error.elsewhere:
            self._places.forget()
        await asyncio.sleep(self._backoff.pause())
        for cursor in cursors:
            if cursor.waiting:
                if cursor._server is self:
                    self.remove(cursor)
                self._feed.read(cursor)


def _about(stream: str, error: RedisRejected) -> RedisRejected:
    """Why one data stream cannot be read."""
    if isinstance(error, WrongType):
        rejected: RedisRejected = WrongType(
            f"the key {stream!r} holds another type of value than a stream",
            hint="a data stream must be written with XADD; delete or rename that key",
            stream=stream,
        )
    else:
        rejected = type(error)(f"the data stream {stream!r} cannot be read: {error.args[0]}", stream=stream)
    rejected.__cause__ = error.__cause__
    return rejected
