"""Fenced checkpoints: what the answers about a stream's record mean for the lease, also when one is lost."""

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis_stream_client import announcement, clock
from redis_stream_client.announcement import Malformed
from redis_stream_client.cursor import Cursor
from redis_stream_client.entry import START
from redis_stream_client.errors import ClientClosed, NotOwner, RedisRejected, RedisStreamClientError
from redis_stream_client.faults import GroupMissing, KeyRejected, Unanswered, WrongType
from redis_stream_client.feed import Feed
from redis_stream_client.fence import Fence
from redis_stream_client.lease import Lease
from redis_stream_client.liveness import State
from redis_stream_client.logs import log
from redis_stream_client.membership import Membership
from redis_stream_client.ownership import Lapsed, Ownership, lapsed, unavailable
from redis_stream_client.pacing import Backoff
from redis_stream_client.records import NO_OWNER, Begin, Begun, Checkpoint, Foreign, Owner, Records, Refused
from redis_stream_client.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


NUMBERS = 62
"""Characters of a fence that order the owners of a record: without the holder. As in ``begin.lua``."""

LBS_ID = 41
"""Characters of a fence that name the announcement."""

FIRST_REST, LONGEST_REST = 0.5, 10.0
"""Seconds until a record that was refused is looked at again for the same lease; they double."""


class Refusals:
    """Bounds what a lease and its record may contradict each other, whatever the cause: with pauses that grow, and
    for one lifetime of the lock."""

    def __init__(self, member: Membership, lease: Lease) -> None:
        self._lease = lease
        self._give_up = clock.now() + member.options.lock_ttl
        self._backoff = Backoff(0.005, member.options.lock_ttl / 4)
        self._count = 0

    async def another(self) -> None:
        """One more refusal. Raises `RedisUnavailable` when it goes on for too long."""
        self._count += 1
        if self._count == 1:  # the usual one: there was another owner
            return
        if clock.now() >= self._give_up:
            log.warning(
                "the record of %s was refused %d times",
                self._lease.stream,
                self._count,
                extra=self._lease._log_fields(),
            )
            raise unavailable(self._lease, "begin")
        await asyncio.sleep(self._backoff.pause())


