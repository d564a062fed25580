"""Getting, ending and losing leases: what the operations mean for the table, also when a reply is lost.

Every method that changes ownership changes it in one synchronous step, next to the reply that says so.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.batching import Batch
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._leases.backend import DataPlane
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.events import ExpiredStream
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.lock_state import LockState, State
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import announcement
from redis_stream_client._model.announcement import Malformed
from redis_stream_client._model.errors import ClientClosed, NotOwner, RedisUnavailable
from redis_stream_client._model.logs import log
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.operations import Operations
from redis_stream_client._protocol.replies import Delivered
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams.record_store import PROGRESS_TTL, RecordStore

T = TypeVar("T")


class Lapsed(Exception):
    """The lock lapsed, or would have by now, before Redis answered. It never leaves the package."""

    def __init__(self, maybe_executed: bool) -> None:
        super().__init__("the consumer lock lapsed before Redis answered")
        self.maybe_executed = maybe_executed


class Ownership:
    """The leases of one client: the backend that every one of them refers to."""

    plane: DataPlane

    def __init__(
        self,
        *,
        options: Options,
        operations: Operations,
        identity: ServerIdentity,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        audit_lock: SharedLock,
        audits: AuditSchedule,
        capacity: Capacity,
        losses: Losses,
        home: Home,
        tasks: OwnedTasks[ClientClosed],
        counters: Counters,
        record_store: RecordStore,
    ) -> None:
        self._consumer = options.consumer
        self._lock_ttl = options.lock_ttl
        self._interval = options.heartbeat_interval
        self._patience = options.patience
        self._longest_pause = options.longest_pause
        self._operations = operations
        self._identity = identity
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._audit_lock = audit_lock
        self._audits = audits
        self._capacity = capacity
        self._losses = losses
        self._home = home
        self._tasks = tasks
        self._counters = counters
        self._record_store = record_store
        self._doing = Batch[LeaseState, None](self._send_done, tasks.spawn, tasks.gone, PAGE)
        self.releasing: set[asyncio.Future[None]] = set()
        """The releases under way."""
        self._releasing = Batch[tuple[LeaseState, bool], None](self._send_release, tasks.spawn, tasks.gone, PAGE)

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        return self._lock_state.held

    @property
    def closed(self) -> bool:
        """Whether the client has left, or is about to: no lease is ours any more."""
        return self._tasks.ended

    def require_here(self) -> None:
        """See `LeaseBackend.require_here`."""
        self._home.require_here()

    # Arriving.

    async def receive(self, entries: Iterable[Delivered], *, unrecorded: int = 0) -> int:
        """Entries that are ours since they were delivered, adopted or claimed from a dead owner, whose attempt
        counts as `unrecorded` if it left no record. Returns how many leases they gave."""
        leases = 0
        malformed: list[tuple[Delivered, str]] = []
        for entry in await self._all_lifted(list(entries)):
            try:
                announced = announcement.decode(entry.fields)
            except Malformed as error:
                malformed.append((entry, str(error)))
                continue
            lease = LeaseState(
                entry.lbs_id,
                announced,
                entry.deliveries,
                unrecorded=unrecorded,
                consumer=self._consumer,
            )
            lease.face = Lease(lease, self)
            self._table.add(lease)
            self._event_queue.added(lease)
            leases += 1
        for some in in_chunks(malformed):  # side by side: one after the other they would hold the reader up
            await gather(*(self.bury_malformed(*one) for one in some), name="redis_stream_client burying")
        return leases

    async def _all_lifted(self, entries: list[Delivered]) -> list[Delivered]:
        """As `lifted`, those that are ours still, side by side: all of them may have been counted anew."""
        handed_out = self._table.handed_out
        found: dict[str, Delivered | None] = {}
        for some in in_chunks([entry for entry in entries if entry.deliveries <= handed_out(entry.lbs_id)]):
            lifted = await gather(*map(self.lifted, some), name="redis_stream_client lifting")
            found.update(zip((entry.lbs_id for entry in some), lifted, strict=True))
        return [entry for before in entries if (entry := found.get(before.lbs_id, before)) is not None]

    async def lifted(self, entry: Delivered) -> Delivered | None:
        """An entry that is ours, under a greater fence than any lease of it that was handed out here.

        In a fail-over Redis may have forgotten them, and counts anew. None if it is ours no more, or if that is
        not known: the next audit finds it then.
        """
        epoch, handed_out = self._lock_state.epoch, self._table.handed_out(entry.lbs_id)
        if entry.deliveries > handed_out:
            return entry
        try:
            outcome = await self._operations.deliveries.lift(
                entry.lbs_id, entry.deliveries, handed_out + 1, self._patience
            )
        except (Unanswered, GroupMissing) as error:
            log.debug("could not lift %s yet: %s", entry.lbs_id, error)
            outcome = ""
        if outcome == "lifted" and self._lock_state.believed(epoch):
            return replace(entry, deliveries=handed_out + 1)
        self._audits.request()
        return None

    async def put_back(self, entries: Iterable[Delivered]) -> None:
        """Entries that were delivered when their room was taken meanwhile: a peer, or we later, take them."""
        given_back = [(entry.lbs_id, entry.deliveries) for entry in entries]
        try:
            await self._operations.deliveries.release(given_back, self._patience)
        except Unanswered:
            self._audits.request()
            raise

    async def adopt(self, unknown: Sequence[tuple[str, int]], epoch: int) -> None:
        """What is pending for us, but has no lease, becomes one; what there is no room for is released."""
        room = min(len(unknown), self._capacity.free)
        start = 0
        while start < room:
            page = unknown[start : min(room, start + PAGE)]
            adopted = await self._operations.deliveries.adopt(page, self._patience)
            if adopted is None:
                self._lock_state.lapse("missing")
            if adopted is None or not self._lock_state.believed(epoch):
                return
            added = await self.receive(adopted.entries)
            self._counters.streams_added += added
            start += len(page) - adopted.left
        for start in range(room, len(unknown), PAGE):
            await self._operations.deliveries.release(unknown[start : start + PAGE], self._patience)

    async def bury_malformed(self, entry: Delivered, reason: str) -> None:
        """Move a malformed announcement to the dead letters. If that fails, it stays pending for us, and
        the next audit tries again."""
        try:
            outcome = await self._operations.deliveries.bury(
                entry.lbs_id, entry.deliveries, reason, self._patience
            )
        except (Unanswered, GroupMissing, KeyRejected) as error:
            log.warning("could not bury %s yet: %s", entry.lbs_id, error, extra={"lbs_id": entry.lbs_id})
            return
        if outcome == "buried":
            self._counters.dead_letters += 1
            log.error(
                "malformed announcement %s moved to the dead letters: %s",
                entry.lbs_id,
                reason,
                extra={"lbs_id": entry.lbs_id, "consumer": self._consumer},
            )

    # Ending.

    def finish(self, lease: LeaseState) -> "asyncio.Future[None]":
        """Acknowledge and delete. See `Lease.done`."""
        self._lock_state.check()
        if not self._table.holds(lease):
            raise lease.not_owner(gone=lease.done_sent is not None)
        return self._doing.add(lease)

    async def answered(self, lease: LeaseState) -> None:
        """Wait for what callers who are gone have said about a lease, and is under way."""
        await self.plane.answered(lease)
        if self._doing.has(lease):
            with contextlib.suppress(NotOwner, RedisUnavailable, ClientClosed):
                await self._doing.add(lease)

    async def _send_done(self, leases: list[LeaseState]) -> list[Exception | None]:
        await self._record_store.settle(
            leases, PROGRESS_TTL
        )  # before: a crash between must leave no record for ever
        async with self._audit_lock.passing():
            try:
                results, repeated = await self._persist_done(leases)
            except Lapsed:
                return [self._done_lapsed(lease) for lease in leases]
            except GroupMissing:
                self._lock_state.lapse("missing")
                results, repeated = ["gone"] * len(leases), [False] * len(leases)
            doubtful = any(result == "gone" and again for result, again in zip(results, repeated, strict=True))
            if doubtful and not await self._lock_was_held():
                repeated = [False] * len(leases)
            failures = [
                self._after_done(lease, result, again)
                for lease, result, again in zip(leases, results, repeated, strict=True)
            ]
            self._capacity.changed.notify()
            return failures

    async def _persist_done(self, leases: list[LeaseState]) -> tuple[list[str], list[bool]]:
        """Send until there is an answer, remembering for each lease whether an earlier call may have been
        executed, and in which epoch of the lock and of the server's history that was."""
        repeated: list[bool] = []

        async def attempt(timeout: float) -> list[str]:
            first = [lease for lease in leases if lease.done_sent is None]
            repeated[:] = [lease.done_sent is not None for lease in leases]
            mark = (self._lock_state.epoch, self._identity.history)
            for lease in first:
                lease.done_sent = mark
            try:
                return await self._operations.deliveries.done(
                    [(le.lbs_id, le.deliveries) for le in leases], timeout
                )
            except Unanswered as error:
                if not error.maybe_executed:
                    for lease in first:
                        lease.done_sent = None
                raise

        results = await self.persist(attempt, lambda: any(map(self._table.holds, leases)))
        return results, repeated

    async def _lock_was_held(self) -> bool:
        """Without a gap until now: the next beat only would miss a lock that was evicted, and a peer may have been
        faster. One that is there has been there all the time, since only a resume brings it back."""
        try:
            there = await self._operations.lock.beat(self._interval)
        except Unanswered:
            return False
        if not there:
            self._lock_state.lapse("missing")
        return there

    def _after_done(self, lease: LeaseState, result: str, again: bool) -> Exception | None:
        if lease.lost == "done":  # by a call at the same time
            return None
        mine_before = (
            result == "gone"
            and again
            and lease.done_sent is not None
            and lease.done_sent[1] is not None
            and lease.done_sent[1] == self._identity.history == self._table.history
            and self._lock_state.believed(lease.done_sent[0])
        )
        if result == "done" or mine_before:
            self._table.end(lease, "done")
            self._counters.streams_done += 1
            return None
        self._losses.lose([lease], "gone" if result == "gone" else "claimed")
        return lease.not_owner(gone=result == "gone", owner=result if result != "gone" else None)

    def _done_lapsed(self, lease: LeaseState) -> Exception | None:
        if lease.lost == "done":
            return None
        if lease.done_sent is not None or self._table.holds(lease):
            return lease.no_answer("done")
        return lease.not_owner()

    async def release(self, lease: LeaseState, *, failed_for: float | None = None) -> None:
        """Hand to the peers. See `Lease.release`."""
        self._lock_state.check()
        if not self._table.holds(lease):
            raise lease.not_owner()
        outcome = self.start_release(lease, failed_for=failed_for)
        await asyncio.wait((outcome,))  # a caller that is cancelled only stops waiting
        outcome.result()

    def start_release(self, lease: LeaseState, *, failed_for: float | None = None) -> "asyncio.Future[None]":
        """Not ours from this moment on. This client is offered the stream too, but later than its peers."""
        self._table.part(lease)
        self._capacity.changed.notify()
        orphan = ExpiredStream(lease.stream, lease.lbs_id, lease.info, None, lease.deliveries)
        pause = self._lock_ttl if failed_for is None else failed_for
        self._event_queue.hold_back(orphan, clock.now() + pause)
        outcome = self._releasing.add((lease, failed_for is None))
        self.releasing.add(outcome)
        outcome.add_done_callback(self._released)
        return outcome

    def _released(self, outcome: "asyncio.Future[None]") -> None:
        self.releasing.discard(outcome)
        if not outcome.cancelled():
            outcome.exception()  # counts as seen: not everybody waits for it

    async def _send_release(self, items: list[tuple[LeaseState, bool]]) -> list[Exception | None]:
        leases = [lease for lease, _ in items]
        try:
            await self._record_store.settle([lease for lease, graceful in items if graceful], 0)
            return await self._release_behind_gate(leases)
        finally:
            for lease in leases:
                self._table.parted(lease)

    async def _release_behind_gate(self, leases: list[LeaseState]) -> list[Exception | None]:
        entries = [(lease.lbs_id, lease.deliveries) for lease in leases]
        async with self._audit_lock.passing():
            try:
                results = await self.persist(
                    lambda timeout: self._operations.deliveries.release(entries, timeout), lambda: True
                )
            except Lapsed:
                return [lease.no_answer("release") for lease in leases]
            except GroupMissing:
                self._lock_state.lapse("missing")
                results = ["gone"] * len(leases)
        failures: list[Exception | None] = []
        for lease, result in zip(leases, results, strict=True):
            if result == "released":
                self._counters.streams_released += 1
                failures.append(None)
            else:
                failures.append(lease.not_owner(owner=None if result == "gone" else result))
        return failures

    async def bury(self, lease: LeaseState, reason: str) -> None:
        """Move a lease's announcement to the dead letters; put back, it starts anew, after its checkpoint.

        Raises:
            NotOwner: the lease is no longer ours; nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; the outcome is unknown.
            KeyRejected: the dead letters cannot be written; nothing was changed.
        """
        task = self._tasks.spawn(self._bury(lease, reason))
        await asyncio.wait((task,))  # a caller that is cancelled only stops waiting
        if task.cancelled():
            raise self._tasks.gone()
        if (refused := task.result()) is not None:
            raise refused

    async def _bury(self, lease: LeaseState, reason: str) -> KeyRejected | None:
        async with self._audit_lock.passing():
            try:
                outcome = await self.persist(
                    lambda timeout: self._operations.deliveries.bury(
                        lease.lbs_id, lease.deliveries, reason, timeout
                    ),
                    lambda: self._table.holds(lease),
                )
            except Lapsed:
                raise lapsed(lease, "bury") from None
            except KeyRejected as error:  # no reason to close: all others go on
                return error
            except GroupMissing:
                self._lock_state.lapse("missing")
                outcome = "gone"
            if outcome != "buried":
                self._losses.lose_to([(lease, "" if outcome == "gone" else outcome)])
                raise lease.not_owner(gone=outcome == "gone")
            self._table.end(lease, "dead")
        await self._record_store.settle([lease], PROGRESS_TTL)  # after: until then its attempts count
        self._counters.dead_letters += 1
        self._capacity.changed.notify()
        return None

    def skipped(self, entries: int) -> None:
        """So many entries of a data stream are missing."""
        self._counters.gaps += 1
        self._counters.entries_skipped += entries

    def keep_place(self, by: int) -> None:
        """One handler more or less goes on without its lease."""
        self._capacity.keep_place(by)

    # Persistence.

    async def persist(
        self,
        attempt: Callable[[float], Awaitable[T]],
        wanted: Callable[[], bool],
        *,
        changes_ownership: bool = True,
    ) -> T:
        """Repeat until Redis answers, for one lifetime of the lock, as long as the lock is held, or comes back
        and `wanted` still holds. Raises `Lapsed` when that is over."""
        give_up = clock.now() + self._lock_ttl
        backoff = Backoff(FIRST_PAUSE, self._longest_pause)
        maybe_executed = False
        while True:
            self._lock_state.check()
            if self._lock_state.state is State.SUSPECT:
                await asyncio.sleep(self._interval / 20)
                continue
            if self._lock_state.state is not State.HELD or not wanted() or clock.now() >= give_up:
                raise Lapsed(maybe_executed)
            try:
                return await attempt(self._patience)
            except Unanswered as error:
                if error.maybe_executed:
                    maybe_executed = True
                    if changes_ownership:
                        self._audits.request()
                await asyncio.sleep(backoff.pause())


def lapsed(lease: LeaseState, operation: str) -> NotOwner | RedisUnavailable:
    """The error of an operation on a lease that the end of the lock overtook."""
    return lease.no_answer(operation) if lease.lost is None else lease.not_owner()


def about(what: ExpiredStream) -> dict[str, str]:
    """What every error about a stream carries."""
    return {"stream": what.stream, "lbs_id": what.lbs_id}
