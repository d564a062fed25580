"""Owners that end cleanly: what is still to be said in their records, and is said until Redis has answered.

Nobody's lease waits for it for long, and no connection is cut for it: it has more patience than what else uses the
same one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.logs import log
from redis_stream_client._protocol.progress_records import CALL, Records, Settle
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.window import Window

PATIENCE = 10.0
"""Seconds for one call. What else is asked on its connection is given up earlier, should that be broken."""

FIRST = 16
"""Records in the first call: with each answer that comes soon it doubles, so that a slow line is not blocked."""

SOON, LATE = 0.1, 0.25
"""Seconds beyond what the fastest call took: calls grow while they take less than the first, and shrink when they
take more than the second. A round trip that is long by itself says nothing about their size."""

MOST = 100_000
"""Records that wait at the most, with about 500 bytes each; what comes on top of them is not told."""


class Item(NamedTuple):
    """What is to be said in the record of one data stream."""

    stream: str
    ask: Settle


class Group:
    """Items that somebody waits for together."""

    def __init__(self) -> None:
        self.left = 0
        self.over = asyncio.Event()


class SettleQueue:
    """The records that are to be settled, on all servers.

    Args:
        known: the records of the server that holds a data stream, or None if it is not known now.
        learn: look up where data streams are.
        moved: an answer did not come: they may be elsewhere.
    """

    def __init__(
        self,
        known: Callable[[str], Records | None],
        learn: Callable[[], Awaitable[None]],
        moved: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._known = known
        self._learn = learn
        self._moved = moved
        self._spawn = spawn
        self._items: OrderedDict[str, tuple[Item, Group]] = OrderedDict()
        self._queues: dict[Records | None, deque[str]] = {}
        self._paces: dict[Records, Pace] = {}
        self._lost = 0  # that there was no room for

    def __len__(self) -> int:
        return len(self._items)

    @property
    def shrunk(self) -> int:
        """How often a call went unanswered, and was made smaller."""
        return sum(pace.shrunk for pace in self._paces.values())

    async def settle(self, items: Iterable[Item], wait: float) -> None:
        """Have it said, and wait for that up to `wait` seconds; it goes on in the background."""
        group = Group()
        for item in items:
            self._add(item, group)
        if group.left and wait > 0:
            await _quietly(group.over.wait(), wait)

    async def last(self, items: Iterable[Item]) -> None:
        """Say all that is left, when nothing goes on in the background any more; the caller bounds the time."""
        group = Group()
        self._queues.clear()
        for item in items:
            self._items[item.ask.record] = (item, group)
        for record in self._items:
            self._queues.setdefault(self._place(record), deque()).append(record)
        await gather(*(self._work(records) for records in list(self._queues)), name="redis_stream_client settling")

    def leave(self, records: Records) -> None:
        """These are used no more: what is still to be said to them fails, and finds another way."""
        self._paces.pop(records, None)

    def _add(self, item: Item, group: Group) -> None:
        record = item.ask.record
        before = self._items.pop(record, None)  # of an older lease, or of the same one: the newer word counts
        if before is not None:
            _finish(before[1])
        elif len(self._items) >= MOST:
            self._lost += 1
            if self._lost & (self._lost - 1) == 0:  # 1, 2, 4, 8, …
                log.warning("%d records of ended leases were not settled: too many wait for an answer", self._lost)
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
        """Until nothing is left for this server; with None, for those whose server is not known."""
        queue = self._queues[records]
        pace = self._paces.setdefault(records, Pace()) if records is not None else Pace()
        backoff = Backoff(0.01, 1.0)
        while queue:
            size = pace.size if records is not None else len(queue)
            page = [queue.popleft() for _ in range(min(size, len(queue)))]
            page = [record for record in page if record in self._items]
            again = await (self._say(records, page, pace) if records is not None else self._find(page))
            if again:
                queue.extend(again)  # `_say` has taken out what is elsewhere
                await asyncio.sleep(backoff.pause())
            else:
                backoff.reset()
        if self._queues.get(records) is queue:
            del self._queues[records]

    async def _say(self, records: Records, page: list[str], pace: "Pace") -> list[str]:
        """Returns what is to be said here again."""
        entries = [self._items[record] for record in page]
        started = clock.now()
        results = await records.settle([item.ask for item, _ in entries], pace.patience)
        again: list[str] = []
        for record, entry, result in zip(page, entries, results, strict=True):
            if self._items.get(record) is not entry:
                again.append(record)  # there was a newer word meanwhile
            elif isinstance(result, Unanswered):
                again.append(record)
            else:
                if isinstance(result, Exception):  # it will never be accepted
                    log.debug("%s is not settled: %s", record, result)
                del self._items[record]
                _finish(entry[1])
        unanswered = [result for result in results if isinstance(result, Unanswered)]
        # What is refused for now was answered: less would be refused, too.
        silent = any(result.maybe_executed for result in unanswered)
        pace.took(len(page), clock.now() - started, answered=not silent)
        if unanswered:
            log.debug("settling: %s", unanswered[0])
            self._moved()
            again = [record for record in again if record in self._items]
            elsewhere = [record for record in again if self._place(record) is not records]
            for record in elsewhere:
                self._queue(record)
            again = [record for record in again if record not in set(elsewhere)]
        return again

    async def _find(self, page: list[str]) -> list[str]:
        """Look up where these are. Returns what is not known yet."""
        try:
            await self._learn()
        except (Unanswered, GroupMissing, RedisRejected) as error:
            log.debug("where are the records? %s", error)
        unknown = [record for record in page if self._place(record) is None]
        for record in page:
            if record not in unknown:
                self._queue(record)
        return unknown


class Pace:
    """How much is said at once: little at first, less when it takes long, and still less without an answer."""

    def __init__(self) -> None:
        self._window = Window("records in a settle", CALL, PATIENCE)
        self._size = FIRST
        self._fastest = float("inf")

    @property
    def size(self) -> int:
        """Records in the next call."""
        return min(self._size, self._window.size)

    @property
    def patience(self) -> float:
        """Seconds to wait for it."""
        return self._window.patience

    @property
    def shrunk(self) -> int:
        """How often a call went unanswered."""
        return self._window.shrunk

    def took(self, size: int, seconds: float, *, answered: bool) -> None:
        """A call with so many records has ended."""
        if not answered:
            self._window.unanswered(size)
            self._size = FIRST
            return
        self._window.answered()
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