class Progress:
    """The data plane of one client's leases."""

    def __init__(self, member: Membership, ownership: Ownership, shelf: Shelf, feed: Feed) -> None:
        self._member = member
        self._ownership = ownership
        self._shelf = shelf
        self._feed = feed
        # What callers that were cancelled have asked for, and is under way.
        self._left: dict[Lease, set[asyncio.Task[RedisStreamClientError | None]]] = {}

    def follow(self, lease: Lease) -> Cursor:
        """Read a lease's stream, after its checkpoint."""
        return self._feed.follow(lease.stream, lease.position or START, lease._count, lease._restarted)

    async def prepare(self, leases: Sequence[Lease]) -> set[Lease]:
        """Begin for streams that have just arrived, many in one call, those without a record left alone.

        Best effort: returns the leases that need no `begin` any more before they are handled.
        """
        record = self._member.options.keys.progress
        names = [record(lease.stream) for lease in leases]
        shelved = await self._shelf.together(names)
        if shelved is None:
            return set()
        former = self._member.options.keys.former_progress
        first = {
            lease: name
            for lease, name in zip(leases, names, strict=True)
            if lease.deliveries == 1 and former(lease.stream) is None
        }
        try:
            fresh = not await shelved.any_of(list(first.values()), self._member.patience)
        except (Unanswered, GroupMissing, RedisRejected):
            fresh = False
        ready = set(first) if fresh else set()
        later = [lease for lease in leases if lease not in ready and former(lease.stream) is None]
        asks = [self._begin_of(lease, look_only=not lease._unrecorded) for lease in later]
        for lease, answer in zip(later, await shelved.begin_many(asks) if asks else (), strict=True):
            if not isinstance(answer, Refused | Exception):
                ready.add(lease)
                if answer is not None:
                    lease._begin(answer.checkpoint, answer.attempts, answer.added)
        return ready

    def _begin_of(self, lease: Lease, *, look_only: bool, replaces: Owner = NO_OWNER) -> Begin:
        record = self._member.options.keys.progress(lease.stream)
        return Begin(record, self._owner(lease), look_only, lease._unrecorded, replaces)

    async def begin(self, lease: Lease, *, look_only: bool = False) -> None:
        """Become the owner of a lease's record, or, with `look_only`, only if there is one already.

        It goes on when the caller is cancelled.

        Raises:
            NotOwner: there is a newer owner.
            RedisUnavailable: no answer until the lock lapsed. Repeating is safe.
            RedisRejected: Redis refuses, or the record is not one that this library has written.
        """
        await self._wait_for(lease, self._begin(lease, look_only=look_only))

    async def checkpoint(self, lease: Lease, id: str) -> None:
        """See `Lease.checkpoint`. Its reply counts when it arrives, whoever waits for it still."""
        outcome = self._send_at_once(lease, id)
        if outcome is not None:
            try:
                await _over(outcome)
            except asyncio.CancelledError:
                if not _accepted(outcome):
                    with contextlib.suppress(ClientClosed):
                        self._leave(lease, self._spawn(self._checkpoint(lease, id, outcome)))
                raise
            if _accepted(outcome):
                return
        await self._wait_for(lease, self._checkpoint(lease, id))

    async def answered(self, lease: Lease) -> None:
        """Wait for what cancelled callers have asked, and Redis has not answered yet: a lock's lifetime or so."""
        while left := self._left.get(lease):
            await asyncio.wait(left)

    # What is under way belongs to the client, not to its callers.

    async def _wait_for(self, lease: Lease, work: "Coroutine[Any, Any, None]") -> None:
        task = self._spawn(work)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            # Of a loss that is found here the caller hears first, and is cancelled then.
            if not (task.done() and lease._guard is not None and lease._guard.postpone()):
                self._leave(lease, task)
                raise
        if task.cancelled():
            raise self._member.supervisor.gone()
        if (error := task.result()) is not None:
            raise error

    def _spawn(self, work: "Coroutine[Any, Any, None]") -> "asyncio.Task[RedisStreamClientError | None]":
        try:
            return self._member.supervisor.spawn(_caught(work))
        except BaseException:
            work.close()
            raise

    def _leave(self, lease: Lease, task: "asyncio.Task[RedisStreamClientError | None]") -> None:
        """The caller of `task` is gone."""
        if not task.done():
            self._left.setdefault(lease, set()).add(task)
            task.add_done_callback(functools.partial(self._ended, lease))

    def _ended(self, lease: Lease, task: "asyncio.Task[RedisStreamClientError | None]") -> None:
        left = self._left[lease]
        left.discard(task)
        if not left:
            del self._left[lease]
        if not task.cancelled() and (error := task.result()) is not None:
            log.info("after its caller was cancelled: %s", error, extra=lease._log_fields())

    # Beginning.

    async def _begin(self, lease: Lease, *, look_only: bool = False, replaces: Owner = NO_OWNER) -> None:
        await self._rest(lease)
        await self._move(lease)
        refusals = Refusals(self._member, lease)
        while True:
            ask = self._begin_of(lease, look_only=look_only, replaces=replaces)
            answer = await self._ask(lease, "begin", functools.partial(Records.begin, ask=ask))
            if not isinstance(answer, Refused):
                self._begun(lease, answer)
                return
            await refusals.another()
            replaces = await self._examine(lease, answer.by)

    async def _move(self, lease: Lease) -> None:
        """Bring the record along from where version 0.1 had it."""
        keys = self._member.options.keys
        former = keys.former_progress(lease.stream)
        if former is not None and not lease._begun:
            fences = str(lease.fence)[:LBS_ID]
            record = keys.progress(lease.stream)
            timeout = self._member.patience
            await self._ask(lease, "begin", lambda records: records.move(record, former, fences, timeout))

    def _begun(self, lease: Lease, answer: Begun | None) -> None:
        if not self._member.holdings.holds(lease):
            raise lease._not_owner()
        lease._refused_for = 0.0
        if answer is not None:
            lease._begin(answer.checkpoint, answer.attempts, answer.added)

    async def acquit(self, leases: Sequence[Lease]) -> None:
        """The attempts of these owners do not count."""
        await self._shelf.settle(leases, 0)
        for lease in leases:
            lease._attempts = 0

    # Checkpoints.

    def _send_at_once(self, lease: Lease, id: str) -> "asyncio.Future[Refused | bool] | None":
        """Send a checkpoint where nothing has to be found out before. None: something has."""
        member = self._member
        member.liveness.check()
        if not lease._begun or not member.holdings.holds(lease) or member.liveness.state is not State.HELD:
            return None
        if lease._refused_for:
            return None
        records = self._shelf.known(lease.stream)
        return None if records is None else self._send(lease, id, records)

    def _send(self, lease: Lease, id: str, records: Records) -> "asyncio.Future[Refused | bool]":
        record = self._member.options.keys.progress(lease.stream)
        if lease._is_outdated(id):  # a fail-over came between, and reading began again
            outcome = asyncio.get_running_loop().create_future()
            outcome.set_result(False)
            return outcome
        outcome = records.checkpoint(Checkpoint(record, self._owner(lease), id, lease._added_up_to(id)))
        outcome.add_done_callback(functools.partial(_apply, lease, id, lease._entries_handed_over))
        return outcome

    async def _checkpoint(
        self, lease: Lease, id: str, before: "asyncio.Future[Refused | bool] | None" = None
    ) -> None:
        """Until it is answered, after a first try that is under way already."""
        if before is not None:
            await _over(before)
            if _accepted(before):
                return
        await self._rest(lease)
        refusals = Refusals(self._member, lease)
        if not lease._begun:
            await self._begin(lease)
        while True:
            answer = await self._ask(lease, "checkpoint", functools.partial(self._send, lease, id))
            if not isinstance(answer, Refused):
                return
            await refusals.another()
            await self._begin(lease, replaces=await self._examine(lease, answer.by))

    def _owner(self, lease: Lease) -> Owner:
        return Owner(str(lease.fence), self._member.options.consumer)

    async def _ask(self, lease: Lease, what: str, send: "Callable[[Records], Awaitable[T]]") -> T:
        """Repeat until there is an answer, for one lifetime of the lock: every operation on a record may be."""

        async def attempt(timeout: float) -> T:
            records = await self._shelf.records(lease.stream, timeout)
            try:
                return await send(records)
            except Unanswered:
                self._shelf.moved()  # a server that is gone answers nothing, so nothing says where its keys are
                raise

        try:
            return await self._ownership.persist(
                attempt, lambda: self._member.holdings.holds(lease), changes_ownership=False
            )
        except Lapsed:
            raise lapsed(lease, what) from None
        except Foreign as error:
            raise self._foreign(lease, error) from None
        except RedisRejected as error:
            self._refuse(lease)
            raise _about(lease, error) from error

    # A refusal.

    async def _rest(self, lease: Lease) -> None:
        """However often its holder asks, a record that was refused is looked at more and more rarely."""
        await asyncio.sleep(max(0.0, lease._refused_until - clock.now()))

    def _refuse(self, lease: Lease) -> bool:
        """The record is of no use for this lease as it is. Returns whether that is new."""
        first = lease._refused_for == 0
        lease._refused_for = min(max(FIRST_REST, lease._refused_for * 2), LONGEST_REST)
        lease._refused_until = clock.now() + lease._refused_for
        return first

    def _foreign(self, lease: Lease, error: Foreign) -> KeyRejected:
        """A record that this library has not written. It is left alone, and asked about more and more rarely."""
        first = self._refuse(lease)
        record = self._member.options.keys.progress(lease.stream)
        rejected = KeyRejected(
            f"the record of the progress of {lease.stream!r} was not written by this library: in the hash "
            f"{record!r} {error.args[0].removeprefix('its ')}",
            hint="it is left as it is; find out who wrote it, then delete that key, or repair it",
            stream=lease.stream,
            lbs_id=lease.lbs_id,
        )
        if first:
            log.error("%s", rejected, extra=lease._log_fields())
        return rejected

    async def _examine(self, lease: Lease, by: Owner) -> Owner:
        """The record is another's: ask the load balancer stream whose the announcement is.

        Returns the owner that `begin` may replace, if it is ours indeed. Raises `NotOwner` if not.
        """
        try:
            async with self._member.gate.passing():
                return await self._ownership.persist(
                    lambda timeout: self._compare(lease, by, timeout),
                    lambda: self._member.holdings.holds(lease),
                )
        except Lapsed:
            raise lapsed(lease, "begin") from None
        except GroupMissing:
            self._member.liveness.lapse("missing")
            raise lease._not_owner(gone=True) from None
        except Foreign as error:
            raise self._foreign(lease, error) from None
        except RedisRejected as error:
            raise _about(lease, error) from error

    async def _compare(self, lease: Lease, by: Owner, timeout: float) -> Owner:
        operations = self._member.operations
        standing = await operations.standing(lease.lbs_id, timeout)
        if standing != (self._member.options.consumer, lease.deliveries):
            raise self._not_mine(lease, standing[0] if standing else "")
        try:
            stored = Fence.parse(by.fence) if by.fence else None
        except ValueError:  # whether somebody else wrote it, `begin` decides
            return NO_OWNER
        if stored is None or str(stored)[:NUMBERS] < str(lease.fence)[:NUMBERS]:
            return NO_OWNER  # Redis lost our begin
        if stored.lbs_id == lease.lbs_id:  # Redis lost a claim, and counts anew
            to = stored.deliveries + 1
            outcome = await operations.lift(lease.lbs_id, lease.deliveries, to, timeout)
            if outcome != "raised":
                raise self._not_mine(lease, "" if outcome == "gone" else outcome)
            lease._deliveries = to
            return NO_OWNER
        newer = await operations.announcement(stored.lbs_id, timeout)
        if newer is not None:
            if not _announces(newer, lease.stream):
                raise Foreign("fence", by.fence.encode())  # of another stream's owner
            await operations.done([(lease.lbs_id, lease.deliveries)], timeout)
            self._ownership.lose([lease], "superseded")
            raise lease._not_owner(owner=by.consumer)
        return by  # the newer announcement was finished, or the load balancer stream began anew

    def _not_mine(self, lease: Lease, owner: str) -> NotOwner:
        self._ownership.lose_to([(lease, owner)])
        return lease._not_owner(gone=not owner, owner=owner or None)


