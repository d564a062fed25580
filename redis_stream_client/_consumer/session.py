"""One membership of the fleet, from joining to leaving: the tasks, and the supervisor that owns all I/O."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.chunks import CHUNK, in_chunks
from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._consumer.audit import Auditor
from redis_stream_client._consumer.heartbeat import Heartbeat, LockRenewal
from redis_stream_client._consumer.listener import Listener
from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.reader import Reader
from redis_stream_client._consumer.sweeper import Sweeper
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lease import LEAVING_GRACE
from redis_stream_client._leases.lock_state import LapseCause, LockState
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import (
    ClientClosed,
    RedisRejected,
    RedisStreamClientError,
    RedisUnavailable,
)
from redis_stream_client._model.failures import describe
from redis_stream_client._model.health import Health, judge
from redis_stream_client._model.logs import log
from redis_stream_client._model.options import MAX_OFFER_PAUSE, Options
from redis_stream_client._model.statistics import Counters, Statistics
from redis_stream_client._ownership.audit_schedule import PERIOD, AuditSchedule
from redis_stream_client._ownership.checkpoints import Progress
from redis_stream_client._ownership.claims import Claims
from redis_stream_client._ownership.redis_backend import Ownership
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.operations import Operations
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered, origin
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.placement import Placement
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams.fetcher import Fetcher
from redis_stream_client._streams.record_store import RecordStore

FORKED = (
    "this client joined in process {process}, before the fork: its connections, its lock "
    "and its streams are that process's; make a new RedisStreamClient in this one"
)

OTHER_LOOP = (
    "this client joined on another event loop: use it there (asyncio.run_coroutine_threadsafe() does "
    "that from another thread), or make a new RedisStreamClient for this one"
)


class Session:
    """Everything that lives while a client is joined.

    The supervisor is a task of its own: no task group stands around the user's code, a user's task only ever
    waits for I/O, and a session may be left from another task than the one that joined.
    """

    def __init__(self, options: Options, where: Endpoint, where_streams_are: Placement) -> None:
        self.options = options
        self._endpoint = where
        self.home = Home(forked=FORKED, other_loop=OTHER_LOOP)
        self.tasks = OwnedTasks(self.home, closed=_closed, expected=_expected)
        self.counters = counters = Counters()
        self.identity = identity = ServerIdentity(self._another_history, clustered=where.clustered)
        self._beats, self._commands, self._reads = (
            SharedConnection(
                where,
                greet=identity,
                on_loss=self._connection_lost,
                longest_attempt=options.connect_timeout,
                role=role,
            )
            for role in ("beats", "commands", "reads")
        )
        self.operations = operations = Operations(options, self._beats, self._commands, self._reads)
        who = {"consumer": options.consumer}
        outage = OutageLog(lambda: f"Redis ({where.where})", who)

        # What is believed, and what the parts tell each other.
        self.lock_state = lock_state = LockState(options.lock_ttl, options.heartbeat_interval, self._lapsed)
        self.event_queue = event_queue = EventQueue(options.lock_ttl, MAX_OFFER_PAUSE)
        self.table = table = LeaseTable(event_queue)
        self.capacity = Capacity(
            table, event_queue, max_streams=options.max_streams, prefetch=options.prefetch, at_once=PAGE
        )
        self._audits = AuditSchedule(PERIOD * options.lock_ttl, late=options.block + 1.0)
        self._peers = Peers()
        self._oldest_announcement = OldestAnnouncement()
        audit_lock = SharedLock()

        # Every change of owner.
        self._record_store = RecordStore(
            options.keys,
            options.consumer,
            where_streams_are,
            self.tasks.spawn,
            self.tasks.gone,
            options.patience,
            self._greeting,
        )
        self._fetcher = Fetcher(
            where_streams_are,
            options.lock_ttl,
            self.tasks.spawn,
            self.tasks.gone,
            lock=options.keys.lock(options.consumer),
            renewed=self._met,
        )
        self.ownership = Ownership(
            options=options,
            operations=operations,
            identity=identity,
            lock_state=lock_state,
            event_queue=event_queue,
            table=table,
            audit_lock=audit_lock,
            audits=self._audits,
            capacity=self.capacity,
            home=self.home,
            tasks=self.tasks,
            counters=counters,
            record_store=self._record_store,
        )
        self.ownership.plane = self.progress = Progress(
            options=options,
            operations=operations,
            lock_state=lock_state,
            table=table,
            audit_lock=audit_lock,
            tasks=self.tasks,
            ownership=self.ownership,
            record_store=self._record_store,
            fetcher=self._fetcher,
        )
        self.claims = Claims(
            options=options,
            operations=operations,
            lock_state=lock_state,
            event_queue=event_queue,
            table=table,
            audit_lock=audit_lock,
            audits=self._audits,
            capacity=self.capacity,
            tasks=self.tasks,
            counters=counters,
            ownership=self.ownership,
        )

        # The tasks.
        auditor = Auditor(
            options=options,
            operations=operations,
            identity=identity,
            lock_state=lock_state,
            table=table,
            audit_lock=audit_lock,
            audits=self._audits,
            oldest_announcement=self._oldest_announcement,
            counters=counters,
            ownership=self.ownership,
        )
        renewal = LockRenewal(
            operations=operations,
            lock_state=lock_state,
            outage=outage,
            counters=counters,
            interval=options.heartbeat_interval,
        )
        self._heartbeat = Heartbeat(
            options=options,
            operations=operations,
            renewal=renewal,
            lock_state=lock_state,
            table=table,
            outage=outage,
            ownership=self.ownership,
            on_held=self._held_again,
        )
        self._reader = Reader(
            options=options,
            operations=operations,
            lock_state=lock_state,
            capacity=self.capacity,
            audits=self._audits,
            auditor=auditor,
            peers=self._peers,
            oldest_announcement=self._oldest_announcement,
            counters=counters,
            ownership=self.ownership,
        )
        self.sweeper = Sweeper(
            options=options,
            operations=operations,
            renewal=renewal,
            lock_state=lock_state,
            event_queue=event_queue,
            table=table,
            capacity=self.capacity,
            peers=self._peers,
            counters=counters,
            claims=self.claims,
        )
        ears = OutageLog(lambda: f"the subscription at {where.where}", who, within=outage, failures=5)
        self._listener = Listener(options, where, identity, operations.keyspace_events, self, ears)
        forks.watch(self)
        self.leave_by = float("inf")  # when the end is to be over, should it have begun before leaving
        self._supervisor: asyncio.Task[None] | None = None
        self._joined = False
        self.closed = asyncio.Event()

    # Joining.

    def start(self) -> "asyncio.Future[None]":
        """Start the supervisor. The future says when the session is ready, or why it cannot be."""
        self._give_up = clock.now() + self.options.connect_timeout
        ready: asyncio.Future[None] = self.home.loop.create_future()
        self._supervisor = start_task(self._supervise(ready), "redis_stream_client supervisor")
        return ready

    async def _supervise(self, ready: "asyncio.Future[None]") -> None:
        tasks: list[asyncio.Task[Any]] = []
        leave = start_task(self.tasks.ending.wait(), "redis_stream_client leaving")
        try:
            join = self.tasks.spawn(self._join())
            await asyncio.wait((join, leave), return_when=asyncio.FIRST_COMPLETED)
            if not leave.done():
                join.result()
                tasks = [
                    start_task(part.run(), f"redis_stream_client {type(part).__name__.lower()}")
                    for part in (self._heartbeat, self._reader, self._listener, self.sweeper)
                ]
                subscribed = start_task(self._subscribed(), "redis_stream_client subscribing")
                tasks.append(subscribed)
                watched: set[asyncio.Future[Any]] = {*tasks, leave}
                while not leave.done():
                    done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                    for task in done - {leave}:
                        task.result()  # a task that ends at all has failed, but for this one:
                    if subscribed in done:
                        watched.discard(subscribed)
                        _resolve(ready, None)
        except asyncio.CancelledError:  # the loop is shutting down
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the user is told
            self.tasks.failure = error
            log.error("closing: %s", describe(error), extra={"consumer": self.options.consumer})
        finally:
            leave.cancel()
            await self._shut_down(tasks)
            _resolve(ready, self.failure or ClientClosed("the client was closed while it joined"))

    async def _subscribed(self) -> None:
        """Wait for the first try to subscribe, as long as joining may take: recovery does not depend on it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._give_up - clock.now())):
                await self._listener.first_try.wait()

    async def _join(self) -> None:
        """Take the lock; within `connect_timeout`, or give up."""
        give_up = self._give_up
        backoff = Backoff(0.02, 0.5)
        last: Exception = Unanswered(f"no answer from {self._endpoint.where} in time", maybe_executed=False)
        while True:
            remaining = give_up - clock.now()
            try:
                if remaining <= 0:
                    raise last
                sent = clock.now()
                await self.operations.lock.join(min(remaining, max(1.0, self.options.lock_ttl / 2)))
                remaining = max(0.01, give_up - clock.now())
                await self.operations.lock.probe(min(remaining, max(1.0, self.options.lock_ttl / 2)))
                if self.lock_state.held_since(sent):
                    self.table.history = self.identity.history
                    break
            except (Unanswered, GroupMissing) as error:
                pause, last = backoff.pause(), error
                if clock.now() + pause >= give_up:
                    raise RedisUnavailable(
                        f"could not join {self.options.keys.service!r} within "
                        f"{self.options.connect_timeout:g} s: {error}",
                        hint="connect_timeout says how long joining keeps trying",
                    ) from origin(error)
                await asyncio.sleep(pause)
        self._joined = True
        log.info("joined %s", self.options.keys.service, extra={"consumer": self.options.consumer})

    # Leaving.

    @property
    def leaving(self) -> bool:
        """Whether the end has begun."""
        return self.tasks.ended

    def leave(self) -> None:
        """Ask the supervisor to hand everything over and end. Idempotent, and returns at once."""
        self.tasks.end()
        self.event_queue.end()

    # Where it is at home.

    @property
    def in_this_process(self) -> bool:
        """Whether this is no copy of it in a forked child."""
        return self.home.in_this_process

    def inherited(self) -> None:
        """This is a copy in a forked child: nothing is believed here. The original goes on in the parent."""
        self.lock_state.close()

    def require_here(self) -> None:
        """Raise ``RuntimeError`` in a forked child, and on another event loop than the one it joined on."""
        self.home.require_here()

    def abandon(self) -> None:
        """Nobody holds the client any more. Called by the garbage collector, so from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the lock expires by itself
            self.home.loop.call_soon_threadsafe(self.leave)

    async def _shut_down(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Believe nothing, give up the lock, and stop, cancelled or not.

        The lock goes first, within `LEAVING_GRACE` however many leases there are. These end beside it, in pieces.
        """
        self.tasks.end()
        self.lock_state.close()
        held = list(self.table)
        everything = [*tasks, *self.tasks.running]
        for task in everything:
            task.cancel()
        self._reads.drop(Unanswered("closing", maybe_executed=True))  # nothing more is delivered to us
        failure = await _whatever_happens(lambda: self._farewell(everything, held))
        failure = await _whatever_happens(self._close_links) or failure
        failure = await _whatever_happens(lambda: self._lose(held)) or failure
        self.tasks.failure = self.tasks.failure or failure
        self.event_queue.end()
        self.closed.set()
        if self._joined:
            log.info("left %s", self.options.keys.service, extra={"consumer": self.options.consumer})

    async def _farewell(self, tasks: list[asyncio.Task[Any]], held: list[LeaseState]) -> None:
        """Everything that needs Redis, side by side, on two connections; what has begun ends in good order."""
        grace = max(0.1, min(LEAVING_GRACE * 0.9, self.leave_by - clock.now()))
        lock = start_task(self._give_up_lock(), "redis_stream_client farewell: lock")  # written before all else
        settling = start_task(self._settle(held), "redis_stream_client farewell: records")
        losing = start_task(self._lose(held), "redis_stream_client farewell: leases")
        try:
            await asyncio.wait((lock, settling, *tasks), timeout=grace)
            if not lock.done():  # the answer may be there, and only we are late
                await asyncio.wait((lock,), timeout=0.01)
            self._say_what_is_left(lock, settling)
        finally:
            for task in (lock, settling, losing):
                task.cancel()
        for task in (lock, settling):
            if task.done() and not task.cancelled():
                task.result()

    def _say_what_is_left(self, lock: asyncio.Task[bool], settling: asyncio.Task[None]) -> None:
        who = {"consumer": self.options.consumer}
        if not lock.done():
            log.warning("Redis did not answer while leaving: the lock expires by itself", extra=who)
        elif not lock.cancelled() and lock.exception() is None and not lock.result():
            log.warning("Redis was not there while leaving: the lock expires by itself", extra=who)
        elif not settling.done():
            log.warning(
                "there was no time to record for every stream that its owner left: for some this attempt counts",
                extra=who,
            )

    async def _settle(self, held: list[LeaseState]) -> None:
        for leases in in_chunks(held, 10 * CHUNK):
            await self._record_store.settle_at_last(leases)
        await self._record_store.settle_at_last(())

    async def _lose(self, held: list[LeaseState]) -> None:
        """Nothing is believed any more; here it is told."""
        for leases in in_chunks(held):
            for lease in leases:
                self.table.lose(lease, "closed")
            await asyncio.sleep(0)
        self.table.lose_all("closed")

    async def _close_links(self) -> None:
        for link in (self._beats, self._commands, self._reads, self._record_store, self._fetcher):
            await link.close()

    async def _give_up_lock(self) -> bool:
        """On the connection that is there, else on a new one. Nothing to do where none ever was.

        Returns whether the lock is not ours any more.
        """
        if not self._beats.connections:
            return True
        for _ in range(3):
            try:
                await self.operations.lock.leave(LEAVING_GRACE / 2)
                return True
            except (Unanswered, GroupMissing, RedisRejected) as error:
                log.debug("leaving: %s", error)
                await asyncio.sleep(0.01)
        return False

    # What the parts tell each other.

    def _lapsed(self, cause: LapseCause) -> None:
        self._heartbeat.lapsed(cause)
        self._reader.poke()

    def _held_again(self) -> None:
        self._audits.request()
        self.sweeper.tidy_now()

    def _connection_lost(self, reason: Exception) -> None:
        """What was under way on it may have been executed, or lost in a fail-over."""
        if not self.tasks.ended:
            self._audits.request()
            self._heartbeat.poke()  # what ended the connection may have ended our lock
            if isinstance(reason, Unanswered) and reason.elsewhere:
                self._listener.move()
                self._fetcher.renew()

    def _greeting(self, endpoint: Endpoint) -> ServerIdentity:
        """What a connection to a server with data streams learns first: that server's own history, or, where there
        is but one server, the one that all share."""
        if endpoint is self._endpoint:
            return self.identity
        return ServerIdentity(lambda history: self._met(endpoint, history))

    def _met(self, endpoint: Endpoint, history: str) -> None:
        """A connection to a server with data streams has met another history than before."""
        if endpoint is not self._endpoint:
            self._record_store.renew(endpoint)
            self._fetcher.met(endpoint, history)
            self._fetcher.renew(endpoint)
        elif history != self.identity.history:
            self._another_history(history)

    def _another_history(self, history: str) -> None:
        """A new connection has met another server than the others, or one that has lost writes: a session talks to
        one history. Whoever is connected to another one connects anew."""
        log.info("Redis is another server than before, or has lost writes (%s)", history)
        reason = Unanswered("another server is responsible now, or it has lost writes", maybe_executed=True)
        for link in (self._beats, self._commands, self._reads):
            link.drop(reason)
        self._listener.move()
        self._record_store.renew()
        self._fetcher.met(self._endpoint, history)
        self._fetcher.renew()

    # Ears.

    def suspect(self, owner: str) -> None:
        """This consumer's streams may be orphans."""
        self.sweeper.suspect(owner)

    def claimed(self, lbs_id: str) -> None:
        """A peer says that it took this orphan."""
        self.sweeper.claimed(lbs_id)

    def joined(self) -> None:
        """Somebody joined."""
        self._peers.joined()

    def departing(self, consumer: str) -> None:
        """A peer is draining: it takes nothing new."""
        self._peers.departs(consumer)

    def left(self, consumer: str) -> None:
        """A peer has left."""
        self._peers.left(consumer)

    def missed_something(self) -> None:
        """There was a gap in what was heard."""
        self.sweeper.sweep_now()

    def own_lock_gone(self) -> None:
        """Our own lock expired or was deleted."""
        self._heartbeat.poke()

    # What users ask.

    def gone(self) -> ClientClosed:
        """The error of every call after the end."""
        return self.tasks.gone()

    @property
    def failure(self) -> BaseException | None:
        """Why the client was closed, if nobody asked for it."""
        return self.tasks.failure

    def health(self, handled: Collection[LeaseState] | None) -> Health:
        """What is stuck. `handled`: in `run()`, the leases whose handler was called."""
        now = clock.now()
        held = [
            lease for lease in self.table if not lease.handed_out or (handled is not None and lease not in handled)
        ]
        oldest = min(held, key=lambda lease: lease.progress_at, default=None)
        return judge(
            self.options,
            alive=self.lock_state.held,
            announcement=self._oldest_announcement.age(now),
            full=not self.capacity.to_read,
            lease=(oldest.stream, now - oldest.progress_at) if oldest is not None else None,
            wakeup=self._fetcher.oldest_unread(now),
        )

    def statistics(self, health: Health) -> Statistics:
        """A snapshot."""
        counters = self.counters
        beat_at = self.lock_state.beat_at
        return Statistics(
            leases=len(self.table),
            unread_events=self.event_queue.unread,
            last_beat_age=None if beat_at is None else clock.now() - beat_at,
            beats=counters.beats,
            lapses=self.lock_state.lapses,
            reconnects=self._beats.losses + self._commands.losses + self._reads.losses + self._listener.gaps,
            streams_added=counters.streams_added,
            claims_won=counters.claims_won,
            claims_lost=counters.claims_lost,
            streams_done=counters.streams_done,
            streams_released=counters.streams_released,
            streams_disowned=counters.streams_disowned,
            handlers=counters.handlers,
            handlers_failed=counters.handlers_failed,
            dead_letters=counters.dead_letters,
            audits=counters.audits,
            sweeps=counters.sweeps,
            gaps=counters.gaps,
            entries_skipped=counters.entries_skipped,
            live_members=self._peers.live,
            oldest_announcement=health.oldest_announcement,
            oldest_unhandled=health.oldest_unhandled,
            oldest_wakeup=health.oldest_wakeup,
            requests_shrunk=(
                counters.requests_shrunk
                + self.operations.sizes.shrunk
                + self._fetcher.requests_shrunk
                + self._record_store.shrunk
            ),
            records_unsettled=self._record_store.unsettled,
        )


def _closed() -> ClientClosed:
    return ClientClosed("the client is closed")


def _expected(error: BaseException) -> bool:
    """Whether it is for those alone who wait for the operation. What Redis refuses for good ends the client."""
    return isinstance(error, RedisStreamClientError) and not isinstance(error, RedisRejected)


async def _whatever_happens(work: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Do the work to its end, also when the loop is shutting down and cancels whatever it finds.

    Returns what it raised.
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
        ready.exception()  # counts as seen, also when whoever joined is gone
