"""``lease.entries()`` and ``lease.batches()``: they follow the data stream of a lease."""

import asyncio
import contextlib
from collections import deque
from typing import Generic, Literal, TypeVar

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._leases.backend import Asking, LeaseBackend, Source
from redis_stream_client._leases.idle_time import IdleTime
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.errors import EntriesTrimmed, RedisRejected, RedisUnavailable
from redis_stream_client._model.gaps import Gap

IN_DOUBT = 0.01
LONG_IN_DOUBT = 0.2
"""Seconds between two checks whether a lock in doubt is held again: at first, and after a while. A doubt that
lasts may concern thousands of leases."""

RETRY = 0.2
"""Seconds before the next attempt to read a progress record, when Redis did not answer."""

OnGap = Literal["warn", "raise"]

Step = TypeVar("Step")


class Follower(Generic[Step]):
    """Follows the data stream of one lease, from the first entry after its checkpoint. Ends by itself only with
    `idle`, when the stream was put to sleep.

    Args:
        lease: the lease.
        backend: who it belongs to.
        on_gap: what to do about entries that are missing.
        idle: seconds without anything to do after which to put the stream to sleep; None: never.
        method: what users call to get one of these, for its errors.
        most: how many entries one step hands out at the most.
    """

    def __init__(
        self,
        lease: LeaseState,
        backend: LeaseBackend,
        on_gap: OnGap,
        idle: float | None,
        method: str,
        most: int = 1,
    ) -> None:
        self._lease = lease
        self._backend = backend
        self._on_gap = on_gap
        self._method = method
        self._most = most
        self._idle = IdleTime(idle) if idle is not None else None
        self._source: Source | None = None
        observation = backend.observation
        self._observation = observation if observation is not None and observation.follows_steps else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = forks.here()
        self._arrived: deque[Entry | Gap] = deque()
        self._first_at = self._last_at = 0.0  # when the oldest of what has arrived did, and the newest
        self._busy = False
        self._added: int | None = None
        self._last: str | None = None

    async def _next(self) -> Step:
        """One step, however long it takes."""
        if self._busy:
            raise RuntimeError(
                f"another task waits for the next step of these {self._method}; call {self._method} once for each"
            )
        self._busy = True
        lease, idle = self._lease, self._idle
        pause = IN_DOUBT
        try:
            if self._observation is not None:
                self._observation.asked(lease)
            while True:
                if idle is not None and (idle.over or idle.trying):
                    await self._fall_asleep(idle)
                elif lease.lost is None and not self._backend.held:
                    await self._wait_in_doubt(pause)
                    pause = min(2 * pause, LONG_IN_DOUBT)
                elif lease.lost is not None or lease.drained:
                    await self._end()
                elif self._source is not None and self._source.stale:
                    await self._start_again(self._source)
                elif (step := self._step()) is not None:
                    if self._observation is not None:
                        self._observation.received(lease, self._entries_of(step))
                    return step
                elif idle is not None and self._may_sleep(idle):
                    idle.trying = True
                else:
                    await self._fetch()
                    pause = IN_DOUBT
        finally:
            self._busy = False

    def _step(self) -> Step | None:
        """Hand out what has arrived. None: not yet."""
        raise NotImplementedError

    def _entries_of(self, step: Step) -> list[Entry]:
        """What a step hands out."""
        raise NotImplementedError

    def _due(self) -> float | None:
        """When to hand out what has arrived, though more may come. None: nothing has."""
        return None

    def _take_in(self) -> None:
        """Take what has come from the source, as far as this step needs it."""
        while len(self._arrived) < self._most and self._source is not None and self._source.ready:
            self._last_at = clock.now()
            if not self._arrived:
                self._first_at = self._last_at
            self._arrived += self._source.take()

    async def _wait_in_doubt(self, pause: float) -> None:
        """Wait `pause` seconds: a peer may have the stream, and begin with the very entry that would come next.

        In doubt Redis answers within a round trip, or the network is broken. So the wait is short, or there is
        nothing to miss: no checkpoint would be answered either.
        """
        if self._idle is not None:  # nothing could come
            self._idle.restart()
        with Asking(self._lease, self._backend):
            await asyncio.sleep(pause)

    def _may_sleep(self, idle: IdleTime) -> bool:
        """Whether to try to put the stream to sleep now. Asks nobody."""
        if not idle.passed or self._source is None or self._arrived:
            return False
        if not self._source.caught_up:
            idle.look_again()
            return False
        return True

    async def _fall_asleep(self, idle: IdleTime) -> None:
        """Try to put the stream to sleep, and end the loop if it was. A step that was cancelled meanwhile goes on
        here."""
        lease = self._lease
        asleep = idle.over or lease.lost == "done"
        try:
            if lease.lost is None:
                with Asking(lease, self._backend):
                    asleep = await self._backend.put_to_sleep(lease)
        except RedisUnavailable:
            if lease.lost is not None:
                raise
        except RedisRejected:
            idle.answered(asleep=False)
            raise
        idle.answered(asleep=asleep)
        if asleep:
            raise StopAsyncIteration

    async def _end(self) -> None:
        """End the loop: the lease was lost, or drains."""
        lease = self._lease
        if lease.lost is None and lease.cancel_scope is not None:
            if lease.cancel_scope.fired_here:  # somebody took the cancellation for another one
                raise asyncio.CancelledError
            lease.cancel("draining")
            await lease.wait_for_the_end()
        await asyncio.sleep(0)  # a cancellation that is on its way arrives here
        raise lease.not_owner()

    def _hand_over(self, entry: Entry) -> None:
        """An entry goes to the user."""
        if self._added is not None:
            self._added += 1
        self._lease.hand_over(entry.id, self._last, self._added)
        self._last = entry.id

    def _skip(self, gap: Gap) -> None:
        lease = self._lease
        if self._added is not None:
            self._added += gap.entries
        if lease.skip(gap):
            self._backend.log.warning(
                "%d entries of %s after %s%s were trimmed or deleted before they were read",
                gap.entries,
                lease.stream,
                gap.after,
                f" and before {gap.before}" if gap.before is not None else "",
                about=lease,
            )
            self._backend.skipped(gap.entries)
        if self._on_gap == "raise":
            raise EntriesTrimmed(
                f"{gap.entries} entries of {lease.stream!r} were trimmed or deleted before they were read: "
                f"they came after {gap.after}",
                gap=gap,
                stream=lease.stream,
                lbs_id=lease.lbs_id,
                hint=f"the next step of these {self._method} goes on behind the gap",
            )

    async def _fetch(self) -> None:
        """Wait until more entries arrive, until it is time to hand out those that have, or for the end of the
        lease."""
        lease = self._lease
        if self._source is None:
            if not lease.begun:
                await self._begin()
            self._added = lease.start_reading()
            self._source = lease.reading = self._backend.plane.follow(lease)
            self._source.careful = self._on_gap == "raise"
            self._loop = asyncio.get_running_loop()
            return  # meanwhile it may have been drained
        due, started = self._due(), clock.now()
        idle = self._idle if due is None else None
        waiter = lease.start_waiting(collecting=due is not None)
        timer: asyncio.TimerHandle | None = None
        if due is not None:
            timer = waiter.get_loop().call_later(max(0.0, due - started), _wake, waiter)
        elif idle is not None:
            timer = waiter.get_loop().call_later(idle.start(lease.handed_over), _wake, waiter)
        try:
            self._source.want(waiter)
            await waiter
        except RedisRejected as refused:
            lease.refused = refused
            raise
        finally:
            lease.stop_waiting(waiter, collecting=due is not None)
            if timer is not None:
                timer.cancel()
            if idle is not None:
                idle.stop(clock.now() - started)

    async def _begin(self) -> None:
        """Ask Redis for the checkpoint."""
        with Asking(self._lease, self._backend):
            await self._backend.plane.begin(self._lease)

    async def _start_again(self, source: Source) -> None:
        """Read the checkpoint again, and start after it: the server may have lost writes, even entries we have
        read."""
        source.close()
        self._arrived.clear()
        try:
            await self._begin()
        except RedisUnavailable:
            if self._lease.lost is not None:
                raise
            await asyncio.sleep(RETRY)
            return
        self._source = self._lease.reading = None

    def __del__(self) -> None:
        """Called by the garbage collector, so perhaps from another thread."""
        if self._source is not None and self._loop is not None and self._process == forks.here():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._source.close)