def _announces(fields: Sequence[bytes], stream: str) -> bool:
    """Whether an announcement is one of this data stream."""
    try:
        return announcement.decode(fields).stream == stream
    except Malformed:
        return False


async def _caught(work: "Coroutine[Any, Any, None]") -> RedisStreamClientError | None:
    """What goes wrong is its caller's to hear, and not the supervisor's."""
    try:
        await work
    except RedisStreamClientError as error:
        return error
    return None


def _wake(waiter: "asyncio.Future[None]", _: "asyncio.Future[Any]") -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _over(outcome: "asyncio.Future[Any]") -> None:
    """Wait until a future has its result, and leave it alone when cancelled."""
    if not outcome.done():
        waiter = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(functools.partial(_wake, waiter))
        await waiter


def _accepted(outcome: "asyncio.Future[Refused | bool]") -> bool:
    """Whether a checkpoint has its answer, and it is not a refusal."""
    return (
        outcome.done()
        and not outcome.cancelled()
        and outcome.exception() is None
        and not isinstance(outcome.result(), Refused)
    )


def _apply(lease: Lease, id: str, handed_over: int, outcome: "asyncio.Future[Refused | bool]") -> None:
    """What the answer to a checkpoint means for its lease. It is called before whoever waits goes on."""
    if _accepted(outcome):
        lease._refused_for = 0.0
        lease._checkpointed(id, advanced=outcome.result() is True, handed_over=handed_over)


def _about(lease: Lease, error: RedisRejected) -> RedisRejected:
    """Why the progress of one stream cannot be recorded."""
    about = {"stream": lease.stream, "lbs_id": lease.lbs_id}
    if isinstance(error, WrongType):
        return WrongType(
            f"the key for the progress of {lease.stream!r} holds another type of value than a hash",
            hint="only this library writes it; delete or rename that key",
            **about,
        )
    return type(error)(
        f"the progress of {lease.stream!r} cannot be recorded: {error.args[0]}", hint=error.hint, **about
    )
