"""`run()`: a handler task for every stream that this client owns."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from functools import partial

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.standstill import LATE
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._consumer.parts import Parts
from redis_stream_client._leases.event_queue import owner_of
from redis_stream_client._leases.events import StreamAdded, StreamExpired
from redis_stream_client._leases.lease import LEAVING_GRACE, Lease
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.logs import log
from redis_stream_client._protocol.hints import Draining
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._run.handler import Handler
from redis_stream_client._run.handler_task import HandlerTask
from redis_stream_client._run.outcome import Rules
from redis_stream_client._run.watchdogs import start_watches

ADMITTED = 250  # tasks that are started without a look at anything else
MANY = 1_000  # handlers
LOGGED = 10  # handlers that go on after the end and are named


class Dispatcher:
    """Takes the streams that arrive, and gives each to a handler, until it is drained or the client closes.

    Its main loop is a task of its own: whoever waits for it may be cancelled at any time.
    """

    def __init__(self, parts: Parts, handler: Handler, rules: Rules, drain_timeout: float) -> None:
        self._parts = parts
        self._session = parts.session
        self._handler = handler
        self._rules = rules
        self._drain_timeout = drain_timeout
        self._jobs: set[HandlerTask] = set()
        self._changed = asyncio.Event()
        self._draining = False
        self._cut_short = False

    def start(self) -> "asyncio.Task[None]":
        """Start the main loop; the task ends when everything was released and the client has left."""
        self._parts.capacity.handled_at_once = True
        return start_task(self._serve(), "redis_stream_client run")

    def drain(self) -> None:
        """Take nothing new; let the handlers reach a checkpoint; release."""
        self._draining = True
        self._wake()

    def cut_short(self) -> None:
        """Release at once."""
        if not self._cut_short:
            self._cut_short = True
            self._session.leave_by = clock.now() + LEAVING_GRACE * 0.9
        self.drain()

    @property
    def handled(self) -> set[LeaseState]:
        """The leases whose handler was called."""
        return {job.lease for job in self._jobs if job.called}

    @property
    def working(self) -> int:
        """How many handlers have not ended."""
        return len(self._jobs)

    def _wake(self) -> None:
        self._changed.set()
        self._parts.event_queue.end()

    # The main loop.

    async def _serve(self) -> None:
        watches = start_watches(self._jobs, self._rules, self._parts.progress.acquit)
        try:
            while not (self._draining or self._session.leaving):
                if not await self._admit():
                    await self._parts.event_queue.wait()
            if not self._session.leaving:
                await self._drain()
        finally:
            for watch in watches:
                watch.cancel()
            self._session.leave()
            await self._session.closed.wait()
            # A handler whose lease had ended before was told nothing by that. Who was told cleans up; a client
            # that is to release at once waits for nobody.
            await self._stop_all(self._jobs)
            await self._wait_for_jobs(0.0 if self._cut_short else self._rules.patience)
            self._say_who_goes_on()

    async def _admit(self) -> bool:
        """Start work on what has arrived. Returns whether there may be more: only a look that found nothing saw
        all there was."""
        looked_at, arrived = self._take()
        if arrived:
            self._parts.capacity.changed.notify()  # the next ones come while these begin
            ready = await self._parts.progress.prepare(list(arrived))
            backend = self._parts.backend
            for state, lease in arrived.items():
                job = HandlerTask(state, lease, backend, self._handler, self._rules, ready=state in ready)
                self._jobs.add(job)
                job.task = start_task(self._attend(job), f"handler of {lease.stream}")
                job.task.add_done_callback(partial(self._attended, job))
            self._parts.counters.handlers += len(arrived)
        if not looked_at:
            return False  # and whoever waits does so before anything can happen
        await asyncio.sleep(0)
        return True

    def _take(self) -> tuple[int, dict[LeaseState, Lease]]:
        """Up to `ADMITTED` events: how many there were, and the leases that are to be handled."""
        now = clock.now()
        arrived: dict[LeaseState, Lease] = {}
        for looked_at in range(ADMITTED):
            match self._parts.event_queue.take(now):
                case StreamAdded(lease):
                    state = self._parts.table.state_of(lease)
                    assert state is not None, "what is lost takes its unread event with it"
                    arrived[state] = lease
                case StreamExpired(orphan):  # it was offered before run() began
                    self._parts.event_queue.withdraw(orphan.lbs_id)
                    self._parts.sweeps.suspect(owner_of(orphan))
                case None:
                    return looked_at, arrived
                case _:  # a handler is told in its own way that its lease was lost
                    pass
        return ADMITTED, arrived

    async def _attend(self, job: HandlerTask) -> None:
        """Handle one lease, in a task of its own."""
        try:
            outcome = await job.run()
            if outcome.failed:
                self._parts.counters.handlers_failed += 1
        except Exception as error:  # noqa: BLE001 - no handler's, but Redis's refusal, or a bug
            self._parts.tasks.fail(error)

    def _attended(self, job: HandlerTask, _: "asyncio.Task[None]") -> None:
        """Its task has ended, even if it was cancelled before it began."""
        self._jobs.discard(job)
        self._parts.counters.handlers -= 1
        self._changed.set()
        if self._parts.table.holds(job.lease) and not self._session.leaving:
            log.warning("the work on %s was cut off; it is released", job.lease.stream)
            self._release(job.lease)

    # The end.

    async def _drain(self) -> None:
        self._parts.capacity.draining = True
        self._parts.tasks.spawn(self._tell_peers())
        who = {"consumer": self._parts.options.consumer}
        log.info("draining; %d handlers are at work", len(self._jobs), extra=who)
        deadline = clock.now() + self._drain_timeout
        for jobs in in_chunks(list(self._jobs)):
            for job in jobs:
                job.drain()
            await asyncio.sleep(0)
            if self._hurried:
                break
        while not self._hurried and clock.now() < deadline:
            await self._release_arrivals()
            if not self._jobs:
                break
            deadline += await self._wait_for_change(min(0.1, deadline - clock.now()))
        if self._jobs and not self._session.leaving:
            log.info("%d handlers are cancelled before a checkpoint", len(self._jobs), extra=who)
        in_time = clock.now() + (LEAVING_GRACE / 2 if self._cut_short else self._rules.patience)
        # Thousands cannot all be waited for before the lock goes.
        enough = LEAVING_GRACE * (0.7 if len(self._jobs) > MANY else 0.4)
        if await self._stop_all(self._jobs, unless=lambda: self._late(enough)):
            await self._wait_for_jobs(in_time - clock.now())
            await self._release_everything()

    def _late(self, before: float) -> bool:
        """Whether we are to leave at once, and within so many seconds: then the rest is done after leaving."""
        return self._cut_short and clock.now() > self._session.leave_by - before

    @property
    def _hurried(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._cut_short or self._session.leaving

    async def _stop_all(self, jobs: Collection[HandlerTask], unless: Callable[[], bool] = lambda: False) -> bool:
        """Cancel the handlers. Returns whether all were."""
        for some in in_chunks(list(jobs)):
            if unless():
                return False
            for job in some:
                job.stop("drained")
            await asyncio.sleep(0)
        return True

    def _say_who_goes_on(self) -> None:
        for job in list(self._jobs)[:LOGGED]:
            log.warning("the handler of %s goes on after the end", job.lease.stream)
        if len(self._jobs) > LOGGED:
            log.warning("%d handlers more go on after the end", len(self._jobs) - LOGGED)

    async def _tell_peers(self) -> None:
        """Nothing waits for it: it is sent before the first release."""
        with contextlib.suppress(Unanswered, GroupMissing):
            await self._parts.operations.hints.tell(
                Draining(self._parts.options.consumer), self._parts.options.patience
            )

    async def _wait_for_jobs(self, timeout: float) -> None:
        give_up = clock.now() + timeout
        was_cut_short = self._cut_short
        while self._jobs and clock.now() < give_up and self._cut_short == was_cut_short:
            give_up += await self._wait_for_change(min(0.1, give_up - clock.now()))

    async def _wait_for_change(self, timeout: float) -> float:
        """Returns for how long this process stood still meanwhile: the handlers had no turn, and get it back."""
        due = clock.now() + max(0.0, timeout)
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                await self._changed.wait()
        late = clock.now() - due
        return 0.0 if self._cut_short or late < LATE else late

    async def _release_arrivals(self) -> None:
        while True:
            looked_at, arrived = self._take()
            for lease in arrived:
                self._release(lease)
            if not looked_at:
                return
            await asyncio.sleep(0)

    def _release(self, lease: LeaseState) -> None:
        if self._parts.table.holds(lease) and not self._session.leaving:
            self._parts.endings.start_release(lease)

    async def _release_everything(self) -> None:
        """What is left: streams whose handlers did not end, or that arrived late."""
        if self._session.leaving:
            return
        for leases in in_chunks(list(self._parts.table)):
            if self._late(LEAVING_GRACE / 4):
                return
            for lease in leases:
                self._release(lease)
            await asyncio.sleep(0)
        releases = set(self._parts.endings.releasing)
        if releases:
            left = self._session.leave_by - clock.now() - LEAVING_GRACE / 4  # which is for leaving itself
            await asyncio.wait(releases, timeout=max(0.0, min(LEAVING_GRACE / 2, left)))
