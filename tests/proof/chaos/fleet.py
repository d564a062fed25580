"""The fleet of a run: the processes of members and writers, the proxy before each, and the producer's process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from tests.harness.processes import die_with_parent
from tests.harness.waiting import wait_until
from tests.proof.chaos.history import now
from tests.proof.chaos.link import Network
from tests.proof.chaos.servers import NotNow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from tests.proof.chaos.history import Writer

MEMBERS = 5
BY_EVENTS = (1, 3)
"""Places whose members use `events()`; the others use `run()`."""
WRITERS = 3
WRITERS_DELAY = 0.02
"""Seconds that a writer's line takes for a request, and for a reply."""
PRESENCE = ("on", "off", "mixed")
PRESENT = (0, 1, 2)
"""Places whose members declare their presence, where it is mixed."""
EXIT_TIMEOUT = 15.0
JOIN_TIMEOUT = 30.0
HEAD = 100_000
"""Bytes of a history in which its member has joined."""


class Place:
    """A place in the fleet: one network, and one process after the other, each with the name and a number.

    Args:
        name: of the place.
        module: the program.
        setup: what it is told.
    """

    def __init__(
        self, name: str, module: str, network: Network, history: Writer, directory: Path, setup: dict[str, Any]
    ) -> None:
        self.name = name
        self.network = network
        self.process_lock = asyncio.Lock()
        self.network_lock = asyncio.Lock()
        self._history = history
        self._directory = directory
        self._module = module
        self._setup = {**setup, "proxies": network.setup}
        self._process: asyncio.subprocess.Process | None = None
        self._count = 0
        self._name = ""
        self._told: set[str] = set()
        self._watches: dict[asyncio.subprocess.Process, asyncio.Task[None]] = {}
        self.closing = False
        self.in_run = setup.get("mode") == "run"
        self.bad_until = 0.0
        """What is started before then is a bad version."""

    async def renew(self) -> None:
        """Start the next process."""
        if self.closing:
            return
        self._count += 1
        self._name = name = f"{self.name}.{self._count}"
        with (self._directory / f"{name}.log").open("wb") as log:
            setup = {**self._setup, "name": name, "bad": now() < self.bad_until}
            self._process = await start(self._module, setup, stderr=log)
        self._history.write("spawned", name)
        self._watches[self._process] = asyncio.create_task(self._watch(name, self._process))

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Write down its end, and replace it if nobody else does."""
        code = await process.wait()
        del self._watches[process]
        self._history.write("exited", name, code, name in self._told)
        log = self._directory / f"{name}.log"
        if not log.stat().st_size:
            log.unlink()
        if process is self._process and name not in self._told:
            async with self.process_lock:
                if process is self._process:
                    await self.renew()

    def running(self) -> str:
        """Name of the process that runs. Raises `NotNow` if none does."""
        if self._process is None or self._process.returncode is not None:
            raise NotNow(f"nothing runs in place {self.name}")
        return self._name

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a SIGKILL is meant to end it."""
        assert self._process is not None
        if number == signal.SIGKILL:
            self._told.add(self._name)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def leaves(self) -> None:
        """It was told to leave, by somebody else."""
        self._told.add(self._name)

    async def gone(self, seconds: float) -> bool:
        """Wait so long for its end. Returns whether it has ended."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), seconds)
        return self._process.returncode is not None

    def terminate(self) -> None:
        """Ask it to leave, and see to it that it does."""
        self._told.add(self._name)
        self.send(signal.SIGTERM)

    def order(self, order: str) -> None:
        """Have a handler misbehave."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())

    @property
    def joined(self) -> bool:
        """Whether its process says that it has joined."""
        history = self._directory / f"{self._name}.jsonl"
        return history.exists() and b'"joined"' in history.read_bytes()[:HEAD]

    async def close(self) -> None:
        """Have the process leave in good order; one that does not is killed, which the checker finds."""
        self.closing = True
        async with self.process_lock:
            if self._process is not None and self._process.returncode is None:
                self.terminate()
        if self._watches:
            await asyncio.wait(set(self._watches.values()), timeout=EXIT_TIMEOUT)
        for process in self._watches:
            process.kill()
        if self._watches:
            await asyncio.wait(set(self._watches.values()))


