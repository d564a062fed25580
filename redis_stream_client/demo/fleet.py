"""The worker processes: started, listened to, killed, frozen, woken, and always ended."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from redis_stream_client.demo.children import die_with_parent
from redis_stream_client.demo.reports import Report
from redis_stream_client.demo.settings import Settings

State = Literal["starting", "alive", "killed", "frozen", "woken", "ended"]

ERROR_LINES = 40  # the last ones that are kept of each worker
END_TIMEOUT = 4.0
FRAME = " |+-"  # what Python draws around the tracebacks of an exception group


class WorkerProcess:
    """One worker process. `state` is what the demo has made of it."""

    def __init__(self, number: int, on_report: Callable[[Report], None]) -> None:
        self.number = number
        self.name = f"worker-{number}"
        self.consumer = ""
        """Its consumer id, known once it has joined."""
        self.state: State = "starting"
        self.errors: deque[str] = deque(maxlen=ERROR_LINES)
        """The last lines of its standard error."""
        self._on_report = on_report
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, url: str, settings: Settings) -> None:
        """Start the process, and give it its setup: by a pipe, since a URL may hold a password."""
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "redis_stream_client.demo.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the demo's to handle
            preexec_fn=die_with_parent(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        setup = {
            "url": url,
            "service": settings.service,
            "name": self.name,
            "lock_ttl": settings.lock_ttl,
            "work": settings.work,
        }
        self._readers = [
            asyncio.create_task(self._read_reports(process.stdout)),
            asyncio.create_task(self._read_errors(process.stderr)),
        ]
        with contextlib.suppress(ConnectionError):  # it has ended already, which is noticed below
            process.stdin.write(json.dumps(setup).encode() + b"\n")
            await process.stdin.drain()

    @property
    def failure(self) -> str | None:
        """How it ended, if the demo did not want that."""
        code = None if self._process is None else self._process.returncode
        if code is None or self.state == "killed" or (self.state == "ended" and code == 0):
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

    async def end(self) -> None:
        """Ask it to leave, and wait until it has."""
        if self.state == "killed" or self._process is None or self._process.stdin is None:
            return
        if self._process.returncode is None:
            self.state = "ended"
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
                await asyncio.wait(self._readers)

    async def destroy(self) -> None:
        """Leave nothing behind."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        if self._readers:
            await asyncio.wait(self._readers)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _read_reports(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            try:
                report = Report.decode(line)
            except (TypeError, ValueError):
                if line.endswith(b"\n"):  # else the worker was killed in the middle of it
                    self.errors.append(f"not a report: {line!r}")
                continue
            if report.kind == "joined":
                self.consumer = report.consumer
                self.state = "alive"
            self._on_report(report)

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.errors.append(line.decode(errors="replace").rstrip())


class Fleet:
    """All worker processes. Leaving the block kills what is left of them."""

    def __init__(self, url: str, settings: Settings, on_report: Callable[[Report], None]) -> None:
        self.workers = [WorkerProcess(number, on_report) for number in range(1, settings.workers + 1)]
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

    async def end(self) -> None:
        """Ask all to leave."""
        await asyncio.gather(*(worker.end() for worker in self.workers))

    @property
    def joined(self) -> bool:
        """Whether all have joined the service."""
        return all(worker.consumer for worker in self.workers)

    @property
    def consumers(self) -> list[str]:
        """The consumer ids of those that have joined."""
        return [worker.consumer for worker in self.workers if worker.consumer]

    @property
    def failures(self) -> list[str]:
        """How workers ended that should not have."""
        return [worker.failure for worker in self.workers if worker.failure is not None]

    def name_of(self, consumer: str) -> str:
        """The worker's name of a consumer id."""
        for worker in self.workers:
            if worker.consumer == consumer:
                return worker.name
        return consumer or "nobody"
