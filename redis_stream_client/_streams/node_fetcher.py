"""The node fetcher: reads the data streams on one server. One connection reads pages, another announces
changes."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol import data_streams
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.placement import Placement, by_slot
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._redis.wordings import ENTRIES, WAKE_UPS, Wording
from redis_stream_client._streams.bypass_reader import BypassReader
from redis_stream_client._streams.cursor import Cursor
from redis_stream_client._streams.gap_detector import GapDetector
from redis_stream_client._streams.intervals import LONGEST_WATCH, POLL, POLL_SHARE, WATCH_SHARE
from redis_stream_client._streams.read_sizes import ReadSizes
from redis_stream_client._streams.tracking import Tracking
from redis_stream_client._streams.tracking_check import TrackingCheck

FRUITLESS = 0.02  # seconds to pause after a wake-up without entries: a full tracking table sends one for each read
PASSING = 0.25  # seconds before the next read of streams that the server has refused for now
UNUSED = 30.0  # seconds without streams after which the connections to a server are closed


class Nodes(Protocol):
    """What a node fetcher needs from the fetcher of all servers."""

    def read(self, cursor: Cursor) -> None:
        """Read the stream of a cursor on the server that holds it now."""
        ...

    def doubt(self) -> None:
        """Note that streams may have moved to another server."""
        ...

    def look_around(self) -> None:
        """Look up where the streams are, now and then."""
        ...

    def unused(self, reading: "NodeFetcher") -> None:
        """Note that a server has no streams left; its fetcher ends."""
        ...

    def shrunk(self) -> None:
        """Count a request that got no answer and is repeated for less."""
        ...

    def renewed(self, endpoint: Endpoint, history: str) -> None:
        """Note that a server has a new history."""
        ...


class NodeFetcher:
    """The data streams on one server."""

    def __init__(
        self,
        nodes: Nodes,
        endpoint: Endpoint,
        placement: Placement,
        quiet: float,
        lock: str | None,
        *,
        log: Log,
        outage_at: Callable[[Wording, Endpoint], OutageLog],
    ) -> None:
        self._log = log
        self._outage = outage_at(ENTRIES, endpoint)
        self._nodes = nodes
        self._placement = placement
        self._cursors: dict[bytes, list[Cursor]] = defaultdict(list)
        self._wanted: dict[Cursor, None] = {}
        self._work = asyncio.Event()
        self._backoff = Backoff(0.005, 0.25)
        self._poll = POLL[0]
        self._quiet = quiet
        self._sizes = ReadSizes(quiet, log)
        self._answered_at = float("-inf")
        self._looked_at = clock.now()
        self._watch_at = float("-inf")
        self._unused_since: float | None = None
        self._info = True
        self._lock = lock
        self._identity = ServerIdentity(lambda history: nodes.renewed(endpoint, history))
        self.endpoint = endpoint
        self.connection = SharedConnection(endpoint, greet=self._greet, on_loss=self._lost, role="entries")
        self.tracking = Tracking(endpoint, quiet, self._heard, self._wakeups_changed, log)
        self._bypass = BypassReader(endpoint, placement, self._greet, self._is_fresh, log)
        self._gap_detector = GapDetector(self.connection, placement, self._is_fresh, log)
        self.tracking_check = TrackingCheck(
            self.connection, self.tracking, self._identity, quiet, self._paired, outage_at(WAKE_UPS, endpoint), log
        )

    @property
    def history(self) -> str | None:
        """The history of the server; None while it is not known."""
        return self._identity.history

    @property
    def cursors(self) -> list[Cursor]:
        """All cursors that are read here."""
        return [cursor for cursors in self._cursors.values() for cursor in cursors]

    async def _greet(self, connection: AbstractConnection, timeout: float) -> None:
        try:
            await self._identity(connection, timeout)
        except Unanswered as error:  # no read was sent yet
            raise Unanswered(str(error), maybe_executed=False, elsewhere=error.elsewhere) from error
        self.tracking.answers()
        for cursor in self.cursors:
            self._is_fresh(cursor)

    def _is_fresh(self, cursor: Cursor) -> bool:
        """Whether the server still has what the cursor has read. After a loss of writes the stream may end before
        the position of the cursor, and entries that are then written must not be skipped."""
        history = self._identity.history
        if cursor.stale:
            return False
        if cursor.history is None or history is None or cursor.history == history:
            cursor.history = history or cursor.history
            return True
        self._log.debug(
            "reading %s begins again at its checkpoint: the server may have lost writes",
            cursor.stream,
            extra={"stream": cursor.stream},
        )
        cursor.restart(history)
        return False

    def met(self, history: str) -> None:
        """A connection to this server has met this history."""
        for cursor in self.cursors:
            if cursor.history not in (None, history):
                cursor.restart(history)

    # Cursors.

    def read(self, cursor: Cursor) -> None:
        """Read the stream of a cursor with the next command."""
        if cursor.server is not self:
            if cursor.server is not None:
                cursor.server.remove(cursor)
            cursor.server = self
            self._cursors[cursor.stream.encode()].append(cursor)
        cursor.due()
        self._wanted[cursor] = None
        self._work.set()

    def remove(self, cursor: Cursor) -> None:
        """Forget a cursor that nobody needs any more."""
        self._wanted.pop(cursor, None)
        self._gap_detector.forget(cursor)
        cursor.server = None
        key = cursor.stream.encode()
        cursors = self._cursors[key]
        if cursor in cursors:
            cursors.remove(cursor)
        if not cursors:
            del self._cursors[key]
        self._work.set()

    # What Redis announces.

    def _heard(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self._changed(heard=False)
            return
        self.tracking_check.heard(keys)
        for key in keys:
            for cursor in self._cursors.get(key, ()):
                self._gap_detector.changed(cursor)
                self._look_again(cursor, heard=True)

    def _changed(self, *, heard: bool) -> None:
        for cursor in self.cursors:
            self._look_again(cursor, heard=heard)

    def _look_again(self, cursor: Cursor, *, heard: bool) -> None:
        if cursor.changed(heard):
            self.read(cursor)

    def _wakeups_changed(self) -> None:
        """The connection for wake-ups has come or gone."""
        if self.tracking.id is None:
            self.tracking_check.lost()
            self._changed(heard=False)
        self._work.set()

    def _lost(self, reason: Exception) -> None:
        """The reading connection is lost: nothing is tracked any more. A read under way fails by itself."""
        self.tracking_check.lost()
        self._changed(heard=False)
        self._work.set()

    def _paired(self) -> None:
        """The two connections are paired. Streams that were read before are not tracked."""
        self._look_at_all()
        self._watch_at = clock.now()

    def renew(self, reason: str) -> None:
        """Reopen both connections, and read all streams again."""
        self.tracking.drop()
        self.connection.drop(Unanswered(reason, maybe_executed=True, elsewhere=True))
        self._changed(heard=False)

    # Reading.

    async def run(self) -> None:
        """Read until cancelled or unused. However busy some streams are, all others are looked at in each
        period."""
        while not self._is_unused():
            await self._rest(min(self._due, self._next_duty()))
            started, found = clock.now(), False
            if started >= self._due:
                self._look_at_all()
            while self._wanted:  # at least one page: on a slow line, something else is always due
                found |= await self._read_and_go_on()
                if clock.now() >= min(self._due, self._next_duty()):
                    break
            if not self._wanted:
                self._work.clear()
            took = clock.now() - started
            shortest = max(POLL[0], min(POLL_SHARE * took, max(POLL[1], 2 * took)))
            self._poll = shortest if found else max(shortest, min(self._poll * 1.5, POLL[1]))
            await self._do_duties()
        self._nodes.unused(self)

    @property
    def _due(self) -> float:
        """When the next look at all waiting streams is due."""
        return self._looked_at + (self._poll if self.tracking_check.token is None else self.tracking_check.period)

    def _look_at_all(self) -> None:
        self._looked_at = clock.now()
        self._changed(heard=False)

    async def _rest(self, until: float) -> None:
        await wait_for(self._work, until - clock.now())

    def _is_unused(self) -> bool:
        if self._cursors:
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = clock.now()
        return self._unused_since is not None and clock.now() - self._unused_since >= UNUSED

    # Beside reading.

    def _next_duty(self) -> float:
        """When the next task other than reading is due. The first read comes before all others."""
        if not self._cursors:
            return (self._unused_since or clock.now()) + UNUSED
        if self._answered_at == float("-inf"):
            return float("inf")
        return min(self._watch_at, self._gap_detector.due)

    async def _do_duties(self) -> None:
        if not self._cursors or self._answered_at == float("-inf"):
            return
        await self.tracking_check.tend(self._answered_at)
        now = clock.now()
        if now >= self._watch_at:
            longest = min(LONGEST_WATCH, max(0.2, self._quiet / 2))
            pause = min(longest, 0.5) if self.tracking_check.unproven else longest
            if await self._watch():
                pause = max(pause, min(WATCH_SHARE * (clock.now() - now), LONGEST_WATCH))
            now = clock.now()
            self._watch_at = now + pause
        if self._gap_detector.due <= now:
            await self._gap_detector.look_at_due(self._sizes.patience)

    async def _watch(self) -> bool:
        """Check what the server has become, and test the wake-ups. Returns whether it answered."""
        if self.endpoint.clustered:
            self._nodes.look_around()
        commands: list[tuple[Any, ...]] = [("INFO", "replication")] if self._info else []
        lock = self._lock if self._lock and self._placement.endpoint(self._lock) is self.endpoint else None
        if lock and self.tracking_check.token is not None:
            commands.append(("PTTL", lock))
        if not commands:
            return True
        try:
            replies = await self.connection.together(*commands, timeout=self._sizes.patience)
        except (Unanswered, GroupMissing) as error:
            self._log.debug("watching %s: %s", self.endpoint.where, error)
            self._nodes.doubt()
            return False
        if lock and self.tracking_check.token is not None and isinstance(replies[-1], int):
            self.tracking_check.rang(lock.encode(), replies[-1])
        if self._info and not isinstance(replies[0], bytes):
            self._info = False
        elif self._info:
            self._judge(replies[0].decode(errors="replace"))
        return True

    def _judge(self, info: str) -> None:
        role = re.search(r"^role:(\w+)", info, re.MULTILINE)
        replid = re.search(r"^master_replid:(\w+)", info, re.MULTILINE)
        history = self._identity.history
        if role and role[1] != "master":
            self._log.info(
                "%s is a replica now: this client looks for the server that has its data streams",
                self.endpoint.where,
                extra={"address": self.endpoint.where},
            )
            self.renew("the server is a replica now")
            self._nodes.doubt()
        elif replid and history and history.partition("/")[2] != replid[1]:
            self.renew("the server may have lost writes")

    # Pages.

    def _page(self) -> list[Cursor]:
        """The cursors for the next read: all with the same count, and only one for each stream. Streams without an
        announced change are expected to bring little, others as much as they may bring."""
        first = next(iter(self._wanted))
        most = self._sizes.streams(first)
        page: dict[str, Cursor] = {}
        for cursor in self._wanted:
            alike = cursor.count == first.count and cursor.idle == first.idle
            if alike and cursor.reassured == first.reassured:
                page.setdefault(cursor.stream, cursor)
                if len(page) >= most:
                    break
        for cursor in page.values():
            del self._wanted[cursor]
            cursor.begin()
        return list(page.values())

    async def _read_and_go_on(self) -> bool:
        """Read a page. While a large reply arrives slowly, the bypass reader reads other streams.

        Returns whether any entry came.
        """
        page = self._page()

        def waiting() -> list[Cursor]:
            cursors = (*page, *self._wanted)
            return [
                cursor for cursor in cursors if cursor.waiting and cursor.server is self and not cursor.careful
            ]

        async with self._bypass.reading(waiting, self._sizes.patience):
            return await self._read_page(page)

    async def _read_page(self, page: Sequence[Cursor]) -> bool:
        """Read a page with one command for each slot. Returns whether any entry came."""
        slots = by_slot(self._placement, page, lambda cursor: cursor.stream)
        reads = (self._read_together(cursors) for cursors in slots)
        if len(slots) == 1:
            outcomes = [await next(reads)]
        else:
            outcomes = await gather(*reads, name="redis_stream_client reads")
        failures = [outcome for outcome in outcomes if isinstance(outcome, _Failure)]
        if failures:
            await self._failed(page, failures)
        else:
            self._outage.answered()
        return any(outcome is True for outcome in outcomes)

    async def _read_together(self, cursors: Sequence[Cursor]) -> "bool | _Failure":
        streams = [cursor.stream for cursor in cursors]
        count, token = cursors[0].count, self.tracking_check.token
        sent = False
        try:
            await self._gap_detector.look_before_reading(cursors, self._sizes.patience)
            positions = [cursor.position for cursor in cursors]
            started, sent = clock.now(), True
            command = ("XREAD", "COUNT", count, "STREAMS", *streams, *positions)
            reply = await self.connection.request(*command, timeout=self._sizes.patience)
        except (Unanswered, GroupMissing) as error:
            return _Failure(cursors, error, sent)
        except RedisRejected as error:
            if len(cursors) > 1:  # one key is no stream, or not permitted; read the others alone
                middle = len(cursors) // 2
                halves = map(self._read_together, (cursors[:middle], cursors[middle:]))
                return _Failure.of_all(await gather(*halves, name="redis_stream_client reads"))
            cursors[0].end()
            cursors[0].tell(data_streams.unreadable(cursors[0].stream, error))
            return False
        except BaseException:
            for cursor in cursors:
                cursor.end()
            raise
        brought = dict(reply or ())
        self._backoff.reset()
        self._answered_at = clock.now()
        self._sizes.answered(len(cursors), brought.values(), clock.now() - started)
        if not brought and all(cursor.idle for cursor in cursors):  # a wake-up without entries; more may come
            await asyncio.sleep(FRUITLESS)
        heard = token is not None and token is self.tracking_check.token
        for cursor, position in zip(cursors, positions, strict=True):
            if cursor.position == position:
                self._arrived(cursor, brought.get(cursor.stream.encode(), ()), count, heard)
            else:  # the bypass reader was faster
                cursor.end()
                if cursor.waiting and not cursor.closed:
                    self.read(cursor)
        return bool(brought)

    def _arrived(self, cursor: Cursor, raw: Sequence[Any], count: int, heard: bool) -> None:
        if not self._is_fresh(cursor):
            cursor.end()
            return
        if raw:
            if cursor.reassured and self.tracking_check.token is not None:
                self.tracking_check.found(cursor.stream.encode())
            if cursor.server is self:
                self._gap_detector.changed(cursor)
            if len(raw) == count:
                cursor.count = self._sizes.entries(count, raw)
        cursor.reassured = False
        cursor.arrived(raw, count, heard)

    async def _failed(self, page: Sequence[Cursor], failures: "Sequence[_Failure]") -> None:
        """Deal with parts of a page that got no answer. Parts that were sent are repeated for less."""
        self._outage.failed(failures[0].error)
        for failure in failures:
            for cursor in failure.cursors:
                cursor.end()
        if any(failure.too_large for failure in failures):
            self._sizes.unanswered(page)
            self._nodes.shrunk()
        cursors = [cursor for failure in failures for cursor in failure.cursors]
        if all(failure.passing for failure in failures):
            asyncio.get_running_loop().call_later(PASSING, self._read_again, cursors)
            return
        self._nodes.doubt()
        await asyncio.sleep(self._backoff.pause())
        self._read_again(cursors)

    def _read_again(self, cursors: Sequence[Cursor]) -> None:
        for cursor in cursors:
            if cursor.waiting and not cursor.closed and not cursor.reading:
                self._nodes.read(cursor)

    async def close(self) -> None:
        """Close the connections. Whoever has started the tasks cancels them."""
        self._outage.forget()
        self.tracking_check.close()
        await self.connection.close()
        await self._bypass.close()


class _Failure(NamedTuple):
    """Streams whose read got no answer, and whether it was sent."""

    cursors: Sequence[Cursor]
    error: Exception
    sent: bool

    @classmethod
    def of_all(cls, outcomes: "Sequence[bool | _Failure]") -> "bool | _Failure":
        """The outcome of a page, from the outcomes of its parts."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, _Failure)]
        if not failures:
            return any(outcomes)
        cursors = [cursor for failure in failures for cursor in failure.cursors]
        return cls(cursors, failures[0].error, failures[0].sent)

    @property
    def passing(self) -> bool:
        """Whether the server refuses these streams only for now, because their slot is being moved."""
        error = self.error
        if not isinstance(error, Unanswered) or error.maybe_executed or error.elsewhere:
            return False
        return isinstance(error.__cause__, ResponseError)

    @property
    def too_large(self) -> bool:
        """Whether the reply may have been too large for the line or for the server."""
        error = self.error
        return self.sent and isinstance(error, Unanswered) and error.maybe_executed and not error.elsewhere