class Fleet:
    """All members, all writers, and the producer."""

    def __init__(self, history: Writer, directory: Path, setup: dict[str, Any]) -> None:
        self.places: list[Place] = []
        """The members'."""
        self.writers: list[Place] = []
        self.networks: list[Network] = []
        self._history = history
        self._directory = directory
        self._setup = {**setup, "directory": str(directory)}
        self._producer: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def running(self, ports: Sequence[int]) -> AsyncGenerator[None]:
        """All processes, each behind a network of its own before the servers with these ports."""
        async with contextlib.AsyncExitStack() as stack:
            for delay in (*[0.0] * (MEMBERS + 1), *[WRITERS_DELAY] * WRITERS):
                self.networks.append(await stack.enter_async_context(Network(ports, delay).opened()))
            before_producer, *networks = self.networks
            for number, network in enumerate(networks[:MEMBERS]):
                setup = self._setup | _member(number, self._setup["presence"])
                self.places.append(self._place(f"m{number}", "tests.proof.chaos.member", network, setup))
            for number, network in enumerate(networks[MEMBERS:]):
                self.writers.append(self._place(f"w{number}", "tests.proof.chaos.writer", network, self._setup))
            await asyncio.gather(*(place.renew() for place in (*self.places, *self.writers)))
            setup = {**self._setup, "proxies": before_producer.setup}
            with (self._directory / "producer.log").open("wb") as log:
                self._producer = await start(
                    "tests.proof.chaos.producer", setup, stderr=log, stdout=asyncio.subprocess.PIPE
                )
            try:
                yield
            finally:
                await asyncio.gather(*(place.close() for place in (*self.places, *self.writers)))
                if self._producer.returncode is None:
                    self._producer.kill()
                await self._producer.wait()

    def _place(self, name: str, module: str, network: Network, setup: dict[str, Any]) -> Place:
        return Place(name, module, network, self._history, self._directory, setup)

    async def stop_writing(self) -> None:
        """All writers finish what they have begun, and leave."""
        await asyncio.gather(*(place.close() for place in self.writers))

    async def joined(self) -> None:
        """Wait until all members have joined."""
        await wait_until(
            lambda: all(place.joined for place in self.places), "all members have joined", JOIN_TIMEOUT
        )

    async def explain(self) -> None:
        """Have all members write into their logs where their tasks stand."""
        for place in self.places:
            with contextlib.suppress(NotNow):
                place.running()
                place.send(signal.SIGUSR1)
        await asyncio.sleep(1.0)

    def direct_to(self, port: int) -> None:
        """From now on the server is another one."""
        for network in self.networks:
            network.direct_to(port)

    def tell_producer(self, order: str) -> None:
        """Give the producer an order."""
        assert self._producer is not None
        assert self._producer.stdin is not None
        self._producer.stdin.write(f"{order}\n".encode())

    async def producer_says(self, word: str, timeout: float) -> None:
        """Wait for the producer's next word."""
        assert self._producer is not None
        assert self._producer.stdout is not None
        async with asyncio.timeout(timeout):
            said = (await self._producer.stdout.readline()).decode().strip()
        if said != word:
            log = (self._directory / "producer.log").read_text()
            raise RuntimeError(f"the producer said {said!r} instead of {word!r}:\n{log}")


def _member(number: int, presence: str) -> dict[str, Any]:
    """What only the member in this place is told."""
    present = number in PRESENT if presence == "mixed" else presence == "on"
    return {"mode": "events" if number in BY_EVENTS else "run", "presence": present}


async def start(module: str, setup: dict[str, Any], **streams: Any) -> asyncio.subprocess.Process:
    """Start a program that dies with this one."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, json.dumps(setup)),
        stdin=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
        **streams,
    )
