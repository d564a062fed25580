"""Getting, ending and losing leases: what the operations mean for the table, also when a reply is lost.

Every method that changes ownership changes it in one synchronous step, next to the reply that says so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from redis_stream_client import announcement, clock
from redis_stream_client.announcement import Malformed
from redis_stream_client.batch import Batch
from redis_stream_client.errors import LossReason, RedisUnavailable
from redis_stream_client.events import ExpiredStream
from redis_stream_client.faults import GroupMissing, Unanswered
from redis_stream_client.lease import Lease
from redis_stream_client.liveness import State
from redis_stream_client.membership import Membership
from redis_stream_client.operations import PAGE, Delivered

log = logging.getLogger("redis_stream_client")

LOGGED = 10  # losses that are logged one by one, when many happen at once

T = TypeVar("T")


class Lapsed(Exception):
    """The lock lapsed, or would have by now, before Redis answered. It never leaves the package."""

    def __init__(self, maybe_executed: bool) -> None:
        super().__init__("the consumer lock lapsed before Redis answered")
        self.maybe_executed = maybe_executed


class Ownership:
    """The leases of one client: the host that every lease refers to."""

    def __init__(self, member: Membership) -> None:
        self._member = member
        supervisor = member.supervisor
        self._doing = Batch(self._send_done, supervisor.spawn, supervisor.gone, PAGE)
        self._releasing = Batch(self._send_release, supervisor.spawn, supervisor.gone, PAGE)

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        return self._member.liveness.held

    @property
    def room(self) -> int:
        """How many more streams this client will read."""
        room = self._member.options.prefetch - self._member.inbox.unread_added
        if self._member.options.max_streams is not None:
            room = min(room, self._member.options.max_streams - len(self._member.holdings))
        return max(0, room)

    # Arriving.

    async def receive(self, entries: Iterable[Delivered]) -> None:
        """Entries that are ours since they were delivered, or adopted."""
        malformed: list[tuple[Delivered, str]] = []
        for entry in entries:
            try:
                announced = announcement.decode(entry.fields)
            except Malformed as error:
                malformed.append((entry, str(error)))
                continue
            lease = Lease(self, entry.lbs_id, announced, entry.deliveries)
            self._member.holdings.add(lease)
            self._member.inbox.added(lease)
            self._member.counters.streams_added += 1
        for entry, reason in malformed:
            await self.bury(entry, reason)

    async def adopt(self, unknown: Sequence[tuple[str, int]], epoch: int) -> None:
        """What is pending for us, but has no lease, becomes one; what there is no room for is released."""
        room = len(unknown)
        if self._member.options.max_streams is not None:
            room = max(0, self._member.options.max_streams - len(self._member.holdings))
        for start in range(0, room, PAGE):
            page = unknown[start : start + PAGE]
            adopted = await self._member.operations.adopt(page, self._member.patience)
            if adopted is None:
                self._member.liveness.lapse("missing")
            if adopted is None or not self._member.liveness.believed(epoch):
                return
            await self.receive(adopted)
        for start in range(room, len(unknown), PAGE):
            await self._member.operations.release(unknown[start : start + PAGE], self._member.patience)

    async def bury(self, entry: Delivered, reason: str) -> None:
        """Move a malformed announcement to the dead letters. If that fails, it stays pending for us, and
        the next audit tries again."""
        try:
            outcome = await self._member.operations.bury(
                entry.lbs_id, entry.deliveries, reason, self._member.patience
            )
        except (Unanswered, GroupMissing) as error:
            log.warning("could not bury %s yet: %s", entry.lbs_id, error, extra={"lbs_id": entry.lbs_id})
            return
        if outcome == "buried":
            self._member.counters.dead_letters += 1
            log.error(
                "malformed announcement %s moved to the dead letters: %s",
                entry.lbs_id,
                reason,
                extra={"lbs_id": entry.lbs_id, "consumer": self._member.options.consumer},
            )

    # Ending.

    async def finish(self, lease: Lease) -> None:
        """Acknowledge and delete. See `Lease.done`."""
        self._member.liveness.check()
        if not self._member.holdings.holds(lease):
            raise lease._not_owner(gone=lease._done_sent is not None)
        await self._doing.add(lease)

    async def _send_done(self, leases: list[Lease]) -> list[Exception | None]:
        async with self._member.gate.passing():
            try:
                results, repeated = await self._persist_done(leases)
            except Lapsed:
                return [self._done_lapsed(lease) for lease in leases]
            except GroupMissing:
                self._member.liveness.lapse("missing")
                results, repeated = ["gone"] * len(leases), [False] * len(leases)
            return [
                self._after_done(lease, result, again)
                for lease, result, again in zip(leases, results, repeated, strict=True)
            ]

    async def _persist_done(self, leases: list[Lease]) -> tuple[list[str], list[bool]]:
        """Send until there is an answer, remembering for each lease whether an earlier call may have been
        executed, and in which epoch of the lock and of the server's history that was."""
        repeated: list[bool] = []

        async def attempt(timeout: float) -> list[str]:
            first = [lease for lease in leases if lease._done_sent is None]
            repeated[:] = [lease._done_sent is not None for lease in leases]
            mark = (self._member.liveness.epoch, self._member.greeter.history)
            for lease in first:
                lease._done_sent = mark
            try:
                return await self._member.operations.done([(le.lbs_id, le.deliveries) for le in leases], timeout)
            except Unanswered as error:
                if not error.maybe_executed:
                    for lease in first:
                        lease._done_sent = None
                raise

        results = await self._persist(attempt, lambda: any(map(self._member.holdings.holds, leases)))
        return results, repeated

    def _after_done(self, lease: Lease, result: str, again: bool) -> Exception | None:
        if lease._lost == "done":  # by a call at the same time
            return None
        mine_before = (
            result == "gone"
            and again
            and lease._done_sent is not None
            and lease._done_sent[1] is not None
            and lease._done_sent[1] == self._member.greeter.history
            and self._member.liveness.believed(lease._done_sent[0])
        )
        if result == "done" or mine_before:
            self._member.holdings.end(lease, "done")
            self._member.counters.streams_done += 1
            self._member.supervisor.room_changed()
            return None
        self.lose([lease], "gone" if result == "gone" else "claimed")
        return lease._not_owner(gone=result == "gone", owner=result if result != "gone" else None)

    def _done_lapsed(self, lease: Lease) -> Exception | None:
        if lease._lost == "done":
            return None
        if lease._done_sent is not None or self._member.holdings.holds(lease):
            return unavailable(lease, "done")
        return lease._not_owner()

    async def release(self, lease: Lease) -> None:
        """Hand to the peers. See `Lease.release`."""
        self._member.liveness.check()
        if not self._member.holdings.holds(lease):
            raise lease._not_owner()
        await self.start_release(lease)

    def start_release(self, lease: Lease) -> "asyncio.Future[None]":
        """Not ours from this moment on. This client is offered the stream too, but later than its peers."""
        self._member.holdings.part(lease)
        self._member.supervisor.room_changed()
        orphan = ExpiredStream(lease.stream, lease.lbs_id, lease.info, None, lease.deliveries)
        self._member.inbox.hold_back(orphan, clock.now() + self._member.options.lock_ttl)
        return self._releasing.add(lease)

    async def _send_release(self, leases: list[Lease]) -> list[Exception | None]:
        try:
            return await self._release_behind_gate(leases)
        finally:
            for lease in leases:
                self._member.holdings.parted(lease)

    async def _release_behind_gate(self, leases: list[Lease]) -> list[Exception | None]:
        entries = [(lease.lbs_id, lease.deliveries) for lease in leases]
        async with self._member.gate.passing():
            try:
                results = await self._persist(
                    lambda timeout: self._member.operations.release(entries, timeout), lambda: True
                )
            except Lapsed:
                return [unavailable(lease, "release") for lease in leases]
            except GroupMissing:
                self._member.liveness.lapse("missing")
                results = ["gone"] * len(leases)
        failures: list[Exception | None] = []
        for lease, result in zip(leases, results, strict=True):
            if result == "released":
                self._member.counters.streams_released += 1
                failures.append(None)
            else:
                failures.append(lease._not_owner(owner=None if result == "gone" else result))
        return failures

    # Losing.

    def lose(self, leases: Iterable[Lease], reason: LossReason) -> None:
        """Leases that were lost, as the table or Redis says."""
        lost = [lease for lease in leases if self._member.holdings.holds(lease)]
        for lease in lost:
            self._member.holdings.lose(lease, reason)
        self._member.counters.streams_disowned += len(lost)
        who = {"consumer": self._member.options.consumer}
        for lease in lost[:LOGGED]:
            log.warning("lost %s: %s", lease.stream, reason, extra={**lease._log_fields(), **who})
        if len(lost) > LOGGED:
            log.warning("lost %d streams more: %s", len(lost) - LOGGED, reason, extra=who)
        if lost:
            self._member.supervisor.room_changed()

    def lose_to(self, owners: Iterable[tuple[Lease, str]]) -> None:
        """Leases that are not ours any more, with who owns the stream now; '' for one that is gone."""
        moved = list(owners)
        self.lose([lease for lease, owner in moved if owner], "claimed")
        self.lose([lease for lease, owner in moved if not owner], "gone")

    # Persistence.

    async def _persist(self, attempt: Callable[[float], Awaitable[T]], wanted: Callable[[], bool]) -> T:
        """Repeat until Redis answers, for one lifetime of the lock, as long as the lock is held, or comes back
        and `wanted` still holds."""
        give_up = clock.now() + self._member.options.lock_ttl
        backoff = self._member.backoff()
        maybe_executed = False
        while True:
            self._member.liveness.check()
            if self._member.liveness.state is State.SUSPECT:
                await asyncio.sleep(self._member.options.heartbeat_interval / 20)
                continue
            if self._member.liveness.state is not State.HELD or not wanted() or clock.now() >= give_up:
                raise Lapsed(maybe_executed)
            try:
                return await attempt(self._member.patience)
            except Unanswered as error:
                if error.maybe_executed:
                    maybe_executed = True
                    self._member.supervisor.request_audit()
                await asyncio.sleep(backoff.pause())


def unavailable(what: Lease | ExpiredStream, operation: str) -> RedisUnavailable:
    """The error of an operation that got no answer."""
    return RedisUnavailable(
        f"no answer to {operation!r} for {what.stream!r} within the lifetime of the consumer lock",
        hint="the outcome is unknown; repeating is safe",
        **about(what),
    )


def about(what: Lease | ExpiredStream) -> dict[str, str]:
    """What every error about a stream carries."""
    return {"stream": what.stream, "lbs_id": what.lbs_id}
