"""The backend, progress record and data stream of a lease in memory. They answer as a client and Redis do.

`testing` is built on them. One suite of contract tests runs on both, so that they stay alike.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.entry_iterator import IN_DOUBT
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.entry import START, Entry, order, require_id
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._model.logs import Log

if TYPE_CHECKING:
    from redis_stream_client._leases.observation import Observation

PEER = "redis-consumer-peer-00000000"
"""The peer that has taken over the stream, if one has."""

Value = str | bytes | int | float
Fields = Mapping[str, Value] | Mapping[bytes, Value]

SERVICE, CONSUMER = "testing", "redis-consumer-testing-00000000"
"""Whose the log lines are."""


@dataclass(slots=True)
class Record:
    """The progress record of the data stream."""

    checkpoint: str | None
    attempts: int
    trouble: Trouble | None = None


class Stream:
    """A data stream, to which entries are added, and which cursors follow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.last = START
        self.outages = 0
        self._cursors: list[Cursor] = []

    def add(self, entries: Iterable[Entry | Fields]) -> list[str]:
        """Add entries, all or none, and return their ids. Raises ``TypeError`` or ``ValueError``."""
        if isinstance(entries, Mapping | Entry):
            raise TypeError("entries must be an iterable of entries, not one entry")
        last, added = self.last, list[Entry]()
        for entry in entries:
            added.append(_entry(entry, self.name, last))
            last = added[-1].id
        self.entries += added
        self.last = last
        self.tell()
        return [entry.id for entry in added]

    def trim(self, upto: str) -> None:
        """Remove the entries up to this one. Nobody follows the stream any more."""
        self.entries = [entry for entry in self.entries if order(entry.id) > order(upto)]

    def follow(self, position: str) -> "Cursor":
        """A cursor after the entry `position`."""
        passed = sum(order(entry.id) <= order(position) for entry in self.entries)
        cursor = Cursor(self, passed)
        self._cursors.append(cursor)
        return cursor

    def leave(self, cursor: "Cursor") -> None:
        """Forget a cursor that nobody needs any more."""
        with contextlib.suppress(ValueError):
            self._cursors.remove(cursor)

    def tell(self) -> None:
        """Tell the cursors that there may be something to read."""
        for cursor in self._cursors:
            cursor.look()


class Cursor:
    """How far a data stream was read. It brings one entry at a time, so that an outage takes effect at once."""

    stale = False
    careful = False

    def __init__(self, stream: Stream, passed: int) -> None:
        self._stream = stream
        self._passed = passed
        self._waiter: asyncio.Future[None] | None = None

    @property
    def _there(self) -> list[Entry]:
        return [] if self._stream.outages else self._stream.entries[self._passed : self._passed + 1]

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._there)

    @property
    def caught_up(self) -> bool:
        """Whether everything was taken."""
        return not self._there

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order."""
        entries: list[Entry | Gap] = [*self._there]
        self._passed += len(entries)
        return entries

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Resolve `waiter` when there are entries to take."""
        self._waiter = waiter
        self.look()

    def look(self) -> None:
        """Wake the waiter, if there is something to take."""
        if self._waiter is not None and not self._waiter.done() and self._there:
            self._waiter.set_result(None)

    def close(self) -> None:
        """Stop reading."""
        self._stream.leave(self)


