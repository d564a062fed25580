"""The run itself: announce and produce, kill one worker, freeze and wake another, replace all that are left, and
finish; then sessions that sleep and wake, and more kills; and in the end the facts."""

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis

from redis_stream_client import Fence
from redis_stream_client.demo.display import Display
from redis_stream_client.demo.fleet import Fleet, WorkerProcess
from redis_stream_client.demo.history import Harm, History, Incident
from redis_stream_client.demo.ledger import Ledger
from redis_stream_client.demo.narrator import Narrator
from redis_stream_client.demo.settings import IDLE, Settings
from redis_stream_client.demo.source import Sessions, Source
from redis_stream_client.demo.truth import Snapshot, Truth
from redis_stream_client.demo.verdict import Facts, Slept
from redis_stream_client.terminal.text import plural

START_TIMEOUT = 15.0
ASSIGN_TIMEOUT = 10.0
FINISH_TIMEOUT = 8.0
EVEN_TIMEOUT = 10.0
CALM = 1.0
"""Seconds of undisturbed work between two events."""

SESSION_KILLS = 2
"""Workers that are killed while the sessions sleep and wake."""

BREATH = 0.3
"""Seconds between a fresh worker and the next one that leaves."""

SIGNALS = {"kill": "killed (SIGKILL)", "freeze": "frozen (SIGSTOP)", "restart": "asked to leave (SIGTERM)"}
NOTICED_BY = {"kill": "but its connections have ended", "freeze": "and its connections stay"}


class Failed(Exception):
    """The demo cannot go on; the message says why."""


