"""The dispatcher of `run()`: starts a handler task for every stream that the client owns."""

import asyncio
import contextlib
from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.standstill import stood_still
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.balancer import Balancer
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.session import Session
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.backend import LeaseBackend
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue, owner_of
from redis_stream_client._leases.events import StreamAdded, StreamExpired
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import leaving
from redis_stream_client._model.errors import ClientClosed
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._model.rebalance import Rebalance
from redis_stream_client._model.statistics import Counters, Outage
from redis_stream_client._ownership.checkpoints import Progress
from redis_stream_client._ownership.endings import Endings
from redis_stream_client._protocol.hints import Draining, Hint, Hints, Recovered
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import Outages
from redis_stream_client._run.breaker import Breaker
from redis_stream_client._run.giving import Giving
from redis_stream_client._run.handler import Handler
from redis_stream_client._run.handler_task import HandlerTask
from redis_stream_client._run.outage_watch import TICK, OutageWatch
from redis_stream_client._run.outcome import Outcome, Rules
from redis_stream_client._run.probation import Probation
from redis_stream_client._run.trimming import trim_while_running
from redis_stream_client._run.watchdogs import start_watches
from redis_stream_client._streams.retention import Retention

ADMITTED = 250
"""The most handlers that begin in one turn of the event loop. Their first steps took 10 ms on our machine: little
compared with the heartbeat interval, by default 0.5 s."""

LOOK = 0.1
"""Seconds between two looks at the clock while a drain waits for handlers. If the process stood still, the
handlers get that time back."""

LOGGED = 10
"""The most handlers that the log names if they go on after the end."""


