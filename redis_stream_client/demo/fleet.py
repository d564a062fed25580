"""The worker processes: started, listened to, killed, frozen, woken, and always ended."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

from redis_stream_client.demo.children import die_with_parent
from redis_stream_client.demo.history import worker_of
from redis_stream_client.demo.settings import WORK, Settings

State = Literal["starting", "alive", "killed", "frozen", "woken", "draining", "left"]

ERROR_LINES = 40  # the last ones that are kept of each worker
DRAIN_TIMEOUT = 5.0
FRAME = " |+-"  # what Python draws around the tracebacks of an exception group


class WorkerProcess:
    """One worker process. `state` is what the demo has made of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name: str = f"worker-{number}"
        self.consumer = ""
        """Its consumer id, known once it has joined."""
        self.state: State = "starting"
        self.errors: deque[str] = deque(maxlen=ERROR_LINES)
        """The last lines of its standard error."""
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self, url: str, settings: Settings) -> None:
        """Start the process, and give it its setup: by a pipe, since a URL may hold a password."""
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "redis_stream_client.demo.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the demo's to handle
            preexec_fn=die_with_parent(),
        )
        assert process.stdin is not None
        assert process.stderr is not None
        setup = {
            "url": url,
            "service": settings.service,
            "name": self.name,
            "lock_ttl": settings.lock_ttl,
            "work": WORK,
        }
        self._listener = asyncio.create_task(self._read_errors(process.stderr))
        with contextlib.suppress(ConnectionError):  # it has ended already, which is noticed below
            process.stdin.write(json.dumps(setup).encode() + b"\n")
            await process.stdin.drain()

    @property
    def failure(self) -> str | None:
        """How it ended, if the demo did not want that."""
        code = None if self._process is None else self._process.returncode
        if code is None or self.state == "killed" or (self.state in ("draining", "left") and code == 0):
            return None
        errors = [text for line in self.errors if (text := line.strip(FRAME))]
        return f"{self.name} ended with status {code}: {errors[-1] if errors else 'it says nothing'}"

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None and self._process.returncode is None:
            self.state = "killed"
        self._send(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it in its tracks, as a suspended machine or a long pause would."""
        self.state = "frozen"
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with no idea how long it was gone."""
        self.state = "woken"
        self._send(signal.SIGCONT)

    def drain(self) -> None:
        """Ask it to leave, as whoever deploys a new version would."""
        if self._process is not None and self._process.returncode is None:
            self.state = "draining"
        self._send(signal.SIGTERM)

    async def leave(self) -> bool:
        """Wait until it has left, as it was asked to. Returns whether it did so in time and in good order."""
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                if await self._process.wait() == 0:
                    self.state = "left"
                await self._listen_to_the_end()
        return self.state == "left"

    async def destroy(self) -> None:
        """Leave nothing behind."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        await self._listen_to_the_end()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _listen_to_the_end(self) -> None:
        if self._listener is not None:
            await asyncio.wait((self._listener,))

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.errors.append(line.decode(errors="replace").rstrip())


class Fleet:
    """All worker processes. Leaving the block kills what is left of them."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.workers: list[WorkerProcess] = [WorkerProcess(number) for number in range(1, settings.workers + 1)]
        """All that ever were."""
        self.placement: list[WorkerProcess] = list(self.workers)
        """Those of now: who is replaced leaves its place to its successor."""
        self._url = url
        self._settings = settings

    async def __aenter__(self) -> "Fleet":
        """Start them; they join in their own time."""
        try:
            await asyncio.gather(*(worker.start(self._url, self._settings) for worker in self.workers))
        except BaseException:
            await self._destroy()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._destroy()

    async def _destroy(self) -> None:
        await asyncio.gather(*(worker.destroy() for worker in self.workers))

    async def replace(self, worker: WorkerProcess) -> WorkerProcess:
        """Start a fresh one in its place."""
        fresh = WorkerProcess(len(self.workers) + 1)
        self.workers.append(fresh)
        self.placement[self.placement.index(worker)] = fresh
        await fresh.start(self._url, self._settings)
        return fresh

    async def end(self) -> None:
        """Ask all to leave, and wait until they have."""
        living = [worker for worker in self.placement if worker.state != "killed"]
        for worker in living:
            worker.drain()
        await asyncio.gather(*(worker.leave() for worker in living))

    def recognise(self, consumers: Iterable[str]) -> None:
        """These consumers have joined."""
        starting = {worker.name: worker for worker in self.workers if worker.state == "starting"}
        for consumer in consumers:
            if (worker := starting.get(worker_of(consumer))) is not None:
                worker.consumer = consumer
                worker.state = "alive"

    def in_state(self, state: State) -> list[WorkerProcess]:
        """Those of now that are in this state."""
        return [worker for worker in self.placement if worker.state == state]

    @property
    def joined(self) -> bool:
        """Whether nobody is still starting."""
        return all(worker.consumer for worker in self.workers)

    @property
    def failures(self) -> list[str]:
        """How workers ended that should not have."""
        return [worker.failure for worker in self.workers if worker.failure is not None]
