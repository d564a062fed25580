"""The run itself: announce, write, kill one worker, freeze and wake another, finish, and collect the facts."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from redis.asyncio import Redis

from redis_stream_client.demo.book import Book
from redis_stream_client.demo.display import FINISHED, ORPHAN, Display, Row, View
from redis_stream_client.demo.fleet import Fleet, WorkerProcess
from redis_stream_client.demo.ledger import Handover, Harm, Ledger, Outage
from redis_stream_client.demo.settings import Settings, plural, short
from redis_stream_client.demo.source import Source
from redis_stream_client.demo.truth import Truth
from redis_stream_client.demo.verdict import Awakening, Facts

START_TIMEOUT = 15.0
ASSIGN_TIMEOUT = 10.0
FINISH_TIMEOUT = 5.0
CALM = 1.5
"""Seconds of undisturbed work between two events."""

TOLD_ONE_BY_ONE = 30
"""With more streams than this, those that change hands together are told together."""


class Failed(Exception):
    """The demo cannot go on; the message says why."""


class Scenario:
    """One run of the demo on a Redis that is there, with workers that were started."""

    def __init__(
        self, redis: Redis, settings: Settings, fleet: Fleet, ledger: Ledger, truth: Truth, display: Display
    ) -> None:
        self.ledger = ledger
        self._settings = settings
        self._fleet = fleet
        self._display = display
        self._truth = truth
        self._book = Book(redis)
        self._source = Source(redis, settings)
        self._changed = asyncio.Event()
        self._unlooked: set[str] = set()  # consumers whose lock is left alone while it is waited for
        self._taken: Counter[str] = Counter()  # streams taken over, by consumer
        self._harmed: set[str] = set()  # names of the workers that had their share

    async def run(self) -> Facts:
        """Play it. Raises `Failed`."""
        say = self._display.news
        if not await self._until(lambda: self._fleet.joined or bool(self._fleet.failures), START_TIMEOUT):
            raise Failed(f"the workers did not join within {START_TIMEOUT:g} s")
        self._require_workers()
        say(f"{self._settings.workers} workers have joined")
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            writing = tasks.create_task(self._source.write())
            await self._source.announce()
            if not await self._until(self._all_owned, ASSIGN_TIMEOUT):
                raise Failed(f"not every stream had an owner within {ASSIGN_TIMEOUT:g} s")
            say(f"{plural(self._settings.streams, 'stream')} announced; owners: {self._shares()}")
            await asyncio.sleep(CALM)
            awakening: Awakening | None = None
            if (await self._kill()).over:
                await asyncio.sleep(CALM)
                awakening = await self._freeze_and_wake()
            await asyncio.sleep(CALM)
            say("the streams end")
            self._source.end()
            await writing
            await self._until(self._finished, FINISH_TIMEOUT)
            watching.cancel()
        await self._fleet.end()
        self._require_workers()
        say("the workers have left")
        return await self._facts(awakening)

    # The events.

    async def _kill(self) -> Outage:
        victim = self._victim()
        at = time.time()
        victim.kill()
        return await self._recover(victim, "kill", at)

    async def _freeze_and_wake(self) -> Awakening:
        victim = self._victim()
        at = time.time()
        victim.freeze()
        outage = await self._recover(victim, "freeze", at)
        await asyncio.sleep(CALM / 2)
        woken_at = time.time()
        refused = self.ledger.reports[victim.consumer, "refused"]
        victim.thaw()
        self._display.news(f"{victim.name} woken (SIGCONT)")
        await self._until(lambda: len(self._losses(outage)) == len(outage.recovered), self._settings.lock_ttl + 1)
        losses = self._losses(outage)
        awakening = Awakening(
            worker=victim.name,
            lost=len(losses),
            kept=self.ledger.kept(outage),
            learned_after=max(losses) - woken_at if losses else None,
            refused=self.ledger.reports[victim.consumer, "refused"] - refused,
        )
        lost = plural(awakening.lost, "stream")
        self._display.news(f"{victim.name} learns that it lost {lost}, kept {awakening.kept}")
        return awakening

    async def _recover(self, victim: WorkerProcess, harm: Harm, at: float) -> Outage:
        """Wait until every stream of a worker that was just harmed has a new owner."""
        self._unlooked.add(victim.consumer)
        self._harmed.add(victim.name)
        outage = Outage(harm, victim.name, victim.consumer, at)
        self.ledger.harmed(outage, await self._truth.look(self._looked_at()))
        signal = "killed (SIGKILL)" if harm == "kill" else "frozen (SIGSTOP)"
        self._display.news(f"{victim.name} {signal}; it owned {plural(len(outage.held), 'stream')}")
        await self._until(lambda: outage.over and self.ledger.everything_settled, self._settings.patience)
        self._unlooked.discard(victim.consumer)
        if outage.over:
            self._display.news(f"all recovered; owners: {self._shares()}")
        else:
            self._display.news(f"{plural(len(outage.held) - len(outage.recovered), 'stream')} not recovered")
        return outage

    def _victim(self) -> WorkerProcess:
        """The worker with the most streams among those that were left in peace so far."""
        left = [worker for worker in self._fleet.workers if worker.name not in self._harmed]
        return max(left, key=lambda worker: self.ledger.owned_by(worker.consumer))

    def _losses(self, outage: Outage) -> list[float]:
        """When the worker itself saw that it had lost streams, for each that it has seen so far."""
        seen = self.ledger.disowned.get(outage.consumer, {})
        return [seen[lbs_id] for lbs_id in outage.held if lbs_id in seen]

    # Looking.

    async def _watch(self) -> None:
        """Look who owns what, and tell and show it, until cancelled."""
        while True:
            self._require_workers()
            self.ledger.observe(await self._truth.look(self._looked_at()))
            for line in self._tell(self.ledger.settle(time.time())):
                self._display.news(line)
            self._display.show(self._view())
            self._changed.set()
            await asyncio.sleep(self._settings.look_interval)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition. Returns whether it came true in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(0.05):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return True

    def _looked_at(self) -> Iterable[str]:
        return [consumer for consumer in self._fleet.consumers if consumer not in self._unlooked]

    def _all_owned(self) -> bool:
        return all(self.ledger.owner(lbs_id) for lbs_id in self._source.streams)

    def _finished(self) -> bool:
        snapshot = self.ledger.snapshot
        return snapshot is not None and not snapshot.announced and not snapshot.pending

    def _require_workers(self) -> None:
        if self._fleet.failures:
            raise Failed("; ".join(self._fleet.failures))

    async def _facts(self, awakening: Awakening | None) -> Facts:
        self.ledger.settle(float("inf"))
        snapshot = await self._truth.look(())
        return Facts(
            settings=self._settings,
            ledger=self.ledger,
            written=self._source.written,
            effects=await self._book.effects(list(self._source.written)),
            announcements_left=snapshot.announced,
            dead_letters=snapshot.dead_letters,
            awakening=awakening,
        )

    # Telling.

    def _tell(self, changes: Sequence[Handover]) -> list[str]:
        """Changes of owner, as lines."""
        together: dict[tuple[str, str], list[Handover]] = {}
        for change in changes:
            self._taken[change.after] += 1
            together.setdefault((change.before, change.after), []).append(change)
        lines: list[str] = []
        for (before, after), group in together.items():
            who = f"{self._fleet.name_of(before)} → {self._fleet.name_of(after)}"
            if self._settings.streams <= TOLD_ONE_BY_ONE:
                lines += [self._tell_one(who, change) for change in group]
            else:
                lines.append(f"{plural(len(group), 'stream'):>11}  {who}{_after(group)}")
        return lines

    def _tell_one(self, who: str, change: Handover) -> str:
        number = change.continues_at
        return (
            f"{short(self._source.streams[change.lbs_id])}  {who}{_after([change])}"
            f"{'' if number is None else f', goes on with entry {number}'}"
        )

    def _shares(self) -> str:
        """Who owns how many streams, as text."""
        return ", ".join(
            f"{worker.name} {owned}"
            for worker in self._fleet.workers
            if (owned := self.ledger.owned_by(worker.consumer))
        )

    def _view(self) -> View:
        locks = self.ledger.snapshot.locks if self.ledger.snapshot else {}
        numbers = {worker.consumer: worker.number for worker in self._fleet.workers if worker.state != "killed"}
        return View(
            rows=[
                Row(
                    number=worker.number,
                    name=worker.name,
                    state=worker.state,
                    lock={True: "held", False: "gone", None: "…"}[locks.get(worker.consumer)],
                    streams=self.ledger.owned_by(worker.consumer),
                    processed=self.ledger.processed.get(worker.consumer, 0),
                    taken=self._taken[worker.consumer],
                    lost=len(self.ledger.disowned.get(worker.consumer, ())),
                )
                for worker in self._fleet.workers
            ],
            owners=[
                FINISHED if self.ledger.finished(lbs_id) else numbers.get(self.ledger.owner(lbs_id) or "", ORPHAN)
                for lbs_id in self._source.streams
            ],
        )


def _after(changes: Sequence[Handover]) -> str:
    """How long after the harm, as text."""
    outage = changes[0].outage
    if outage is None:
        return ""
    times = sorted(change.at - outage.at for change in changes)
    first, last = f"{times[0]:.2f}", f"{times[-1]:.2f}"
    return f"  {first if first == last else f'{first} – {last}'} s after the {outage.harm}"
