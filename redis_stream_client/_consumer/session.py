"""The session: the tasks of one member, from joining to leaving, and their supervisor."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.chunks import CHUNK, in_chunks
from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._consumer.balancer import Balancer
from redis_stream_client._consumer.connections import Connections
from redis_stream_client._consumer.heartbeat import Heartbeat
from redis_stream_client._consumer.listener import Listener
from redis_stream_client._consumer.presence import Presence
from redis_stream_client._consumer.reader import Reader
from redis_stream_client._consumer.sweeper import Sweeper
from redis_stream_client._consumer.watcher import Watcher
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import leaving
from redis_stream_client._model.errors import (
    ClientClosed,
    RedisRejected,
    RedisUnavailable,
)
from redis_stream_client._model.failures import describe
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import Membership, Observer
from redis_stream_client._model.options import Options
from redis_stream_client._protocol.lock import Lock
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered, origin
from redis_stream_client._redis.outage import Outages
from redis_stream_client._streams.fetcher import Fetcher
from redis_stream_client._streams.record_store import RecordStore
from redis_stream_client._streams.retention import Retention


class Session:
    """Starts, supervises and ends the tasks of one joined client.

    The supervisor is a task of its own. So there is no task group around the user's code, the user's task only
    waits, and another task than the one that joined may leave.
    """

    def __init__(
        self,
        *,
        log: Log,
        outages: Outages,
        options: Options,
        home: Home,
        tasks: OwnedTasks[ClientClosed],
        connections: Connections,
        lock: Lock,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        record_store: RecordStore,
        retention: Retention,
        fetcher: Fetcher,
        heartbeat: Heartbeat,
        reader: Reader,
        listener: Listener,
        sweeper: Sweeper,
        balancer: Balancer,
        presence: Presence,
        watcher: Watcher,
        observer: Observer | None,
        membership: Membership | None,
    ) -> None:
        self._log = log
        self._outages = outages
        self._options = options
        self._service = options.keys.service
        self._home = home
        self._tasks = tasks
        self._connections = connections
        self._lock = lock
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._record_store = record_store
        self._retention = retention
        self._fetcher = fetcher
        self._listener = listener
        self._parts = (heartbeat, presence, reader, listener, watcher, sweeper, balancer)
        self._supervisor: asyncio.Task[None] | None = None
        self._observer = observer
        self._membership = membership
        self._joined = False
        self.leave_by = float("inf")  # when the end must be over: see `leave_within`
        self.closed = asyncio.Event()
        forks.watch(self)

    # Joining.

    def start(self) -> "asyncio.Future[None]":
        """Start the supervisor. The future is resolved when the session is ready, and fails if it cannot join."""
        self._give_up = clock.now() + self._options.connect_timeout
        ready: asyncio.Future[None] = self._home.loop.create_future()
        self._supervisor = start_task(self._supervise(ready), "redis_stream_client supervisor")
        return ready

    async def _supervise(self, ready: "asyncio.Future[None]") -> None:
        tasks: list[asyncio.Task[Any]] = []
        leave = start_task(self._tasks.ending.wait(), "redis_stream_client leaving")
        try:
            join = self._tasks.spawn(self._join())
            await asyncio.wait((join, leave), return_when=asyncio.FIRST_COMPLETED)
            if not leave.done():
                join.result()
                tasks = [
                    start_task(part.run(), f"redis_stream_client {type(part).__name__.lower()}")
                    for part in self._parts
                ]
                subscribed = start_task(self._subscribed(), "redis_stream_client subscribing")
                tasks.append(subscribed)
                watched: set[asyncio.Future[Any]] = {*tasks, leave}
                while not leave.done():
                    done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                    for task in done - {leave}:
                        task.result()  # a task that has ended has failed, except this one:
                    if subscribed in done:
                        watched.discard(subscribed)
                        _resolve(ready, None)
        except asyncio.CancelledError:  # the loop is shutting down
            pass
        except BaseException as error:  # noqa: BLE001 - any error goes to the user
            self._tasks.failure = error
            self._log.error(
                "this client cannot go on, and closes: %s; its streams go to peers",
                describe(error),
                extra={"error": describe(error)},
            )
        finally:
            leave.cancel()
            await self._shut_down(tasks)
            _resolve(ready, self._tasks.failure or ClientClosed("the client was closed while it joined"))

    async def _subscribed(self) -> None:
        """Wait for the first attempt to subscribe, within `connect_timeout`. Recovery does not depend on it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._give_up - clock.now())):
                await self._listener.tried_to_subscribe()

    async def _join(self) -> None:
        """Take the lock within `connect_timeout`, or give up."""
        give_up = self._give_up
        backoff = Backoff(0.02, 0.5)
        last: Exception = Unanswered(f"no answer from {self._connections.where} in time", maybe_executed=False)
        while True:
            remaining = give_up - clock.now()
            try:
                if remaining <= 0:
                    raise last
                sent = clock.now()
                # Not `patience`: on a slow line no time is left to learn how slow it is.
                patience = max(1.0, self._options.longest_patience)
                await self._lock.join(min(remaining, patience))
                remaining = max(0.01, give_up - clock.now())
                await self._lock.probe(min(remaining, patience))
                if self._lock_state.held_since(sent):
                    self._table.history = self._connections.history
                    break
            except (Unanswered, GroupMissing) as error:
                pause, last = backoff.pause(), error
                if clock.now() + pause >= give_up:
                    raise RedisUnavailable(
                        f"could not join {self._service!r} within {self._options.connect_timeout:g} s: {error}",
                        hint="connect_timeout says how long joining keeps trying",
                    ) from origin(error)
                await asyncio.sleep(pause)
        self._joined = True
        if self._observer is not None and self._membership is not None:
            self._observer.joined(self._membership)
        self._log.info("joined %s as %s", self._service, self._options.consumer)

    # Leaving.

    @property
    def leaving(self) -> bool:
        """Whether the end has begun."""
        return self._tasks.ended

    def leave_within(self, seconds: float) -> None:
        """Have the session end within `seconds` from now, even if leaving begins later."""
        self.leave_by = clock.now() + seconds

    def leave(self) -> None:
        """Ask the supervisor to hand over all streams and to end. Returns at once, and may be called
        repeatedly."""
        self._tasks.end()
        self._event_queue.end()

    def inherited(self) -> None:
        """Called on the copy in a forked child: it holds nothing. The original goes on in the parent."""
        self._lock_state.close()
        self._listener.inherited()

    def abandon(self) -> None:
        """End, because the user has dropped the client. Called by the garbage collector, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the lock expires by itself
            self._home.loop.call_soon_threadsafe(self.leave)

    async def _shut_down(self, tasks: list[asyncio.Task[Any]]) -> None:
        """End all leases, give up the lock, and stop, even if cancelled.

        The lock goes first, within `leaving.GRACE`, however many leases there are. The leases end at the same
        time, in chunks.
        """
        self._tasks.end()
        self._lock_state.close()
        held = list(self._table)
        everything = [*tasks, *self._tasks.running]
        for task in everything:
            task.cancel()
        self._connections.stop_reading()
        failure = await _whatever_happens(lambda: self._farewell(everything, held))
        failure = await _whatever_happens(self._close_connections) or failure
        failure = await _whatever_happens(lambda: self._lose(held)) or failure
        self._tasks.failure = self._tasks.failure or failure
        self._event_queue.end()
        self._outages.close()
        self.closed.set()
        if self._joined and self._observer is not None and self._membership is not None:
            self._observer.left(self._membership)
        self._membership = None  # it refers to the client, which refers to this
        if self._joined:
            self._log.info("left %s", self._service)

    async def _farewell(self, tasks: list[asyncio.Task[Any]], held: list[LeaseState]) -> None:
        """Do all that needs Redis at the same time, on two connections. Leases that have begun end cleanly."""
        grace = max(0.1, min(leaving.FAREWELL, self.leave_by - clock.now()))
        lock = start_task(self._give_up_lock(), "redis_stream_client farewell: lock")  # written before all else
        settling = start_task(self._settle(held), "redis_stream_client farewell: records")
        losing = start_task(self._lose(held), "redis_stream_client farewell: leases")
        try:
            await asyncio.wait((lock, settling, *tasks), timeout=grace)
            if not lock.done():  # the answer may have arrived, and only we are late
                await asyncio.wait((lock,), timeout=0.01)
            self._say_what_is_left(lock, settling)
        finally:
            for task in (lock, settling, losing):
                task.cancel()
        for task in (lock, settling):
            if task.done() and not task.cancelled():
                task.result()

    def _say_what_is_left(self, lock: asyncio.Task[Exception | None], settling: asyncio.Task[None]) -> None:
        if not lock.done():
            self._log.warning(
                "Redis did not answer while leaving: the lock expires by itself, and peers take over then"
            )
        elif not lock.cancelled() and lock.exception() is None and (failure := lock.result()) is not None:
            self._log.warning(
                "could not give up the lock while leaving: it expires by itself, and peers take over then (%s)",
                failure,
                extra={"error": str(failure)},
            )
        elif not settling.done():
            left = self._retention.left
            if self._record_store.unsettled > left:
                self._log.warning(
                    "could not update all progress records while leaving: some streams count this owner as dead",
                )
            if left:
                self._log.warning(
                    "streams that are done, and could not be trimmed or deleted while leaving: %d",
                    left,
                )

    async def _settle(self, held: list[LeaseState]) -> None:
        for leases in in_chunks(held, 10 * CHUNK):
            await self._record_store.settle_at_last(leases)
        await self._record_store.settle_at_last(())
        await self._retention.last()

    async def _lose(self, held: list[LeaseState]) -> None:
        """End the leases, and tell their holders."""
        for leases in in_chunks(held):
            for lease in leases:
                self._table.lose(lease, "closed")
            await asyncio.sleep(0)
        self._table.lose_all("closed")

    async def _close_connections(self) -> None:
        for part in (self._connections, self._record_store, self._fetcher):
            await part.close()

    async def _give_up_lock(self) -> Exception | None:
        """Give up the lock, on the open connection or on a new one. If there never was a connection, there is no
        lock.

        Returns None if the lock is gone, otherwise the last error.
        """
        if not self._connections.ever_connected:
            return None
        failure: Exception | None = None
        for _ in range(3):
            try:
                await self._lock.leave(leaving.UNANSWERED)
                return None
            except (Unanswered, GroupMissing, RedisRejected) as error:
                self._log.debug("leaving: %s", error)
                failure = error
                await asyncio.sleep(0.01)
        return failure


async def _whatever_happens(work: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Do the work to its end, even if the loop shuts down and cancels all tasks.

    Returns the error that it raised.
    """
    for _ in range(3):
        task = start_task(work(), "redis_stream_client farewell")
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled():
            return task.exception()
    return None


def _resolve(ready: "asyncio.Future[None]", failure: BaseException | None) -> None:
    if ready.done():
        return
    if failure is None:
        ready.set_result(None)
    else:
        ready.set_exception(failure)
        ready.exception()  # marks it as retrieved, since nobody may wait for it
