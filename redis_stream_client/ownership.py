"""Winning, ending and losing leases: what the operations mean for the table, also when a reply is lost.

Every method that changes ownership changes it in one synchronous step, next to the reply that says so.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from redis_stream_client import announcement, clock
from redis_stream_client.announcement import Malformed
from redis_stream_client.batch import Batch
from redis_stream_client.errors import (
    AlreadyClaimed,
    ClientClosed,
    LossReason,
    NotJoined,
    RedisUnavailable,
    StreamGone,
)
from redis_stream_client.events import ExpiredStream
from redis_stream_client.faults import GroupMissing, Unanswered
from redis_stream_client.holdings import Gate, Holdings
from redis_stream_client.inbox import Inbox, owner_of
from redis_stream_client.lease import Lease
from redis_stream_client.liveness import Liveness, State
from redis_stream_client.operations import PAGE, Delivered, Greeter, Operations, Refusal, Won
from redis_stream_client.options import Options
from redis_stream_client.pacing import Backoff
from redis_stream_client.statistics import Counters

log = logging.getLogger("redis_stream_client")

LOGGED = 10  # losses that are logged one by one, when many happen at once

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class Lapsed(Exception):
    """The lock lapsed, or would have by now, before Redis answered. It never leaves the package."""

    def __init__(self, maybe_executed: bool) -> None:
        super().__init__("the consumer lock lapsed before Redis answered")
        self.maybe_executed = maybe_executed


class Ownership:
    """The leases of one client: the host that every lease refers to."""

    def __init__(
        self,
        options: Options,
        operations: Operations,
        liveness: Liveness,
        inbox: Inbox,
        greeter: Greeter,
        counters: Counters,
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        request_audit: Callable[[], None],
        room_changed: Callable[[], None],
    ) -> None:
        self._options = options
        self._operations = operations
        self._liveness = liveness
        self._inbox = inbox
        self._greeter = greeter
        self._counters = counters
        self._spawn = spawn
        self._gone = gone
        self._request_audit = request_audit
        self._room_changed = room_changed
        self._claiming: set[str] = set()
        self._doing = Batch(self._send_done, spawn, gone, PAGE)
        self._releasing = Batch(self._send_release, spawn, gone, PAGE)
        self.holdings = Holdings(inbox)
        self.gate = Gate()

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        return self._liveness.held

    @property
    def room(self) -> int:
        """How many more streams this client will read."""
        room = self._options.prefetch - self._inbox.unread_added
        if self._options.max_streams is not None:
            room = min(room, self._options.max_streams - len(self.holdings))
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
            self.holdings.add(lease)
            self._inbox.added(lease)
            self._counters.streams_added += 1
        for entry, reason in malformed:
            await self.bury(entry, reason)

    async def adopt(self, unknown: Sequence[tuple[str, int]], epoch: int) -> None:
        """What is pending for us, but has no lease, becomes one; what there is no room for is released."""
        room = len(unknown)
        if self._options.max_streams is not None:
            room = max(0, self._options.max_streams - len(self.holdings))
        for start in range(0, room, PAGE):
            page = unknown[start : start + PAGE]
            adopted = await self._operations.adopt(page, self._patience())
            if adopted is None:
                self._liveness.lapse("missing")
            if adopted is None or not self._liveness.believed(epoch):
                return
            await self.receive(adopted)
        for start in range(room, len(unknown), PAGE):
            await self._operations.release(unknown[start : start + PAGE], self._patience())

    async def bury(self, entry: Delivered, reason: str) -> None:
        """Move a malformed announcement to the dead letters. If that fails, it stays pending for us, and
        the next audit tries again."""
        try:
            outcome = await self._operations.bury(entry.lbs_id, entry.deliveries, reason, self._patience())
        except (Unanswered, GroupMissing) as error:
            log.warning("could not bury %s yet: %s", entry.lbs_id, error, extra={"lbs_id": entry.lbs_id})
            return
        if outcome == "buried":
            self._counters.dead_letters += 1
            log.error(
                "malformed announcement %s moved to the dead letters: %s",
                entry.lbs_id,
                reason,
                extra={"lbs_id": entry.lbs_id, "consumer": self._options.consumer},
            )

    # Claiming.

    async def claim(self, payload: ExpiredStream) -> Lease:
        """Take over an orphan. See `RedisStreamClient.claim`."""
        self._liveness.check()
        if not self._liveness.held:
            raise self._not_joined(payload)
        if payload.lbs_id in self._claiming:
            raise self._already(payload, self._options.consumer, "another task of this client is claiming it")
        self._claiming.add(payload.lbs_id)
        task = self._spawn(self._claim_while_marked(payload))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise
        if task.cancelled():
            raise self._gone()
        return task.result()  # type: ignore[no-any-return]

    async def _claim_while_marked(self, payload: ExpiredStream) -> Lease:
        try:
            await asyncio.sleep(max(0.0, self._liveness.quiet_until - clock.now()))
            async with self.gate.passing():
                return await self._claim(payload)
        except (AlreadyClaimed, StreamGone):
            self._counters.claims_lost += 1
            self._inbox.withdraw(payload.lbs_id)
            raise
        finally:
            self._claiming.discard(payload.lbs_id)

    async def _claim(self, payload: ExpiredStream) -> Lease:
        epoch = self._liveness.epoch
        owner = owner_of(payload)
        sent = False
        give_up = clock.now() + self._options.lock_ttl
        backoff = self._backoff()
        while True:
            held = self._liveness.believed(epoch)
            if (not held and sent) or clock.now() >= give_up:
                raise self._unavailable(payload, "claim")
            if not held:
                raise self._not_joined(payload)
            try:
                reply = await self._operations.claim(payload.lbs_id, owner, self._patience())
            except Unanswered as error:
                if error.maybe_executed:
                    sent = True
                    self._request_audit()
                await asyncio.sleep(backoff.pause())
                continue
            except GroupMissing:
                self._liveness.lapse("missing")
                raise StreamGone(f"{payload.stream!r} is gone", **_about(payload)) from None
            if not self._liveness.believed(epoch):
                self._request_audit()
                raise self._not_joined(payload)
            match reply:
                case Won(deliveries):
                    return self._won(payload, deliveries)
                case Refusal("gone"):
                    raise StreamGone(f"{payload.stream!r} is gone", **_about(payload))
                case Refusal("alive", owner=current):
                    raise self._already(payload, current, "its owner lives")
                case Refusal("lapsed"):
                    self._liveness.lapse("missing")
                    raise self._not_joined(payload)
                case Refusal("owner", owner=current, deliveries=count):
                    if current == self._options.consumer:
                        return await self._mine_already(payload, count, epoch)
                    owner = current

    async def _mine_already(self, payload: ExpiredStream, count: int, epoch: int) -> Lease:
        """It is pending for us: our own claim whose reply was lost, or something the audit would adopt.

        Which of them cannot be told: with this count there may have been a lease that was lost. So it is adopted,
        under a fence of its own.
        """
        if self.holdings.get(payload.lbs_id) is not None:
            raise self._already(payload, self._options.consumer, "this client has it")
        try:
            adopted = await self._operations.adopt([(payload.lbs_id, count)], self._patience())
        except (Unanswered, GroupMissing):
            self._request_audit()
            raise self._unavailable(payload, "claim") from None
        if adopted is None or not self._liveness.believed(epoch):
            self._request_audit()
            raise self._not_joined(payload)
        if not adopted:
            raise StreamGone(f"{payload.stream!r} is gone", **_about(payload))
        return self._won(payload, adopted[0].deliveries)

    def _won(self, payload: ExpiredStream, deliveries: int) -> Lease:
        """A lease of what was offered: an announcement never changes."""
        announced = announcement.Announcement(payload.stream, payload.info)
        lease = Lease(self, payload.lbs_id, announced, deliveries)
        self._claimed(lease)
        return lease

    def _claimed(self, lease: Lease) -> None:
        """It is the caller's from now on: should it be lost before the caller wakes, an event says so."""
        lease._handed_out = True
        self._inbox.withdraw(lease.lbs_id)
        self.holdings.add(lease)
        self._counters.claims_won += 1

    def _give_back(self, task: "asyncio.Task[Lease]") -> None:
        """The caller of `claim` is gone: nobody would ever know of the lease."""
        if not task.cancelled() and task.exception() is None:
            lease = task.result()
            self._inbox.forget(lease)
            if self.holdings.holds(lease):
                with contextlib.suppress(ClientClosed):  # closing releases it, too
                    _forget_outcome(self._start_release(lease))

    async def take_malformed(self, entry: Delivered, owner: str, reason: str) -> None:
        """An orphan that cannot be offered, since it is malformed: claim it and bury it."""
        async with self.gate.passing():
            reply = await self._operations.claim(entry.lbs_id, owner, self._patience())
            if isinstance(reply, Won):
                await self.bury(Delivered(entry.lbs_id, reply.deliveries, reply.fields), reason)

    # Ending.

    async def finish(self, lease: Lease) -> None:
        """Acknowledge and delete. See `Lease.done`."""
        self._liveness.check()
        if not self.holdings.holds(lease):
            raise lease._not_owner(gone=lease._done_sent is not None)
        await self._doing.add(lease)

    async def _send_done(self, leases: list[Lease]) -> list[Exception | None]:
        async with self.gate.passing():
            try:
                results, repeated = await self._persist_done(leases)
            except Lapsed:
                return [self._done_lapsed(lease) for lease in leases]
            except GroupMissing:
                self._liveness.lapse("missing")
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
            mark = (self._liveness.epoch, self._greeter.history)
            for lease in first:
                lease._done_sent = mark
            try:
                return await self._operations.done([(le.lbs_id, le.deliveries) for le in leases], timeout)
            except Unanswered as error:
                if not error.maybe_executed:
                    for lease in first:
                        lease._done_sent = None
                raise

        results = await self._persist(attempt, lambda: any(map(self.holdings.holds, leases)))
        return results, repeated

    def _after_done(self, lease: Lease, result: str, again: bool) -> Exception | None:
        if lease._lost == "done":  # by a call at the same time
            return None
        mine_before = (
            result == "gone"
            and again
            and lease._done_sent is not None
            and lease._done_sent[1] is not None
            and lease._done_sent[1] == self._greeter.history
            and self._liveness.believed(lease._done_sent[0])
        )
        if result == "done" or mine_before:
            self.holdings.end(lease, "done")
            self._counters.streams_done += 1
            self._room_changed()
            return None
        self.lose([lease], "gone" if result == "gone" else "claimed")
        return lease._not_owner(gone=result == "gone", owner=result if result != "gone" else None)

    def _done_lapsed(self, lease: Lease) -> Exception | None:
        if lease._lost == "done":
            return None
        if lease._done_sent is not None or self.holdings.holds(lease):
            return self._unavailable(lease, "done")
        return lease._not_owner()

    async def release(self, lease: Lease) -> None:
        """Hand to the peers. See `Lease.release`."""
        self._liveness.check()
        if not self.holdings.holds(lease):
            raise lease._not_owner()
        await self._start_release(lease)

    def _start_release(self, lease: Lease) -> "asyncio.Future[None]":
        """Not ours from this moment on. This client is offered the stream too, but later than its peers."""
        self.holdings.part(lease)
        self._room_changed()
        orphan = ExpiredStream(lease.stream, lease.lbs_id, lease.info, None, lease.deliveries)
        self._inbox.hold_back(orphan, clock.now() + self._options.lock_ttl)
        return self._releasing.add(lease)

    async def _send_release(self, leases: list[Lease]) -> list[Exception | None]:
        try:
            return await self._release_behind_gate(leases)
        finally:
            for lease in leases:
                self.holdings.parted(lease)

    async def _release_behind_gate(self, leases: list[Lease]) -> list[Exception | None]:
        entries = [(lease.lbs_id, lease.deliveries) for lease in leases]
        async with self.gate.passing():
            try:
                results = await self._persist(
                    lambda timeout: self._operations.release(entries, timeout), lambda: True
                )
            except Lapsed:
                return [self._unavailable(lease, "release") for lease in leases]
            except GroupMissing:
                self._liveness.lapse("missing")
                results = ["gone"] * len(leases)
        failures: list[Exception | None] = []
        for lease, result in zip(leases, results, strict=True):
            if result == "released":
                self._counters.streams_released += 1
                failures.append(None)
            else:
                failures.append(lease._not_owner(owner=None if result == "gone" else result))
        return failures

    # Losing.

    def lose(self, leases: Iterable[Lease], reason: LossReason) -> None:
        """Leases that were lost, as the table or Redis says."""
        lost = [lease for lease in leases if self.holdings.holds(lease)]
        for lease in lost:
            self.holdings.lose(lease, reason)
        self._counters.streams_disowned += len(lost)
        for lease in lost[:LOGGED]:
            log.warning("lost %s: %s", lease.stream, reason, extra=lease._log_fields())
        if len(lost) > LOGGED:
            log.warning("lost %d streams more: %s", len(lost) - LOGGED, reason)
        if lost:
            self._room_changed()

    def lose_to(self, owners: Iterable[tuple[Lease, str]]) -> None:
        """Leases that are not ours any more, with who owns the stream now; '' for one that is gone."""
        moved = list(owners)
        self.lose([lease for lease, owner in moved if owner], "claimed")
        self.lose([lease for lease, owner in moved if not owner], "gone")

    # Persistence.

    async def _persist(self, attempt: Callable[[float], Awaitable[T]], wanted: Callable[[], bool]) -> T:
        """Repeat until Redis answers, for one lifetime of the lock, as long as the lock is held, or comes back
        and `wanted` still holds."""
        give_up = clock.now() + self._options.lock_ttl
        backoff = self._backoff()
        maybe_executed = False
        while True:
            self._liveness.check()
            if self._liveness.state is State.SUSPECT:
                await asyncio.sleep(self._options.heartbeat_interval / 20)
                continue
            if self._liveness.state is not State.HELD or not wanted() or clock.now() >= give_up:
                raise Lapsed(maybe_executed)
            try:
                return await attempt(self._patience())
            except Unanswered as error:
                if error.maybe_executed:
                    maybe_executed = True
                    self._request_audit()
                await asyncio.sleep(backoff.pause())

    def _patience(self) -> float:
        """Seconds until an unanswered request is given up, and its connection with it."""
        return self._options.lock_ttl / 2

    def _backoff(self) -> Backoff:
        return Backoff(0.005, self._options.heartbeat_interval / 2)

    # Errors.

    def _not_joined(self, payload: ExpiredStream) -> NotJoined:
        return NotJoined(
            "this client's own lock is not held",
            hint="rejoining is under way; claim again",
            **_about(payload),
        )

    def _already(self, payload: ExpiredStream, owner: str, why: str) -> AlreadyClaimed:
        return AlreadyClaimed(f"{payload.stream!r} is owned by {owner}: {why}", owner=owner, **_about(payload))

    def _unavailable(self, what: "Lease | ExpiredStream", operation: str) -> RedisUnavailable:
        return RedisUnavailable(
            f"no answer to {operation!r} for {what.stream!r} within the lifetime of the consumer lock",
            hint="the outcome is unknown; repeating is safe",
            **_about(what),
        )


def _about(what: Lease | ExpiredStream) -> dict[str, str]:
    return {"stream": what.stream, "lbs_id": what.lbs_id}


def _forget_outcome(outcome: "asyncio.Future[None]") -> None:
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