class Scenario:
    """One run of the demo on a Redis that is there, with workers that were started."""

    def __init__(
        self, redis: Redis, settings: Settings, fleet: Fleet, ledger: Ledger, truth: Truth, display: Display
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._ledger = ledger
        self._truth = truth
        self._history = History()
        self._snapshot = Snapshot()
        self._source = Source(redis, settings)
        self._sessions = Sessions(redis, settings)
        self._narrator = Narrator(display, fleet, self._history, self._source, self._sessions)
        self._looked = asyncio.Event()
        self._unlooked: set[str] = set()  # consumers whose lock is left alone while it is waited for
        self._harmed: set[WorkerProcess] = set()
        self._restart: tuple[float, int] | None = None
        self._rebalanced: float | None = None

    async def run(self) -> Facts:
        """Play it. Raises `Failed`."""
        say = self._narrator.say
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            if not await self._until(lambda: self._fleet.joined, START_TIMEOUT):
                raise Failed(f"the workers did not join within {START_TIMEOUT:g} s")
            say(f"{self._settings.workers} workers have joined")
            producing = tasks.create_task(self._source.produce())
            await self._source.announce()
            if not await self._until(self._all_owned, ASSIGN_TIMEOUT):
                raise Failed(f"not every stream had an owner within {ASSIGN_TIMEOUT:g} s")
            say(f"{plural(self._settings.streams, 'stream')} announced; owners: {self._shares}")
            await asyncio.sleep(CALM)
            if await self._kill() and await self._freeze_and_wake():
                await self._replace_all()
                await self._even_out()
            self._source.end()
            await producing
            say(f"the streams end, after {self._source.total:,} entries")
            if await self._until(lambda: self._snapshot.finished, FINISH_TIMEOUT):
                say("all streams are finished")
                if self._sessions.produced:
                    await self._sleep_and_wake(tasks)
            watching.cancel()
        await self._fleet.end()
        self._require_workers()
        say("the workers have left")
        return await self._facts()

    # The events.

    async def _kill(self) -> bool:
        victim = self._victim()
        incident = await self._strike("kill", victim, victim.kill)
        return await self._recovered(incident)

    async def _freeze_and_wake(self) -> bool:
        await asyncio.sleep(CALM)
        victim = self._victim()
        frozen_at = time.monotonic()
        incident = await self._strike("freeze", victim, victim.freeze)
        recovered = await self._recovered(incident)
        lock_ttl = self._settings.lock_ttl
        await asyncio.sleep(max(CALM / 2, frozen_at + 1.1 * lock_ttl - time.monotonic()))
        frozen_for = time.monotonic() - frozen_at
        victim.thaw()
        self._narrator.say(f"{victim.name} woken (SIGCONT) after {frozen_for:.2f} s")
        await asyncio.sleep(CALM)
        refused = self._history.count("refused", "freeze")
        self._narrator.say(f"{plural(refused, 'late write')} of {victim.name} refused")
        return recovered

    async def _replace_all(self) -> None:
        """The rolling restart: one after the other leaves, and a fresh one joins."""
        # The woken one goes first: who was away for so long leaves the streams of others alone for a while.
        remaining = [worker for state in ("woken", "alive") for worker in self._fleet.in_state(state)]
        began, produced = time.monotonic(), self._source.total
        for worker in remaining:
            incident = await self._strike("restart", worker, worker.drain)
            if not await worker.leave():
                raise Failed(worker.failure or f"{worker.name} does not leave")
            recovered = await self._recovered(incident)
            fresh = await self._replace(worker)
            self._narrator.say(f"{worker.name} has left, {fresh.name} has joined")
            if not recovered:
                break
            await asyncio.sleep(BREATH)
        self._restart = time.monotonic() - began, self._source.total - produced

    async def _even_out(self) -> None:
        """The killed one gets a successor, too. Then the members even out the load by themselves."""
        for worker in self._fleet.in_state("killed"):
            fresh = await self._replace(worker)
            self._narrator.say(f"{fresh.name} has joined in place of {worker.name}; owners: {self._shares}")
        began = time.monotonic()
        even = await self._until(self._even, EVEN_TIMEOUT)
        took = time.monotonic() - began
        await asyncio.sleep(CALM)  # until the new owners have written something
        self._narrator.tell([change for change in self._history.taken_over if change.incident is None])
        if even:
            self._rebalanced = took
            self._narrator.say(f"the load is even again; owners: {self._shares}")

    async def _sleep_and_wake(self, tasks: asyncio.TaskGroup) -> None:
        """Sessions get messages now and then, sleep in between, and one owner after the other is killed."""
        say, sessions = self._narrator.say, self._sessions
        say(f"messages come to {plural(len(sessions.produced), 'session')}; one sleeps after {IDLE:g} s without")
        producing = tasks.create_task(sessions.produce())
        unharmed = self._fleet.in_state("alive")
        for _ in range(SESSION_KILLS):
            await asyncio.sleep(CALM)
            victim = max(unharmed, key=lambda worker: self._snapshot.owned_by(worker.consumer))
            held = self._snapshot.owned_by(victim.consumer)
            victim.kill()
            unharmed.remove(victim)
            say(f"{victim.name} killed (SIGKILL); it owned {plural(held, 'session')} that were awake")
            fresh = await self._replace(victim)
            say(f"{fresh.name} has joined in its place")
        await asyncio.sleep(CALM / 2)
        sessions.end()
        await producing
        say(f"no more messages, after {sessions.total:,}")
        if await self._until(self._all_asleep, self._settings.patience):
            say("all sessions are asleep")

    def _all_asleep(self) -> bool:
        return self._sessions.processed and self._snapshot.finished and not self._snapshot.newest

    async def _replace(self, worker: WorkerProcess) -> WorkerProcess:
        """A fresh one in its place, which has joined."""
        fresh = await self._fleet.replace(worker)
        if not await self._until(lambda: self._fleet.joined, START_TIMEOUT):
            raise Failed(f"{fresh.name} did not join within {START_TIMEOUT:g} s")
        return fresh

    def _even(self) -> bool:
        """Whether every stream has an owner that works on it, and no worker has two more than another."""
        loads = [self._snapshot.owned_by(worker.consumer) for worker in self._fleet.placement]
        return self._all_owned() and max(loads) - min(loads) <= 1

    async def _strike(self, harm: Harm, worker: WorkerProcess, strike: Callable[[], None]) -> Incident:
        """Do something to a worker, and note what it held."""
        if harm != "restart":  # a lock that is given back need not be found to have expired
            self._unlooked.add(worker.consumer)
        before = await self._truth.look(self._unlooked)
        lives = await self._truth.lock_lives(worker.consumer)
        strike()
        held = {
            # "~" sorts behind whatever else a fence with these numbers ends with
            self._source.streams[lbs_id]: f"{Fence.of(lbs_id, pending.deliveries)}~"
            for lbs_id, pending in before.pending.items()
            if pending.consumer == worker.consumer
        }
        incident = Incident(harm, worker.name, worker.consumer, before.at, held)
        self._history.happened(incident)
        self._harmed.add(worker)
        self._narrator.say(f"{worker.name} {SIGNALS[harm]}; it owned {plural(len(held), 'stream')}")
        if harm != "restart":
            self._narrator.say(f"its lock lives for {lives:.1f} s more, {NOTICED_BY[harm]}")
        return incident

    async def _recovered(self, incident: Incident) -> bool:
        """Wait until every stream of a worker that was just struck goes on with a new owner."""
        over = await self._until(lambda: self._history.over(incident), self._settings.patience)
        self._unlooked.discard(incident.consumer)
        self._narrator.tell([change for change in self._history.taken_over if change.incident is incident])
        if not over:
            missing = len(incident.held) - len(self._history.recovered(incident))
            self._narrator.say(f"{plural(missing, 'stream')} of {incident.worker} not recovered")
        elif incident.held:
            self._narrator.say(f"all recovered; owners: {self._shares}")
        return over

    def _victim(self) -> WorkerProcess:
        """The worker with the most streams among those that were left in peace so far."""
        left = [worker for worker in self._fleet.workers if worker not in self._harmed]
        return max(left, key=lambda worker: self._snapshot.owned_by(worker.consumer))

    # Looking.

    async def _watch(self) -> None:
        """Look who owns what and what was written, and tell and show it, until cancelled."""
        while True:
            self._require_workers()
            self._snapshot = await self._truth.look(self._unlooked)
            self._fleet.recognise(self._snapshot.consumers)
            self._history.add(self._sessions.add(await self._ledger.news()))
            self._narrator.show(self._snapshot)
            self._looked.set()
            await asyncio.sleep(self._settings.look_interval)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition. Returns whether it came true in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._looked.clear()
            await self._looked.wait()
        return True

    def _all_owned(self) -> bool:
        return all(self._snapshot.owner(lbs_id) for lbs_id in self._source.streams)

    @property
    def _shares(self) -> str:
        return self._narrator.shares(self._snapshot)

    def _require_workers(self) -> None:
        if self._fleet.failures:
            raise Failed("; ".join(self._fleet.failures))

    async def _facts(self) -> Facts:
        """Read the whole ledger once more: what was told on the way does not count."""
        history, sessions = History(self._history.incidents), self._sessions.produced
        records = await self._ledger.everything()
        history.add(record for record in records if record.stream not in sessions)
        snapshot = await self._truth.look(())
        if not snapshot.consumers:
            raise Failed("the load balancer stream is gone")
        return Facts(
            settings=self._settings,
            produced=self._source.produced,
            history=history,
            announcements_left=snapshot.announced,
            dead_letters=snapshot.dead_letters,
            restart=self._restart,
            rebalanced=self._rebalanced,
            slept=Slept(
                produced=sessions,
                records=[record for record in records if record.stream in sessions],
                killed=SESSION_KILLS,
                awake=len(sessions.keys() & snapshot.newest.keys()),
            )
            if self._sessions.begun
            else None,
        )