class Dispatcher:
    """Gives each stream that arrives to a handler, until the client drains or closes.

    The main loop is a task of its own, so whoever waits for it may be cancelled at any time.

    Args:
        handler: the handler of the user.
        rules: the rules for handlers.
        drain_timeout: seconds that draining gives the handlers to reach a checkpoint.
        rebalance: how to even out the load; None: not at all.
    """

    def __init__(
        self,
        handler: Handler,
        rules: Rules,
        drain_timeout: float,
        rebalance: Rebalance | None,
        *,
        log: Log,
        outages: Outages,
        options: Options,
        session: Session,
        tasks: OwnedTasks[ClientClosed],
        event_queue: EventQueue,
        table: LeaseTable,
        capacity: Capacity,
        sweeps: SweepSchedule,
        peers: Peers,
        balancer: Balancer,
        orders: Orders,
        backend: LeaseBackend,
        endings: Endings,
        progress: Progress,
        retention: Retention,
        hints: Hints,
        counters: Counters,
    ) -> None:
        self._log = log
        self._handler = handler
        self._rules = rules
        self._outages = OutageWatch(
            Breaker(rules.retry.longest_pause),
            outages=outages,
            capacity=capacity,
            event_queue=event_queue,
            sweeps=sweeps,
            peers=peers,
        )
        self._outages.recovered.add(self._tell_of_recovery)
        self._probation = Probation(
            rules,
            log=log,
            held=table,
            acquit=progress.acquit,
            clear=progress.clear,
            counters=counters,
            members=lambda: peers.live,
            unseen=0.0 if options.presence else options.lock_ttl - options.heartbeat_interval,
        )
        self._drain_timeout = drain_timeout
        self._rebalance = rebalance
        self._balancer = balancer
        self._consumer = options.consumer
        self._patience = options.patience
        self._session = session
        self._tasks = tasks
        self._event_queue = event_queue
        self._table = table
        self._capacity = capacity
        self._sweeps = sweeps
        self._backend = backend
        self._endings = endings
        self._progress = progress
        self._retention = retention
        self._hints = hints
        self._counters = counters
        self._at_work: dict[asyncio.Task[None], HandlerTask] = {}
        self._giving = Giving(
            self._at_work.values(), log=log, may_give=lambda: not self._outages.open, counters=counters
        )
        orders.give.add(self._ordered_to_give)
        self._changed = asyncio.Event()
        self._draining = False
        self._cut_short = False

    def start(self) -> "asyncio.Task[None]":
        """Start the main loop. Its task ends when all streams are released and the client has left."""
        self._capacity.handled_at_once = True
        if self._rebalance is not None and not self._draining:
            self._balancer.start(self._rebalance.settle, self._giving)
        return start_task(self._serve(), "redis_stream_client run")

    def drain(self) -> None:
        """Take no new streams, let the handlers reach a checkpoint, and release their streams."""
        self._draining = True
        self._balancer.stop()
        self._giving.stop()
        self._changed.set()
        self._event_queue.end()

    @property
    def draining(self) -> bool:
        """Whether it takes no new streams any more."""
        return self._draining

    def cut_short(self) -> None:
        """Release all streams at once."""
        if not self._cut_short:
            self._cut_short = True
            self._session.leave_within(leaving.FAREWELL)
        self.drain()

    @property
    def handled(self) -> set[LeaseState]:
        """The leases whose handler was called, and those that wait since their owners have died."""
        return {each.lease for each in self._at_work.values() if each.called or each.suspect}

    @property
    def outage(self) -> Outage | None:
        """What looks like an outage of something that the handlers depend on."""
        return self._outages.outage

    def say_what_goes_on(self) -> None:
        """Nobody waits for the handlers any more."""
        self._log.warning(
            "run() was cancelled, and %d handlers have not ended: they go on without their streams",
            len(self._at_work),
        )

    def _ordered_to_give(self, lbs_id: str, deliveries: int) -> None:
        """An operator wants this stream to go elsewhere."""
        lease = self._table.get(lbs_id)
        if lease is None or lease.deliveries != deliveries or self._draining:
            return  # it has moved since
        for handler_task in self._at_work.values():
            if handler_task.lease is lease:
                self._giving.give_back(handler_task)

    # The main loop.

    async def _serve(self) -> None:
        watches = start_watches(self._at_work.values(), self._rules, self._progress.acquit)
        if self._rules.trim:
            trims = trim_while_running(self._at_work.values(), self._retention.trim)
            watches.append(start_task(trims, "redis_stream_client trimming"))
        try:
            while not (self._draining or self._session.leaving):
                if self._outages.open:
                    await self._endure()
                elif not await self._admit(ADMITTED):
                    await self._event_queue.wait()
            if not self._session.leaving:
                await self._drain()
        finally:
            for watch in watches:
                watch.cancel()
            self._balancer.stop()
            self._giving.stop()
            self._session.leave()
            await self._session.closed.wait()
            # Closing has cancelled the handlers of the leases that were held; here the others are. All get time to
            # clean up, unless this client releases at once.
            await self._stop_all()
            await self._wait_for_handlers(0.0 if self._cut_short else self._rules.patience)
            self._say_who_goes_on()

    def _tell_of_recovery(self) -> None:
        if not self._tasks.ended:
            self._tasks.spawn(self._tell_peers(Recovered(self._consumer)))

    async def _endure(self) -> None:
        """One step through an outage: one handler begins at a time, and what waits for its turn is released."""
        if self._outages.may_start:
            if self._event_queue.unread_added:
                self._capacity.slow_down(0)  # no other one comes while this one begins
            await self._admit(1)
        elif self._outages.sure:
            await self._release_arrivals()
        self._outages.look(len(self._at_work))
        await asyncio.sleep(TICK)

    async def _admit(self, most: int) -> bool:
        """Begin work on what has arrived, on so many streams at the most. Returns whether more may wait: only a
        look that found nothing has seen everything."""
        looked_at, arrived = self._take(most)
        if arrived:
            self._capacity.freed()  # so that the reader fetches more while these begin
            for state in arrived:
                state.on_done = self._rules.on_done
            ready = await self._progress.prepare(list(arrived), most_deaths=self._rules.spared)
            for state, lease in arrived.items():
                handler_task = HandlerTask(
                    state,
                    lease,
                    self._backend,
                    self._handler,
                    self._rules,
                    self._outages,
                    self._probation,
                    ready=state in ready,
                )
                self._outages.started(handler_task)
                self._start(handler_task)
        if not looked_at:
            return False  # the caller waits in this same turn of the loop, so it misses nothing
        await asyncio.sleep(0)
        return True

    def _take(self, most: int = ADMITTED) -> tuple[int, dict[LeaseState, Lease]]:
        """Take so many leases that need a handler at the most, and what lies before them. Returns the number of
        events, and these leases."""
        now = clock.now()
        arrived: dict[LeaseState, Lease] = {}
        for looked_at in range(ADMITTED):
            if len(arrived) == most:  # hundreds of losses may lie before the one lease that is wanted
                return looked_at, arrived
            match self._event_queue.take(now):
                case StreamAdded(lease):
                    state = self._table.state_of(lease)
                    assert state is not None, "what is lost takes its unread event with it"
                    arrived[state] = lease
                case StreamExpired(orphan):  # an offer from before run() began
                    self._event_queue.withdraw(orphan.lbs_id)
                    self._sweeps.suspect(owner_of(orphan))
                case None:
                    return looked_at, arrived
                case _:  # a loss, which has cancelled the handler already
                    pass
        return ADMITTED, arrived

    def _start(self, handler_task: HandlerTask) -> None:
        task = start_task(self._attend(handler_task), f"handler of {handler_task.lease.stream}")
        self._at_work[task] = handler_task
        task.add_done_callback(self._attended)
        self._counters.handlers += 1

    async def _attend(self, handler_task: HandlerTask) -> None:
        """Handle one lease. Runs in a task of its own."""
        try:
            outcome = await handler_task.run()
            if outcome.failed:
                self._counters.handlers_failed += 1
            if self._backend.observation is not None:
                self._tell_end(handler_task.lease, outcome)
        except Exception as error:  # noqa: BLE001 - a refusal of Redis or a bug; handlers do not raise here
            self._tasks.fail(error)

    def _tell_end(self, lease: LeaseState, outcome: Outcome) -> None:
        assert self._backend.observation is not None
        self._backend.observation.handler_ended(lease, outcome.status, outcome.error)

    def _attended(self, task: "asyncio.Task[None]") -> None:
        """The task has ended, even if it was cancelled before it began."""
        handler_task = self._at_work.pop(task)
        lease = handler_task.lease
        self._giving.ended(handler_task)
        self._counters.handlers -= 1
        self._probation.ended(lease)
        self._outages.ended(lease)
        self._changed.set()
        if self._backend.observation is not None:  # if the task was cut off
            self._backend.observation.handler_ended(lease, "lost", None)
        if self._table.holds(lease) and not self._session.leaving:
            self._log.warning(
                "the task of the handler of %s was cancelled from outside: the stream is released",
                lease.stream,
                about=lease,
            )
            self._release(lease)

    # The end.

    async def _drain(self) -> None:
        self._capacity.draining = True
        self._tasks.spawn(self._tell_peers(Draining(self._consumer)))
        self._log.info(
            "draining: %d handlers have up to %g s to reach a checkpoint, then all streams go to peers",
            len(self._at_work),
            self._drain_timeout,
            extra={"streams": len(self._at_work)},
        )
        deadline = clock.now() + self._drain_timeout
        for handler_tasks in in_chunks(list(self._at_work.values())):
            for handler_task in handler_tasks:
                handler_task.drain()
            await asyncio.sleep(0)
            if self._hurried:
                break
        while not self._hurried and clock.now() < deadline:
            await self._release_arrivals()
            if not self._at_work:
                break
            deadline += await self._wait_for_change(min(LOOK, deadline - clock.now()))
        if self._at_work and not self._session.leaving:
            self._log.info(
                "%d handlers did not reach a checkpoint in time, and are cancelled: the next owners repeat "
                "what came after the last one",
                len(self._at_work),
                extra={"streams": len(self._at_work)},
            )
        in_time = clock.now() + (leaving.HANDLERS if self._cut_short else self._rules.patience)
        kept = leaving.kept_from_handlers(len(self._at_work))
        if await self._stop_all(unless=lambda: self._late(kept)):
            await self._wait_for_handlers(in_time - clock.now())
            await self._release_everything()

    def _late(self, kept: float) -> bool:
        """Whether this client releases at once, and no more than `kept` seconds remain for leaving itself."""
        return self._cut_short and clock.now() > self._session.leave_by - kept

    @property
    def _hurried(self) -> bool:
        """Whether it is time to stop waiting."""
        return self._cut_short or self._session.leaving

    async def _stop_all(self, unless: Callable[[], bool] = lambda: False) -> bool:
        """Cancel the handlers. Returns whether all of them were cancelled."""
        for handler_tasks in in_chunks(list(self._at_work.values())):
            if unless():
                return False
            for handler_task in handler_tasks:
                handler_task.stop("drained")
            await asyncio.sleep(0)
        return True

    def _say_who_goes_on(self) -> None:
        for handler_task in list(self._at_work.values())[:LOGGED]:
            lease = handler_task.lease
            self._log.warning(
                "the handler of %s ignores its cancellation and goes on after the end of run()",
                lease.stream,
                about=lease,
            )
        if len(self._at_work) > LOGGED:
            self._log.warning("%d handlers more go on after the end of run()", len(self._at_work) - LOGGED)

    async def _tell_peers(self, hint: Hint) -> None:
        """Say something to the peers. Nobody waits for it; a drain is told before the first release."""
        with contextlib.suppress(Unanswered, GroupMissing):
            await self._hints.tell(hint, self._patience)

    async def _wait_for_handlers(self, timeout: float) -> None:
        give_up = clock.now() + timeout
        was_cut_short = self._cut_short
        while self._at_work and clock.now() < give_up and self._cut_short == was_cut_short:
            give_up += await self._wait_for_change(min(LOOK, give_up - clock.now()))

    async def _wait_for_change(self, timeout: float) -> float:
        """Wait until a handler has ended. Returns for how many seconds this process stood still meanwhile: the
        handlers get them back."""
        due = clock.now() + max(0.0, timeout)
        self._changed.clear()
        await wait_for(self._changed, timeout)
        late = clock.now() - due
        return late if stood_still(late) and not self._cut_short else 0.0

    async def _release_arrivals(self) -> None:
        while True:
            looked_at, arrived = self._take()
            for lease in arrived:
                self._release(lease)
            if not looked_at:
                return
            await asyncio.sleep(0)

    def _release(self, lease: LeaseState) -> None:
        if self._table.holds(lease) and not self._session.leaving:
            self._endings.start_release(lease)

    async def _release_everything(self) -> None:
        """Release what is left: streams whose handlers have not ended, and those that arrived late."""
        if self._session.leaving:
            return
        for leases in in_chunks(list(self._table)):
            if self._late(leaving.LAST_WORDS):
                return
            for lease in leases:
                self._release(lease)
            await asyncio.sleep(0)
        releases = set(self._endings.releasing)
        if releases:
            left = self._session.leave_by - clock.now() - leaving.LAST_WORDS
            await asyncio.wait(releases, timeout=max(0.0, min(leaving.HANDLERS, left)))
