"""Fenced checkpoints: what the answers about a stream's record mean for the lease, also when one is lost."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from redis_stream_client.entry import START
from redis_stream_client.errors import NotOwner, RedisRejected
from redis_stream_client.faults import GroupMissing, Unanswered, WrongType
from redis_stream_client.feed import Cursor, Feed
from redis_stream_client.fence import Fence
from redis_stream_client.lease import Lease
from redis_stream_client.membership import Membership
from redis_stream_client.ownership import Lapsed, Ownership, lapsed
from redis_stream_client.records import NO_OWNER, Begin, Begun, Checkpoint, Owner, Records, Refused
from redis_stream_client.shelf import Shelf

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")


class Progress:
    """The data plane of one client's leases."""

    def __init__(self, member: Membership, ownership: Ownership, shelf: Shelf, feed: Feed) -> None:
        self._member = member
        self._ownership = ownership
        self._shelf = shelf
        self._feed = feed

    def follow(self, lease: Lease) -> Cursor:
        """Read a lease's stream, after its checkpoint."""
        return self._feed.follow(lease.stream, lease.position or START)

    async def prepare(self, leases: Sequence[Lease]) -> set[Lease]:
        """Begin for streams that have just arrived, many in one call, those without a record left alone.

        Best effort: returns the leases that need no `begin` any more before they are handled.
        """
        record = self._member.options.keys.progress
        names = [record(lease.stream) for lease in leases]
        shelved = await self._shelf.together(names)
        if shelved is None:
            return set()
        first = {lease: name for lease, name in zip(leases, names, strict=True) if lease.deliveries == 1}
        try:
            fresh = not await shelved.any_of(list(first.values()), self._member.patience)
        except (Unanswered, GroupMissing, RedisRejected):
            fresh = False
        ready = set(first) if fresh else set()
        later = [lease for lease in leases if lease not in ready]
        asks = [self._begin_of(lease, look_only=not lease._unrecorded) for lease in later]
        for lease, answer in zip(later, await shelved.begin_many(asks) if asks else (), strict=True):
            if not isinstance(answer, Refused | Exception):
                ready.add(lease)
                if answer is not None:
                    lease._begin(answer.checkpoint, answer.attempts)
        return ready

    def _begin_of(self, lease: Lease, *, look_only: bool, replaces: Owner = NO_OWNER) -> Begin:
        record = self._member.options.keys.progress(lease.stream)
        return Begin(record, self._owner(lease), look_only, lease._unrecorded, replaces)

    async def begin(self, lease: Lease, *, look_only: bool = False, replaces: Owner = NO_OWNER) -> None:
        """Become the owner of a lease's record, or, with `look_only`, only if there is one already.

        Raises:
            NotOwner: there is a newer owner.
            RedisUnavailable: no answer until the lock lapsed. Repeating is safe.
            RedisRejected: Redis refuses.
        """
        while True:
            ask = self._begin_of(lease, look_only=look_only, replaces=replaces)
            answer = await self._ask(lease, "begin", functools.partial(Records.begin, ask=ask))
            if not isinstance(answer, Refused):
                self._begun(lease, answer)
                return
            replaces = await self._examine(lease, answer.by)

    def _begun(self, lease: Lease, answer: Begun | None) -> None:
        if not self._member.holdings.holds(lease):
            raise lease._not_owner()
        if answer is not None:
            lease._begin(answer.checkpoint, answer.attempts)

    async def acquit(self, leases: Sequence[Lease]) -> None:
        """The attempts of these owners do not count. Best effort."""
        await self._shelf.settle(leases, 0)
        for lease in leases:
            lease._attempts = 0

    async def checkpoint(self, lease: Lease, id: str) -> None:
        """See `Lease.checkpoint`."""
        if not lease._begun:
            await self.begin(lease)
        record = self._member.options.keys.progress(lease.stream)
        while True:
            ask = Checkpoint(record, self._owner(lease), id)
            answer = await self._ask(lease, "checkpoint", functools.partial(Records.checkpoint, ask=ask))
            if not isinstance(answer, Refused):
                lease._checkpointed(id, advanced=answer)
                return
            await self.begin(lease, replaces=await self._examine(lease, answer.by))

    def _owner(self, lease: Lease) -> Owner:
        return Owner(str(lease.fence), self._member.options.consumer)

    async def _ask(self, lease: Lease, what: str, send: "Callable[[Records], asyncio.Future[T]]") -> T:
        """Repeat until there is an answer, for one lifetime of the lock: every operation on a record may be."""

        async def attempt(timeout: float) -> T:
            records = await self._shelf.records(lease.stream, timeout)
            try:
                return await send(records)
            except Unanswered as error:
                if error.elsewhere:
                    self._shelf.moved()
                raise

        try:
            return await self._ownership.persist(
                attempt, lambda: self._member.holdings.holds(lease), changes_ownership=False
            )
        except Lapsed:
            raise lapsed(lease, what) from None
        except RedisRejected as error:
            raise _about(lease, error) from error

    # A refusal.

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

    async def _compare(self, lease: Lease, by: Owner, timeout: float) -> Owner:
        operations = self._member.operations
        standing = await operations.standing(lease.lbs_id, timeout)
        if standing != (self._member.options.consumer, lease.deliveries):
            raise self._not_mine(lease, standing[0] if standing else "")
        try:
            stored = Fence.parse(by.fence) if by.fence else None
        except ValueError:  # somebody else wrote it
            return by
        if stored is None or stored < lease.fence:
            return NO_OWNER  # Redis lost our begin
        if stored.lbs_id == lease.lbs_id:  # Redis lost a claim, and counts anew
            to = stored.deliveries + 1
            outcome = await operations.lift(lease.lbs_id, lease.deliveries, to, timeout)
            if outcome != "raised":
                raise self._not_mine(lease, "" if outcome == "gone" else outcome)
            lease._deliveries = to
            return NO_OWNER
        if await operations.exists(stored.lbs_id, timeout):
            await operations.done([(lease.lbs_id, lease.deliveries)], timeout)
            self._ownership.lose([lease], "superseded")
            raise lease._not_owner(owner=by.consumer)
        return by  # the newer announcement was finished, or the load balancer stream began anew

    def _not_mine(self, lease: Lease, owner: str) -> NotOwner:
        self._ownership.lose_to([(lease, owner)])
        return lease._not_owner(gone=not owner, owner=owner or None)


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
