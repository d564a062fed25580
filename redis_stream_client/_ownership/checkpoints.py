"""Fenced checkpoints: what the replies about a progress record mean for the lease, even if one is lost."""

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._leases.lock_state import LockState, State
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import announcement
from redis_stream_client._model.announcement import Malformed
from redis_stream_client._model.entry import START, order
from redis_stream_client._model.errors import ClientClosed, NotOwner, RedisRejected
from redis_stream_client._model.fence import Fence, announcement_of
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import PROGRESS_TTL, Options
from redis_stream_client._ownership.callers import Callers
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._ownership.refusals import Refusals, about, rejected, rest
from redis_stream_client._ownership.retry import Lapsed, Retries, lapsed
from redis_stream_client._protocol import data_streams
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._protocol.progress_records import (
    ANY_TERMS,
    NO_OWNER,
    Begin,
    Begun,
    Checkpoint,
    Doze,
    Fail,
    Failed,
    Foreign,
    Owner,
    Records,
    Refused,
    Suspect,
    Terms,
    Unreadable,
)
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._streams.cursor import Cursor
from redis_stream_client._streams.fetcher import Fetcher
from redis_stream_client._streams.record_store import RecordStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


NUMBERS = 62
"""The length of a fence without its holder: these characters order the owners of a record. As in ``begin.lua``."""

AT_ONCE = 0.001
"""Seconds that a record stays which should not have been created."""

PREPARING = 0.25
"""Seconds for which arrivals wait to be prepared together. A node that does not answer must not delay the streams
of the others. A stream that is not ready by then begins alone."""


