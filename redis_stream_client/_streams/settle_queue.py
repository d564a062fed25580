"""The settle queue: updates the progress records of owners that ended cleanly, and repeats this until Redis
answers.

No lease waits for it for long. It never cuts the connection that it shares, because it has a longer timeout than
the other users of that connection.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol.progress_records import CALL, Records
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.window import Window

PATIENCE = 10.0
"""Timeout of one call, in seconds. If the connection is broken, its other users notice earlier."""

FIRST = 16
"""Records in the first call. The number doubles with each quick answer, so that a slow line is not blocked."""

SOON, LATE = 0.1, 0.25
"""Seconds above the fastest call: calls grow while they take less than SOON, and shrink when they take more than
LATE. So a line with long round trips does not count as slow."""

MOST = 100_000
"""The most records that wait, with about 500 bytes each; more are dropped."""


class Ask(Protocol):
    """What is to be said about one record."""

    @property
    def record(self) -> str:
        """Its key."""
        ...

    def outlasts(self, newer: Any) -> bool:
        """Whether this must still be said, and the newer update of the same record need not."""
        ...


A = TypeVar("A", bound=Ask)


class Item(NamedTuple, Generic[A]):
    """The update of one progress record, and of its data stream."""

    stream: str
    ask: A


class Group:
    """Items that one caller waits for."""

    def __init__(self) -> None:
        self.left = 0
        self.over = asyncio.Event()


class SettleQueue(Generic[A]):
    """The records that have to be settled, on all servers.

    Args:
        say: sends updates, up to `CALL` of them: `Records.settle`, or what ends streams in another way.
        heard: called with each update that was answered, and the answer. An exception: it will never be accepted.
        known: gives the records of the server that holds a data stream; None if not known.
        learn: looks up which server holds which stream.
        moved: called when there was no answer, because streams may have moved.
        log: the log of the client.
    """

    def __init__(
        self,
        say: Callable[[Records, list[A], float], Awaitable[Sequence[object]]],
        heard: Callable[[A, object], None],
        known: Callable[[str], Records | None],
        learn: Callable[[], Awaitable[None]],
        moved: Callable[[], None],
        spawn: Spawn,
        log: Log,
    ) -> None:
        self._log = log
        self._send = say
        self._heard = heard
        self._known = known
        self._learn = learn
        self._moved = moved
        self._spawn = spawn
        self._items: OrderedDict[str, tuple[Item[A], Group]] = OrderedDict()
        self._queues: dict[Records | None, deque[str]] = {}
        self._paces: dict[Records, Pace] = {}
        self._lost = 0  # records that were dropped

    def __len__(self) -> int:
        return len(self._items)

    @property
    def shrunk(self) -> int:
        """How often a call got no answer and was made smaller."""
        return sum(pace.shrunk for pace in self._paces.values())

    async def settle(self, items: Iterable[Item[A]], wait: float) -> None:
        """Send these updates, and wait up to `wait` seconds. They go on in the background."""
        group = Group()
        for item in items:
            self._add(item, group)
        if group.left and wait > 0:
            await _quietly(group.over.wait(), wait)

    async def last(self, items: Iterable[Item[A]]) -> None:
        """Send all updates that are left, after the background tasks have ended. The caller limits the time."""
        group = Group()
        self._queues.clear()
        for item in items:
            self._items[item.ask.record] = (item, group)
        for record in self._items:
            self._queues.setdefault(self._place(record), deque()).append(record)
        await gather(*(self._work(records) for records in list(self._queues)), name="redis_stream_client settling")

    def leave(self, records: Records) -> None:
        """Stop using these records: their updates fail, and are sent to another server."""
        self._paces.pop(records, None)

    def _add(self, item: Item[A], group: Group) -> None:
        record = item.ask.record
        before = self._items.get(record)  # of this or an older lease: mostly the newer update counts
        if before is not None:
            if before[0].ask.outlasts(item.ask):
                return
            del self._items[record]
            _finish(before[1])
        elif len(self._items) >= MOST:
            self._lost += 1
            if self._lost & (self._lost - 1) == 0:  # 1, 2, 4, 8, …
                self._log.warning(
                    "%d records of ended leases were not settled: too many wait for an answer", self._lost
                )
            return
        self._items[record] = (item, group)
        group.left += 1
        if before is None:
            self._queue(record)

    def _place(self, record: str) -> Records | None:
        return self._known(self._items[record][0].stream)

    def _queue(self, record: str) -> None:
        records = self._place(record)
        queue = self._queues.get(records)
        if queue is None:
            try:
                work = self._work(records)
                self._spawn(work)
            except ClientClosed:  # `last` is called then
                return
            queue = self._queues[records] = deque()
        queue.append(record)

    async def _work(self, records: Records | None) -> None:
        """Send updates until none is left for this server; with None, for those whose server is not known."""
        queue = self._queues[records]
        pace = self._paces.setdefault(records, Pace(self._log)) if records is not None else Pace(self._log)
        backoff = Backoff(0.01, 1.0)
        while queue:
            size = pace.size if records is not None else len(queue)
            page = [queue.popleft() for _ in range(min(size, len(queue)))]
            page = [record for record in page if record in self._items]
            again = await (self._say(records, page, pace) if records is not None else self._find(page))
            if again:
                queue.extend(again)  # `_say` has removed those of other servers
                await asyncio.sleep(backoff.pause())
            else:
                backoff.reset()
        if self._queues.get(records) is queue:
            del self._queues[records]

    async def _say(self, records: Records, page: list[str], pace: "Pace") -> list[str]:
        """Send a page of updates. Returns those that must be sent here again."""
        entries = [self._items[record] for record in page]
        started = clock.now()
        results = await self._send(records, [item.ask for item, _ in entries], pace.patience)
        again: list[str] = []
        for record, entry, result in zip(page, entries, results, strict=True):
            if self._items.get(record) is not entry:
                again.append(record)  # there is a newer update
            elif isinstance(result, Unanswered):
                again.append(record)
            else:
                del self._items[record]
                self._heard(entry[0].ask, result)
                _finish(entry[1])
        unanswered = [result for result in results if isinstance(result, Unanswered)]
        # A temporary refusal is an answer; a smaller call would be refused, too.
        silent = any(result.maybe_executed for result in unanswered)
        pace.took(len(page), clock.now() - started, answered=not silent)
        if unanswered:
            self._log.debug("settling: %s", unanswered[0])
            self._moved()
            again = [record for record in again if record in self._items]
            elsewhere = [record for record in again if self._place(record) is not records]
            for record in elsewhere:
                self._queue(record)
            again = [record for record in again if record not in set(elsewhere)]
        return again

    async def _find(self, page: list[str]) -> list[str]:
        """Look up the servers of these records. Returns those that are not known yet."""
        with contextlib.suppress(Unanswered, GroupMissing, RedisRejected):  # which the log tells of already
            await self._learn()
        unknown = [record for record in page if self._place(record) is None]
        for record in page:
            if record not in unknown:
                self._queue(record)
        return unknown


class Pace:
    """How many records go into one call: few at first, fewer when it takes long, and even fewer without an
    answer."""

    def __init__(self, log: Log) -> None:
        self._window = Window("records in a settle", CALL, PATIENCE, log=log)
        self._size = FIRST
        self._fastest = float("inf")

    @property
    def size(self) -> int:
        """Records in the next call."""
        return min(self._size, self._window.size)

    @property
    def patience(self) -> float:
        """Timeout of the next call, in seconds."""
        return self._window.patience

    @property
    def shrunk(self) -> int:
        """How often a call got no answer."""
        return self._window.shrunk

    def took(self, size: int, seconds: float, *, answered: bool) -> None:
        """Learn from a call with `size` records that took `seconds`."""
        if not answered:
            self._window.unanswered(size)
            self._size = FIRST
            return
        self._window.answered(size=size)
        self._fastest = min(self._fastest, seconds)
        beyond = seconds - self._fastest
        if beyond > LATE:
            self._size = max(FIRST, min(size, self._size) // 2)
        elif beyond < SOON and size >= self._size:
            self._size = min(CALL, self._size * 2)


def _finish(group: Group) -> None:
    group.left -= 1
    if group.left <= 0:
        group.over.set()


async def _quietly(work: Awaitable[object], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        pass