class Entries(Follower[Entry]):
    """The entries of a data stream, one at each step."""

    def __init__(
        self, lease: LeaseState, backend: LeaseBackend, on_gap: OnGap = "warn", idle: float | None = None
    ) -> None:
        super().__init__(lease, backend, on_gap, idle, "entries()")

    def __aiter__(self) -> "Entries":
        return self

    async def __anext__(self) -> Entry:
        return await self._next()

    def _step(self) -> Entry | None:
        self._take_in()
        while self._arrived:
            item = self._arrived.popleft()
            if isinstance(item, Gap):
                self._skip(item)
            else:
                self._hand_over(item)
                return item
        return None

    def _entries_of(self, step: Entry) -> list[Entry]:
        return [step]


class Batches(Follower[list[Entry]]):
    """The entries of a data stream, as many at each step as have arrived.

    Args:
        lease: the lease.
        backend: who it belongs to.
        on_gap: what to do about entries that are missing.
        most: how many entries a batch has at the most.
        within: seconds that its first entry waits for others after it has arrived.
        idle: see `Follower`.
    """

    def __init__(
        self,
        lease: LeaseState,
        backend: LeaseBackend,
        most: int,
        within: float,
        on_gap: OnGap = "warn",
        idle: float | None = None,
    ) -> None:
        super().__init__(lease, backend, on_gap, idle, "batches()", most)
        self._within = within

    def __aiter__(self) -> "Batches":
        return self

    async def __anext__(self) -> list[Entry]:
        return await self._next()

    def _due(self) -> float | None:
        return self._first_at + self._within if self._arrived else None

    def _step(self) -> list[Entry] | None:
        """A batch that is full, or due. Nothing is handed out before: a step that is cancelled loses nothing."""
        self._take_in()
        while self._arrived and isinstance(gap := self._arrived[0], Gap):
            self._arrived.popleft()
            self._skip(gap)
        due = self._due()
        if due is None or (len(self._arrived) < self._most and clock.now() < due):
            return None
        batch: list[Entry] = []
        while self._arrived and len(batch) < self._most:
            item = self._arrived[0]
            if isinstance(item, Entry):
                self._hand_over(item)
                batch.append(item)
            elif self._on_gap == "raise":  # the next step says so
                break
            else:
                self._skip(item)
            self._arrived.popleft()
        self._lease.hand_over_batch(batch[-1].id)
        self._first_at = self._last_at  # of what is left: only the last to arrive can be more than one batch takes
        return batch

    def _entries_of(self, step: list[Entry]) -> list[Entry]:
        return step


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