class Progress:
    """The data plane of one client's leases."""

    def __init__(
        self,
        *,
        log: Log,
        options: Options,
        pending: Pending,
        deliveries: Deliveries,
        lock_state: LockState,
        table: LeaseTable,
        audit_lock: SharedLock,
        tasks: OwnedTasks[ClientClosed],
        losses: Losses,
        retries: Retries,
        record_store: RecordStore,
        fetcher: Fetcher,
        observation: Observation | None = None,
    ) -> None:
        self._log = log
        self._consumer = options.consumer
        self._keys = options.keys
        self._lock_ttl = options.lock_ttl
        self._pace = options.pace
        self._progress_ttl = options.progress_ttl
        self._from_now = options.on_forgotten == "from_now"
        self._patience = options.patience
        self._pending = pending
        self._deliveries = deliveries
        self._lock_state = lock_state
        self._table = table
        self._audit_lock = audit_lock
        self._losses = losses
        self._retries = retries
        self._record_store = record_store
        self._fetcher = fetcher
        self._observation = observation
        self._tasks = tasks
        self._callers = Callers(tasks.spawn, tasks.gone, log)

    def follow(self, lease: LeaseState) -> Cursor:
        """Read the stream of a lease after its checkpoint."""
        return self._fetcher.follow(lease.stream, lease.position or START, lease.count, lease.restarted)

    async def prepare(self, leases: Sequence[LeaseState], *, most_deaths: int) -> set[LeaseState]:
        """Begin streams that have just arrived, many in one call. Streams without a record get none, and those of
        which more than `most_deaths` owners have died are left alone.

        This is best effort, within `PREPARING`. Returns the leases that need no `begin` of their own any more.
        """
        ready: set[LeaseState] = set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PREPARING):
                await self._prepare(leases, ready, Terms(most_deaths))
        return ready

    async def _prepare(self, leases: Sequence[LeaseState], ready: set[LeaseState], terms: Terms) -> None:
        record = self._keys.progress
        names = [record(lease.stream) for lease in leases]
        shelved = await self._record_store.together(names)
        if shelved is None:
            return
        first = {lease: name for lease, name in zip(leases, names, strict=True) if lease.deliveries == 1}
        try:
            fresh = not await shelved.any_of(list(first.values()), self._patience)
        except (Unanswered, GroupMissing, RedisRejected):
            fresh = False
        if fresh:
            ready.update(first)
        former = self._keys.former_progress
        later = [lease for lease in leases if lease not in ready]
        later = [lease for lease in later if lease in first or former(lease.stream) is None]
        later = [lease for lease in later if not (lease.unrecorded and self._records_go(lease))]
        asks = [self._begin_of(lease, terms, look_only=not lease.unrecorded) for lease in later]
        for lease, answer in zip(later, await shelved.begin_many(asks) if asks else (), strict=True):
            if not isinstance(answer, Refused | Suspect | Exception):
                ready.add(lease)
                if answer is not None:
                    self._take(lease, answer)

    def _begin_of(self, lease: LeaseState, terms: Terms, *, look_only: bool, replaces: Owner = NO_OWNER) -> Begin:
        record = self._keys.progress(lease.stream)
        return Begin(
            record,
            self._owner(lease),
            look_only,
            lease.unrecorded,
            replaces,
            terms,
            lease.lived_since_text,
            self._from_now,
        )

    async def begin(
        self,
        lease: LeaseState,
        *,
        look_only: bool = False,
        most_deaths: int | None = None,
        trial: bool = False,
    ) -> None:
        """Take over the progress record of a lease. See `DataPlane.begin`.

        If the caller is cancelled, it goes on.

        Raises:
            NotOwner: there is a newer owner.
            RedisUnavailable: no answer until the lock lapsed. You can safely repeat the call.
            RedisRejected: Redis refuses, or this library has not written the record.
        """
        terms = Terms(most_deaths, trial)
        await self._callers.wait_for(lease, self._begin(lease, terms, look_only=look_only))

    async def checkpoint(self, lease: LeaseState, id: str) -> None:
        """See `Lease.checkpoint`. The reply counts when it arrives, even if nobody waits for it."""
        outcome = self._send_at_once(lease, id)
        if outcome is not None:
            with contextlib.suppress(Unanswered, GroupMissing, RedisRejected, ClientClosed):
                try:
                    answer = await outcome
                except asyncio.CancelledError:
                    if not _accepted(outcome):  # repeat it in the background
                        with contextlib.suppress(ClientClosed):
                            self._callers.go_on(lease, self._checkpoint(lease, id))
                    raise
                if not isinstance(answer, Refused):
                    return
        await self._callers.wait_for(lease, self._checkpoint(lease, id))

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the operations whose callers were cancelled. Takes about one lifetime of the lock at most."""
        await self._callers.answered(lease)

    # Beginning.

    async def _begin(
        self,
        lease: LeaseState,
        terms: Terms = ANY_TERMS,
        *,
        look_only: bool = False,
        replaces: Owner = NO_OWNER,
    ) -> None:
        await rest(lease)
        await self._move(lease)
        refusals = self._refusals(lease)
        position: str | None = None
        while True:
            ask = self._begin_of(lease, terms, look_only=look_only, replaces=replaces)
            answer = await self._ask(lease, "begin", functools.partial(Records.begin, ask=ask))
            if isinstance(answer, Begun) and _rewinds(lease, answer) and lease.position != position:
                position = lease.position  # ask again: it may have been accepted after this answer was given
                continue
            if not isinstance(answer, Refused):
                new = isinstance(answer, Begun) and (answer.checkpoint is None or answer.since is not None)
                if isinstance(answer, Begun) and new and self._records_go(lease):
                    await self._confirm(lease, answer)
                self._begun(lease, answer)
                return
            await refusals.another()
            replaces = await self._examine(lease, answer.by)

    def _records_go(self, lease: LeaseState) -> bool:
        """Whether the record of a finished stream may be gone so soon that an older owner still sends requests."""
        return lease.on_done == "delete" or self._progress_ttl < PROGRESS_TTL

    async def _confirm(self, lease: LeaseState, answer: Begun) -> None:
        """Ask the load balancer stream whether we still own a stream whose record we may have just created.

        No record refused us. Perhaps a newer owner has finished the stream, and its record is gone. Then this
        raises `NotOwner`, and takes our own record back.
        """
        try:
            await self._examine(lease, NO_OWNER)
        except NotOwner:
            self._take(lease, answer)
            await self._record_store.settle([lease], AT_ONCE)
            raise

    async def _move(self, lease: LeaseState) -> None:
        """Move the record from the key that version 0.1 used."""
        keys = self._keys
        former = keys.former_progress(lease.stream)
        if former is not None and lease.deliveries > 1 and not lease.begun:  # the first owner left none there
            fences = announcement_of(lease.lbs_id)
            record = keys.progress(lease.stream)
            timeout = self._patience
            await self._ask(lease, "begin", lambda records: records.move(record, former, fences, timeout))

    def _begun(self, lease: LeaseState, answer: Begun | Suspect | None) -> None:
        if not self._table.holds(lease):
            raise lease.not_owner()
        lease.rest = None
        if isinstance(answer, Suspect):
            lease.suspected(answer.deaths, answer.trouble)
        elif answer is not None:
            self._take(lease, answer)

    def _take(self, lease: LeaseState, answer: Begun) -> None:
        """The record is ours."""
        if answer.since is not None and not lease.begun:
            self._log.warning(
                "the progress record of %s had expired when entry %s woke it: it starts %s",
                lease.stream,
                answer.since,
                "with that entry" if answer.checkpoint is not None else "at the start of the stream",
                about=lease,
            )
        lease.begin(answer.checkpoint, answer.attempts, answer.added, answer.trouble)

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        """Do not count the attempts and earlier failures of these owners, which have nothing left to do."""
        await self._record_store.settle(leases, 0, idle=True)
        for lease in leases:
            lease.acquit()

    async def clear(self, leases: Sequence[LeaseState]) -> None:
        """Have the records of these streams, which are at work, forget the owners that died. The leases go on
        counting them, since their handlers may fail."""
        await self._record_store.settle(leases, 0)

    async def fail(self, lease: LeaseState, error: str) -> None:
        """Store in the record that the handler has failed. The lease ends next.

        If the caller is cancelled, it goes on. A repeated call counts no second failure.

        Raises:
            NotOwner: the lease was lost.
            RedisUnavailable: no answer until the lock lapsed. The next owner may count this one as dead.
            RedisRejected: Redis refuses.
        """
        await self._callers.wait_for(lease, self._fail(lease, error))

    async def _fail(self, lease: LeaseState, error: str) -> None:
        await rest(lease)
        refusals = self._refusals(lease)
        if not lease.begun:
            await self._begin(lease)

        def say(records: Records) -> "asyncio.Future[Failed | Refused]":
            return records.fail(Fail(self._keys.progress(lease.stream), self._owner(lease), error))

        await self._until_accepted(lease, "fail", say, refusals)

    # Sleep.

    async def doze(self, lease: LeaseState) -> bool:
        """Put a stream to sleep, unless it has an entry after the stored checkpoint. Returns whether it sleeps.

        Raises:
            NotOwner: there is a newer owner.
            RedisUnavailable: no answer until the lock lapsed. You can safely repeat the call.
            RedisRejected: Redis refuses the record or the data stream.
        """

        def ask(records: Records) -> "asyncio.Future[bool | Refused]":
            return records.doze(Doze(self._keys.progress(lease.stream), self._owner(lease), lease.stream))

        return await self._until_accepted(lease, "done_if_idle", ask, self._refusals(lease))

    # Checkpoints.

    def _send_at_once(self, lease: LeaseState, id: str) -> "asyncio.Future[Refused | bool] | None":
        """Send a checkpoint at once, if nothing has to be looked up first. None: something has."""
        self._lock_state.check()
        if not lease.begun or not self._table.holds(lease) or self._lock_state.state is not State.HELD:
            return None
        if self._tasks.ended:
            return None
        if lease.rest is not None:
            return None
        records = self._record_store.known(lease.stream)
        return None if records is None else self._send(lease, id, records)

    def _send(self, lease: LeaseState, id: str, records: Records) -> "asyncio.Future[Refused | bool]":
        record = self._keys.progress(lease.stream)
        if lease.is_outdated(id):  # after a failover, reading has begun again
            outcome = asyncio.get_running_loop().create_future()
            outcome.set_result(False)
            return outcome
        ask = Checkpoint(record, self._owner(lease), id, lease.added_up_to(id))
        apply = _apply if self._observation is None else self._apply_and_tell
        return records.checkpoint(ask, functools.partial(apply, lease, id, lease.handed_over))

    def _apply_and_tell(
        self, lease: LeaseState, id: str, handed_over: int, answer: Refused | bool | Exception
    ) -> None:
        before = lease.position
        _apply(lease, id, handed_over, answer)
        if self._observation is not None and lease.position != before:
            self._observation.checkpointed(lease, id, handed_over)

    async def _checkpoint(self, lease: LeaseState, id: str) -> None:
        """Repeat a checkpoint until Redis answers."""
        await rest(lease)
        refusals = self._refusals(lease)
        if not lease.begun:
            await self._begin(lease)
        await self._until_accepted(lease, "checkpoint", functools.partial(self._send, lease, id), refusals)

    def _refusals(self, lease: LeaseState) -> Refusals:
        return Refusals(lease, self._lock_ttl, self._pace / 4, self._log)

    def _owner(self, lease: LeaseState) -> Owner:
        return Owner(lease.fence_text, self._consumer)

    async def _until_accepted(
        self, lease: LeaseState, what: str, send: "Callable[[Records], Awaitable[T | Refused]]", refusals: Refusals
    ) -> T:
        """Repeat an operation until the record accepts it: one that refuses it though the lease is ours is taken
        over again."""
        while True:
            answer = await self._ask(lease, what, send)
            if not isinstance(answer, Refused):
                return answer
            await refusals.another()
            await self._begin(lease, replaces=await self._examine(lease, answer.by))

    async def _ask(self, lease: LeaseState, what: str, send: "Callable[[Records], Awaitable[T]]") -> T:
        """Repeat an operation until Redis answers, for one lifetime of the lock. Each operation may be
        repeated."""

        async def attempt(timeout: float) -> T:
            records = await self._record_store.records(lease.stream, timeout)
            try:
                return await send(records)
            except Unanswered:
                self._record_store.moved()  # a dead server cannot say that its keys have moved
                raise

        try:
            return await self._retries.until_answered(
                attempt, lambda: self._table.holds(lease), changes_ownership=False
            )
        except Lapsed:
            raise lapsed(lease, what) from None
        except Unreadable as error:
            raise data_streams.unreadable(lease.stream, error.fault) from error.__cause__
        except RedisRejected as error:
            raise rejected(lease, self._keys.progress(lease.stream), error, self._log) from error.__cause__

    # A refusal.

    async def _examine(self, lease: LeaseState, by: Owner) -> Owner:
        """The record has another owner: ask the load balancer stream who owns the announcement.

        If we do, return the owner that `begin` may replace. Raises `NotOwner` otherwise.
        """
        try:
            async with self._audit_lock.passing():
                return await self._retries.until_answered(
                    lambda timeout: self._compare(lease, by, timeout),
                    lambda: self._table.holds(lease),
                )
        except Lapsed:
            raise lapsed(lease, "begin") from None
        except GroupMissing:
            self._lock_state.lapse("missing")
            raise lease.not_owner(gone=True) from None
        except Foreign as error:
            raise rejected(lease, self._keys.progress(lease.stream), error, self._log) from error.__cause__
        except RedisRejected as error:
            raise about(lease, error) from error.__cause__

    async def _compare(self, lease: LeaseState, by: Owner, timeout: float) -> Owner:
        standing = await self._pending.standing(lease.lbs_id, timeout)
        try:
            stored = Fence.parse(by.fence) if by.fence else None
        except ValueError:  # `begin` finds out whether somebody else wrote it
            stored = None
        if standing is not None and standing == (self._consumer, _lifted_to(lease, stored)):
            lease.recount(standing[1])  # by an earlier attempt whose reply was lost
            return NO_OWNER
        if standing != (self._consumer, lease.deliveries):
            raise self._not_mine(lease, standing[0] if standing else "")
        if stored is None or str(stored)[:NUMBERS] < lease.fence_text[:NUMBERS]:
            return NO_OWNER  # Redis lost our begin
        if to := _lifted_to(lease, stored):  # Redis has lost a claim
            outcome = await self._deliveries.lift(lease.lbs_id, lease.deliveries, to, timeout)
            if outcome != "lifted":
                raise self._not_mine(lease, "" if outcome == "gone" else outcome)
            lease.recount(to)
            return NO_OWNER
        newer = await self._pending.announcement(stored.lbs_id, timeout)
        if newer is not None:
            if not _announces(newer, lease.stream):
                raise Foreign("fence", by.fence.encode())  # of another stream's owner
            outcome = await self._deliveries.supersede(
                lease.lbs_id, lease.deliveries, lease.stream, stored.lbs_id, timeout
            )
            if outcome != "over":  # or its reply was lost, or somebody else took it just now
                self._losses.lose([lease], "superseded", by.consumer)
                raise lease.not_owner(owner=by.consumer)
        return by  # the newer announcement is finished, or the load balancer stream was created again

    def _not_mine(self, lease: LeaseState, owner: str) -> NotOwner:
        self._losses.lose_to([(lease, owner)])
        return lease.not_owner(gone=not owner, owner=owner or None)


def _lifted_to(lease: LeaseState, stored: Fence | None) -> int:
    """The delivery count that this lease needs to be newer than the stored owner of the same announcement; 0:
    none."""
    if stored is None or stored.lbs_id != lease.lbs_id or stored.deliveries < lease.deliveries:
        return 0
    return stored.deliveries + 1


def _announces(fields: Sequence[bytes], stream: str) -> bool:
    """Whether this is an announcement of this data stream."""
    try:
        return announcement.decode(fields).stream == stream
    except Malformed:
        return False


def _accepted(outcome: "asyncio.Future[Refused | bool]") -> bool:
    """Whether Redis has answered a checkpoint, and not refused it."""
    return (
        outcome.done()
        and not outcome.cancelled()
        and outcome.exception() is None
        and not isinstance(outcome.result(), Refused)
    )


def _rewinds(lease: LeaseState, answer: Begun) -> bool:
    """Whether the record knows less than the lease: Redis has lost what it had stored, or the answer is old."""
    return lease.begun and order(answer.checkpoint or START) < order(lease.position or START)


def _apply(lease: LeaseState, id: str, handed_over: int, answer: Refused | bool | Exception) -> None:
    """Apply the reply to a checkpoint to its lease, before the waiter goes on."""
    if isinstance(answer, bool):
        lease.rest = None
        lease.checkpointed(id, advanced=answer, handed_over=handed_over)