class Memory:
    """The backend of one lease, and its data plane."""

    log = Log(service=SERVICE, consumer=CONSUMER)

    def __init__(self, stream: str, record: Record | None) -> None:
        self.stream = Stream(stream)
        self.record = record
        self.begun = False
        self.overtaken = False  # a newer owner has begun, and the lease does not know it yet
        self.checkpoints: list[str] = []
        self.done = False
        self.deleted = False
        self.released = False
        self.dead: str | None = None
        self.details: LetterDetails | None = None
        self.draining = False
        self._drains: list[Callable[[], None]] = []
        self._doubts = 0
        self._work: set[asyncio.Task[None]] = set()
        self._falling_asleep: asyncio.Task[None] | None = None
        self.observation: Observation | None = None

    # What tests call.

    def overtake(self) -> None:
        """Let a newer owner begin."""
        if not self.overtaken:
            self.overtaken = True
            self.record = self.record or Record(None, 0)
            self.record.attempts += 1

    @contextlib.contextmanager
    def outage(self) -> Generator[None]:
        """Answer no request in this block."""
        self.stream.outages += 1
        try:
            yield
        finally:
            self.stream.outages -= 1
            self.stream.tell()

    @contextlib.contextmanager
    def doubt(self) -> Generator[None]:
        """Let the consumer lock be in doubt in this block."""
        self._doubts += 1
        try:
            yield
        finally:
            self._doubts -= 1

    def drain(self) -> None:
        """Drain the handler that runs now or later."""
        if not self.draining:
            self.draining = True
            for drain in self._drains:
                drain()

    @contextlib.contextmanager
    def drained_by(self, drain: Callable[[], None]) -> Generator[None]:
        """Call `drain` for a drain in this block."""
        self._drains.append(drain)
        try:
            if self.draining:
                drain()
            yield
        finally:
            self._drains.remove(drain)

    def end(self, lease: LeaseState, reason: LossReason) -> None:
        """End the lease, and tell those who wait for it."""
        if lease.end(reason):
            lease.tell_of_the_end()
        lease.face = None

    # The data plane.

    async def begin(
        self,
        lease: LeaseState,
        *,
        look_only: bool = False,
        most_deaths: int | None = None,
        trial: bool = False,
    ) -> None:
        """See `DataPlane.begin`."""
        begin = self._begin(lease, look_only=look_only, most_deaths=most_deaths)
        await self._wait_for(self._spawn(begin), lease)

    async def _begin(self, lease: LeaseState, *, look_only: bool = False, most_deaths: int | None = None) -> None:
        await self._answer(lease, "begin")
        if self.record is None:
            if look_only:
                return
            self.record = Record(None, lease.unrecorded)
        if most_deaths is not None and not self.begun and self.record.attempts > most_deaths:
            lease.suspected(self.record.attempts, self.record.trouble or Trouble.found(0, 0.0, ""))
            return
        if not self.begun:
            self.begun = True
            self.record.attempts += 1
            if self.record.attempts > 1 and self.record.trouble is None:
                self.record.trouble = Trouble.found(0, 0.0, "")
        record = self.record
        await asyncio.sleep(0)
        if lease.lost is not None:
            raise lease.not_owner()
        trouble = record.trouble
        lease.begin(
            record.checkpoint,
            record.attempts,
            trouble=dataclasses.replace(trouble) if trouble is not None else None,
        )

    async def checkpoint(self, lease: LeaseState, id: str) -> None:
        """Store a checkpoint. If the caller is cancelled, it goes on."""
        await self._wait_for(self._spawn(self._checkpoint(lease, id, lease.handed_over)), lease)

    async def _checkpoint(self, lease: LeaseState, id: str, handed_over: int) -> None:
        if not lease.begun:
            await self._begin(lease)
        await self._answer(lease, "checkpoint")
        record = self.record
        assert record is not None
        advanced = record.checkpoint is None or order(id) > order(record.checkpoint)
        if advanced:
            record.checkpoint, record.attempts, record.trouble = id, 0, None
        self.checkpoints.append(id)
        await asyncio.sleep(0)
        lease.checkpointed(id, advanced=advanced, handed_over=handed_over)
        if advanced and self.observation is not None:
            self.observation.checkpointed(lease, id, handed_over)

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the operations whose callers were cancelled."""
        while self._work:
            await asyncio.wait(self._work)

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        """Do not count the attempts and earlier failures of this owner."""
        self._settle(over=True)
        for lease in leases:
            lease.acquit()

    async def fail(self, lease: LeaseState, error: str) -> None:
        """Store in the record that the handler has failed."""
        await self._wait_for(self._spawn(self._fail(lease, error)), lease)

    async def _fail(self, lease: LeaseState, error: str) -> None:
        if not lease.begun:
            await self._begin(lease)
        await self._answer(lease, "fail")
        record = self.record
        assert record is not None
        record.attempts = max(0, record.attempts - 1)
        record.trouble = record.trouble or Trouble.found(0, 0.0, "")
        record.trouble.failures += 1
        record.trouble.error = error

    def follow(self, lease: LeaseState) -> Cursor:
        """The entries of the stream after the checkpoint."""
        return self.stream.follow(lease.position or START)

    # The backend.

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held."""
        return not self._doubts

    @property
    def closed(self) -> bool:
        """Never: there is no client."""
        return False

    def require_here(self) -> None:
        """Never raises: it works in every process and on every event loop."""

    @property
    def plane(self) -> "Memory":
        """The data plane of this backend."""
        return self

    async def finish(self, lease: LeaseState) -> None:
        """Acknowledge and delete the announcement."""
        await self._wait_for(self._spawn(self._finish(lease)))

    async def _finish(self, lease: LeaseState) -> None:
        await self._answer(lease, "done")
        self._settle(over=True)
        self.done = True
        self.end(lease, "done")
        self._retain(lease)

    async def put_to_sleep(self, lease: LeaseState) -> bool:
        """Acknowledge and delete the announcement, unless there is something to read."""
        if lease.lost is not None:
            raise lease.not_owner()
        if self._falling_asleep is None or self._falling_asleep.done():
            self._falling_asleep = self._spawn(self._put_to_sleep(lease))
        await self._wait_for(self._falling_asleep, lease)
        return self.done

    async def _put_to_sleep(self, lease: LeaseState) -> None:
        if not lease.begun:
            await self._begin(lease)
        await self._answer(lease, "done_if_idle")
        record = self.record
        assert record is not None
        checkpoint = order(record.checkpoint or START)
        if lease.processed and all(order(entry.id) <= checkpoint for entry in self.stream.entries):
            await self._finish(lease)

    def _retain(self, lease: LeaseState) -> None:
        """Do to the stream and its record what `run_handler` was told."""
        if lease.on_done == "trim" and lease.position is not None:
            self.stream.trim(lease.position)
        if lease.on_done == "delete":
            self.stream.trim(lease.reached)
            if not self.stream.entries:
                self.deleted = True
                self.record = None
            elif self.record is not None and lease.reached != START:
                self.record.checkpoint = lease.reached

    async def bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        """Move the announcement to the dead letters."""
        await self._wait_for(self._spawn(self._bury(lease, reason, details)))

    async def _bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        await self._answer(lease, "bury")
        self._settle(over=True)
        self.dead, self.details = reason, details
        self.end(lease, "dead")

    async def release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> None:
        """Hand the stream to the peers."""
        if lease.lost is not None:
            raise lease.not_owner()
        await self._wait_for(self.start_release(lease, pause=pause, graceful=graceful, untried=untried))

    def start_release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> "asyncio.Future[None]":
        """Start a `release`. The lease ends at once."""
        self.end(lease, "released")
        return self._spawn(self._release(lease, graceful=graceful, untried=untried))

    async def _release(self, lease: LeaseState, graceful: bool, untried: bool) -> None:
        await self._certain(lambda: True)
        if self.stream.outages:
            raise lease.no_answer("release")
        if self.overtaken:  # nothing is left to do
            return
        if graceful:
            self._settle(untried=untried)
        self.released = True

    def skipped(self, entries: int) -> None:
        """Nothing to count: no entry is ever trimmed here."""

    def keep_place(self, by: int) -> None:
        """Nothing to count: there is only one handler."""

    # What both have in common.

    async def _answer(self, lease: LeaseState, what: str) -> None:
        """Wait until Redis would answer. Raises what the operation raises."""
        await self._certain(lambda: lease.lost is None)
        await asyncio.sleep(0)
        if lease.lost is not None:
            raise lease.not_owner()
        if self.stream.outages:
            raise lease.no_answer(what)
        if self.overtaken:
            self.end(lease, "claimed")
            raise lease.not_owner(owner=PEER)

    async def _certain(self, wanted: Callable[[], bool]) -> None:
        """Wait while the lock is in doubt, as long as `wanted` holds."""
        while True:
            if self.held or not wanted():
                return
            await asyncio.sleep(IN_DOUBT)

    def _settle(self, *, over: bool = False, untried: bool = False) -> None:
        """This owner ends cleanly, so its attempt does not count. `over`: earlier failures do not count either.
        `untried`: the deaths before it still do."""
        record = self.record
        if self.begun and record is not None:
            record.attempts = max(0, record.attempts - 1) if untried else 0
            if record.attempts:
                return
            if over or (record.trouble is not None and not record.trouble.failures):
                record.trouble = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run an operation in a task, so that it goes on if its caller is cancelled."""
        task = start_task(work, "redis_stream_client operation")
        self._work.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: "asyncio.Task[None]") -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, even if its caller is gone

    async def _wait_for(self, task: "asyncio.Future[None]", lease: LeaseState | None = None) -> None:
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            if not (task.done() and lease is not None and lease.postpone_cancellation()):
                raise
        task.result()


class MemoryLease(Lease):
    """A lease in memory. It is like any other, but the test can reach its state and its backend."""

    __slots__ = ("memory",)

    def __init__(
        self, lbs_id: str, announcement: Announcement, deliveries: int, unrecorded: int, memory: Memory
    ) -> None:
        super().__init__(LeaseState(lbs_id, announcement, deliveries, unrecorded=unrecorded), memory)
        self.memory = memory
        self.state.face = self
        record = memory.record
        if record is not None and record.trouble is not None:  # as `run()` would learn at the beginning
            self.state.trouble = dataclasses.replace(record.trouble)

    @property
    def state(self) -> LeaseState:
        """The state of the lease."""
        return self._state


def _entry(entry: Entry | Fields, stream: str, last: str) -> Entry:
    """The entry that Redis would add to the stream after the one with the id `last`."""
    if isinstance(entry, Entry):
        id = require_id(entry.id)
        fields: Any = entry.fields
        if order(id) <= order(last):
            raise ValueError(f"ids grow: {id} must be greater than {last}")
    elif isinstance(entry, Mapping):
        id = f"{order(last)[0] + 1}-0"
        fields = entry
    else:
        raise TypeError(f"an entry must be an Entry or a mapping of its fields, not {type(entry).__name__}")
    if not fields:
        raise ValueError("an entry must have a field")
    return Entry(id, {_word(name): _word(value) for name, value in fields.items()}, stream)


def _word(value: object) -> bytes:
    """The name or value of a field, as redis-py sends it."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).encode()
    raise TypeError(f"fields must be str, bytes, int or float, as redis-py takes them, not {type(value).__name__}")
