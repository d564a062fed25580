"""One run: servers, fleet, faults, and a settled end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from redis_stream_client._model.keys import Keys
from tests.harness.waiting import stop, wait_until
from tests.proof.chaos import sessions
from tests.proof.chaos.cluster import ClusterFaults, ClusterServers
from tests.proof.chaos.fleet import MEMBERS, WRITERS, Fleet
from tests.proof.chaos.history import Writer, now
from tests.proof.chaos.ledger import Ledger, Scribe, connect
from tests.proof.chaos.liveness import lively
from tests.proof.chaos.member import watch_lag
from tests.proof.chaos.schedule import schedule
from tests.proof.chaos.servers import NotNow
from tests.proof.chaos.standalone import StandaloneFaults, StandaloneServers
from tests.proof.chaos.story import pace
from tests.proof.chaos.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.proof.chaos.schedule import Fault

SERVICE = "chaos"
SETTLE_TIMEOUT = 20.0
"""Seconds after the last fault within which everything is to be finished."""
FAULT_TIMEOUT = 30.0
REPORT_TIMEOUT = 60.0
TAIL = 0.5
"""Seconds between two looks at the ledger."""
PROGRESS = 5.0


class Run:
    """A run; its histories are in `directory`."""

    def __init__(
        self,
        directory: Path,
        minutes: float,
        seed: int,
        rate: float,
        server: str | None,
        deployment: str,
        say: Callable[[str], None],
        *,
        lock_ttl: float = 1.0,
        presence: str = "mixed",
    ) -> None:
        self.seconds = 60 * minutes
        self.seed = seed
        self.deployment = deployment
        self.say = say
        self.lock_ttl = lock_ttl
        self.presence = presence
        self.history = Writer(directory, "run")
        self.keys = Keys(SERVICE)
        kind = ClusterServers if deployment == "cluster" else StandaloneServers
        self.servers: ClusterServers | StandaloneServers = kind(server, self.keys.lbs)
        self.faults_done: Counter[str] = Counter()
        self.faults_skipped: Counter[str] = Counter()
        self._directory = directory
        self._plan = schedule(seed, self.seconds, rate, MEMBERS, WRITERS, pace(lock_ttl), deployment)
        self._started = 0.0

    async def run(self) -> None:
        """Run to the end."""
        self._started = time.monotonic()
        try:
            await self.servers.start()
            binary = self.servers.ledger.binary
            version = ".".join(map(str, binary.version))
            what = f"{binary.name} {version}, {self.deployment}, lock_ttl {self.lock_ttl:g}"
            self.history.write("began", self.lock_ttl, self.seed, f"{what}, presence {self.presence}")
            self.history.write("clock", now() - time.time())
            setup = {
                "ledger": self.servers.ledger.url,
                "service": SERVICE,
                "lock_ttl": self.lock_ttl,
                "presence": self.presence,
                "seed": self.seed,
                "cluster": self.deployment == "cluster",
            }
            fleet = Fleet(self.history, self._directory, setup)
            async with fleet.running(self.servers.ports), connect(self.servers.ledger.url) as redis:
                scribe = Scribe(redis, self.history.beside("ledger"))
                watch = Watch(self.servers, self.keys, self.history, cluster=self.deployment == "cluster")
                background = [
                    asyncio.create_task(watch_lag(self.history)),
                    asyncio.create_task(self._tail(scribe)),
                    asyncio.create_task(watch.look_on()),
                    asyncio.create_task(watch.look_on_sessions()),
                    asyncio.create_task(self._report_progress(scribe)),
                ]
                try:
                    await self._faults(fleet, Ledger(redis))
                    await self._settle(fleet, scribe)
                finally:
                    await stop(*background)
                    await asyncio.gather(*background, return_exceptions=True)
            self.history.write("closed")
        finally:
            await self.servers.close()

    async def _tail(self, scribe: Scribe) -> None:
        while True:
            await scribe.move()
            await asyncio.sleep(TAIL)

    async def _report_progress(self, scribe: Scribe) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            elapsed = time.monotonic() - self._started
            done, skipped = self.faults_done.total(), self.faults_skipped.total()
            self.say(
                f"{elapsed:6.0f} s  {scribe.effects:7,} effects  {scribe.finished:5,} streams finished"
                f"  {done:4} faults  {skipped:3} not possible"
            )

    # The faults.

    async def _faults(self, fleet: Fleet, ledger: Ledger) -> None:
        """All faults, each in its own time; they may overlap."""
        await fleet.joined()
        faults: StandaloneFaults | ClusterFaults
        if isinstance(self.servers, ClusterServers):
            faults = ClusterFaults(self.servers, fleet, ledger, self.history, SERVICE, self.seed)
        else:
            faults = StandaloneFaults(self.servers, fleet, ledger, self.history, SERVICE, self.seed)
        start = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        for fault in self._plan:
            await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
            tasks.append(asyncio.create_task(self._do(faults, fault), name=fault.kind))
        await asyncio.sleep(max(0.0, start + self.seconds - time.monotonic()))
        await asyncio.gather(*tasks)
        for place in (*fleet.places, *fleet.writers):
            await place.network.mend()
        await faults.remove_decoys()
        await faults.resume()
        self.history.write("ended")
        await asyncio.sleep(lively(self.lock_ttl) + 1.0)  # what stands still now is found by the checker

    async def _do(self, faults: StandaloneFaults | ClusterFaults, fault: Fault) -> None:
        try:
            async with asyncio.timeout(FAULT_TIMEOUT + fault.seconds):
                await faults.do(fault)
        except (NotNow, RedisError) as error:
            self.faults_skipped[fault.kind] += 1
            self.history.write("skipped", fault.number, fault.kind, f"{type(error).__name__}: {error}")
        else:
            self.faults_done[fault.kind] += 1

    # The end.

    async def _settle(self, fleet: Fleet, scribe: Scribe) -> None:
        """Everything is finished, or the time is over; then write down what is left."""
        keys = self.keys
        await fleet.joined()
        await fleet.stop_writing()
        fleet.tell_producer("finish")
        await fleet.producer_says("finished", REPORT_TIMEOUT)

        async def empty() -> bool:
            with contextlib.suppress(RedisError, NotNow):
                known = await self.servers.command("EXISTS", keys.lbs, keys.announced)
                waiting = await self.servers.command("XLEN", keys.lbs)
                return known == 1 and not waiting and not await self.servers.pending(keys.lbs, keys.group)
            return False

        try:
            await wait_until(empty, "every stream is finished", SETTLE_TIMEOUT + self.lock_ttl)
        except AssertionError:
            await fleet.explain()
        left = [_text(id) for id, _ in await self.servers.command("XRANGE", keys.lbs, "-", "+")]
        pending = [f"{id} {consumer}" for id, consumer in await self.servers.pending(keys.lbs, keys.group)]
        letters = [_letter(fields) for _, fields in await self.servers.command("XRANGE", keys.dead, "-", "+")]
        self.history.write("left over", left, pending, letters)
        remembered = await self.servers.command("HKEYS", keys.announced)
        self.history.write("remembered", sorted(map(_text, remembered)), await self._kept_for_ever())
        fleet.tell_producer("report")
        await fleet.producer_says("reported", REPORT_TIMEOUT)
        await scribe.move()

    async def _kept_for_ever(self) -> list[str]:
        """The sessions whose records do not expire."""
        kept: list[str] = []
        for stream in sessions.names(self.keys.lbs):
            server = await self.servers.owner_of(stream)
            if await self.servers.blocking(server.command, "PTTL", self.keys.progress(stream)) == -1:
                kept.append(stream)
        return kept


def _letter(fields: dict[bytes, bytes]) -> str:
    return " ".join(value.decode(errors="replace") for value in fields.values())[:500]


def _text(id: str | bytes) -> str:
    return id if isinstance(id, str) else id.decode()
