"""Real worker processes, to be killed and frozen: the program that they run is `worker.py` beside this."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.harness.processes import die_with_parent
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """What a worker reports, one line of JSON each; fields that do not apply are empty.

    `event` is joined, left, added, expired, disowned, claimed, already_claimed, gone, not_claimed or done.
    """

    event: str
    time: float
    """The worker's `time.time()`."""
    client: str
    """The worker's consumer id."""
    stream: str = ""
    lbs_id: str = ""
    fence: str = ""
    detail: str = ""


class Worker:
    """A worker process that joins a service and takes what it is given; `async with` starts and kills it.

    It claims every expired stream at once unless `claim` is false, and finishes whatever it gets at once if
    `finish` is true. Further `options` are arguments of `RedisStreamClient`.
    """

    program = "tests.harness.worker"
    """The module that the process runs."""

    def __init__(
        self,
        *,
        url: str,
        service: str,
        lock_ttl: float = 2.0,
        claim: bool = True,
        finish: bool = False,
        **options: Any,
    ) -> None:
        self._setup = json.dumps(
            {
                "url": url,
                "service": service,
                "claim": claim,
                "finish": finish,
                "options": {"lock_ttl": lock_ttl, **options},
            }
        )
        self.events: list[WorkerEvent] = []
        """Everything it has reported so far."""
        self.errors = ""
        """What else it has written, such as a traceback."""
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start the process; `joined()` waits until it is a member."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.program, self._setup),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        self._readers = [
            asyncio.create_task(self._read_events(self._process.stdout), name="worker events"),
            asyncio.create_task(self._read_errors(self._process.stderr), name="worker errors"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send(signal.SIGKILL)
        await self.exit_code()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process itself."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def client(self) -> str:
        """Its consumer id, known once it has joined."""
        return self.events[0].client

    async def joined(self, timeout: float = 20.0) -> Self:
        """Wait until it is a member of its service."""
        await self.wait_for_event(lambda event: event.event == "joined", timeout)
        return self

    async def wait_for_event(
        self, predicate: Callable[[WorkerEvent], object], timeout: float = 10.0
    ) -> WorkerEvent:
        """Return the first event, reported already or still to come, that the predicate likes."""

        def find() -> WorkerEvent | None:
            for event in self.events:
                if predicate(event):
                    return event
            assert not self._ended(), f"the worker has ended: {self.errors or self.events}"
            return None

        try:
            return await wait_until(find, "the worker reports it", timeout)
        except AssertionError as error:
            error.add_note(f"it has reported: {self.events}\nand said: {self.errors}")
            raise

    async def exit_code(self, timeout: float = 10.0) -> int:
        """Wait for its end and for the last of its events."""
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to leave in an orderly way."""
        self._send(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it in its tracks, as a suspended machine or a swapped-out process would be."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _ended(self) -> bool:
        return all(reader.done() for reader in self._readers)

    async def _read_events(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            if line.startswith(b"{"):
                self.events.append(WorkerEvent(**json.loads(line)))
            else:
                self.errors += line.decode(errors="replace")

    async def _read_errors(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            self.errors += line.decode(errors="replace")


class Crowd(Worker):
    """A process with as many members as its option `clients` says: the program `crowd.py` beside this."""

    program = "tests.harness.crowd"

    @property
    def clients(self) -> list[str]:
        """The consumer ids of those that have joined so far."""
        return [event.client for event in self.events if event.event == "joined"]
