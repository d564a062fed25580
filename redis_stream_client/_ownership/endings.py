"""Endings: finish, release and bury leases, even if a reply is lost.

Each method changes the ownership in one synchronous step, as soon as it has the reply.
"""

import asyncio
import contextlib
from typing import NamedTuple

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.batching import Batch
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.events import ExpiredStream
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import ClientClosed, NotOwner, RedisUnavailable
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._model.observer import EndedBy
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._ownership.retry import Lapsed, Retries, lapsed
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.lock import Lock
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams.record_store import RecordStore
from redis_stream_client._streams.retention import Retention


class Release(NamedTuple):
    """What is released, and how: see `LeaseBackend.release`."""

    lease: LeaseState
    graceful: bool
    untried: bool


class Endings:
    """Ends leases for their holders. Leases that end at about the same time share a call.

    Attributes:
        releasing: the releases under way.
    """

    def __init__(
        self,
        *,
        options: Options,
        lock: Lock,
        deliveries: Deliveries,
        identity: ServerIdentity,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        audit_lock: SharedLock,
        capacity: Capacity,
        losses: Losses,
        retries: Retries,
        tasks: OwnedTasks[ClientClosed],
        counters: Counters,
        record_store: RecordStore,
        retention: Retention,
    ) -> None:
        self._pace = options.pace
        self._beat_patience = options.beat_patience
        self._lock = lock
        self._deliveries = deliveries
        self._identity = identity
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._audit_lock = audit_lock
        self._capacity = capacity
        self._losses = losses
        self._retries = retries
        self._tasks = tasks
        self._counters = counters
        self._record_store = record_store
        self._retention = retention
        self._doing = Batch[LeaseState, None](self._send_done, tasks.spawn, tasks.gone, PAGE)
        self._releasing = Batch[Release, None](self._send_release, tasks.spawn, tasks.gone, PAGE)
        self._asleep: set[LeaseState] = set()  # those of `_doing` that were put to sleep
        self.releasing: set[asyncio.Future[None]] = set()

    # Done.

    def finish(self, lease: LeaseState, *, asleep: bool = False) -> "asyncio.Future[None]":
        """Acknowledge and delete. See `Lease.done`. `asleep`: the stream was put to sleep."""
        self._lock_state.check()
        if not self._table.holds(lease):
            raise lease.not_owner(gone=lease.done_sent is not None)
        if asleep:
            self._asleep.add(lease)
        return self._doing.add(lease)

    async def answered(self, lease: LeaseState) -> None:
        """Wait for a `done` that is under way, even if its caller is gone."""
        if self._doing.has(lease):
            with contextlib.suppress(NotOwner, RedisUnavailable, ClientClosed):
                await self._doing.add(lease)

    async def _send_done(self, leases: list[LeaseState]) -> list[Exception | None]:
        asleep = self._asleep.intersection(leases)
        self._asleep -= asleep
        # First, so that a crash between the two does not leave a record for ever.
        await self._record_store.settle(leases, self._retention.settled_for)
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
                self._after_done(lease, result, again, "slept" if lease in asleep else "done")
                for lease, result, again in zip(leases, results, repeated, strict=True)
            ]
            self._capacity.freed()
            done = [lease for lease in leases if lease.lost == "done"]
            self._counters.streams_slept += len(asleep.intersection(done))
            await self._retention.done(done, asleep)
            return failures

    async def _persist_done(self, leases: list[LeaseState]) -> tuple[list[str], list[bool]]:
        """Send until Redis answers. For each lease, remember whether an earlier call may have been executed, and
        in which epoch of the lock and server history."""
        repeated: list[bool] = []

        async def attempt(timeout: float) -> list[str]:
            first = [lease for lease in leases if lease.done_sent is None]
            repeated[:] = [lease.done_sent is not None for lease in leases]
            mark = (self._lock_state.epoch, self._identity.history)
            for lease in first:
                lease.done_sent = mark
            try:
                entries = [(lease.lbs_id, lease.deliveries, lease.stream) for lease in leases]
                return await self._deliveries.done(entries, timeout)
            except Unanswered as error:
                if not error.maybe_executed:
                    for lease in first:
                        lease.done_sent = None
                raise

        results = await self._retries.until_answered(attempt, lambda: any(map(self._table.holds, leases)))
        return results, repeated

    async def _lock_was_held(self) -> bool:
        """Whether our lock has existed without a gap until now.

        A lock that exists has existed all the time, because only a resume puts it back. We ask Redis now, because
        the lock may have been evicted, and a peer may be faster than our next beat.
        """
        try:
            there = await self._lock.beat(self._beat_patience)
        except Unanswered:
            return False
        if not there:
            self._lock_state.lapse("missing")
        return there

    def _after_done(self, lease: LeaseState, result: str, again: bool, how: EndedBy) -> Exception | None:
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
            self._table.end(lease, how)
            self._counters.streams_done += 1
            return None
        self._losses.lose_to([(lease, "" if result == "gone" else result)])
        return lease.not_owner(gone=result == "gone", owner=result if result != "gone" else None)

    def _done_lapsed(self, lease: LeaseState) -> Exception | None:
        if lease.lost == "done":
            return None
        if lease.done_sent is not None or self._table.holds(lease):
            return lease.no_answer("done")
        return lease.not_owner()

    # Released.

    async def release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> None:
        """Hand to the peers. See `Lease.release`."""
        self._lock_state.check()
        if not self._table.holds(lease):
            raise lease.not_owner()
        outcome = self.start_release(lease, pause=pause, graceful=graceful, untried=untried)
        await asyncio.wait((outcome,))  # a caller that is cancelled only stops waiting
        outcome.result()

    def start_release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> "asyncio.Future[None]":
        """Start a release. The lease ends at once. This client gets an offer, too, but later than its peers."""
        self._table.part(lease)
        self._capacity.freed()
        orphan = ExpiredStream(lease.stream, lease.lbs_id, lease.info, None, lease.deliveries)
        self._event_queue.hold_back(orphan, clock.now() + (self._pace if pause is None else pause))
        outcome = self._releasing.add(Release(lease, graceful, untried))
        self.releasing.add(outcome)
        outcome.add_done_callback(self._released)
        return outcome

    def _released(self, outcome: "asyncio.Future[None]") -> None:
        self.releasing.discard(outcome)
        if not outcome.cancelled():
            outcome.exception()  # marks it as retrieved, since nobody may wait for it

    async def _send_release(self, asks: list[Release]) -> list[Exception | None]:
        leases = [ask.lease for ask in asks]
        try:
            graceful = [ask.lease for ask in asks if ask.graceful]
            await self._record_store.settle(graceful, 0, untried={ask.lease for ask in asks if ask.untried})
            return await self._release_behind_gate(leases)
        finally:
            for lease in leases:
                self._table.parted(lease)

    async def _release_behind_gate(self, leases: list[LeaseState]) -> list[Exception | None]:
        entries = [(lease.lbs_id, lease.deliveries) for lease in leases]
        async with self._audit_lock.passing():
            try:
                results = await self._retries.until_answered(
                    lambda timeout: self._deliveries.release(entries, timeout), lambda: True
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

    # Buried.

    async def bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        """Move the announcement of a lease to the dead letters. If it is put back, it continues after its
        checkpoint.

        Raises:
            NotOwner: the lease was lost; nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; the outcome is unknown.
            KeyRejected: the dead letters cannot be written; nothing was changed.
        """
        task = self._tasks.spawn(self._bury(lease, reason, details.encode()))
        await asyncio.wait((task,))  # a caller that is cancelled only stops waiting
        if task.cancelled():
            raise self._tasks.gone()
        if (refused := task.result()) is not None:
            raise refused

    async def _bury(self, lease: LeaseState, reason: str, details: str) -> KeyRejected | None:
        async with self._audit_lock.passing():
            try:
                outcome = await self._retries.until_answered(
                    lambda timeout: self._deliveries.bury(
                        lease.lbs_id, lease.deliveries, reason, timeout, details=details, stream=lease.stream
                    ),
                    lambda: self._table.holds(lease),
                )
            except Lapsed:
                raise lapsed(lease, "bury") from None
            except KeyRejected as error:  # no reason to close the client
                return error
            except GroupMissing:
                self._lock_state.lapse("missing")
                outcome = "gone"
            if outcome != "buried":
                self._losses.lose_to([(lease, "" if outcome == "gone" else outcome)])
                raise lease.not_owner(gone=outcome == "gone")
            self._table.end(lease, "buried")
        # Afterwards, since its attempts count until then.
        await self._record_store.settle([lease], self._retention.settled_for)
        self._counters.dead_letters += 1
        self._capacity.freed()
        return None
