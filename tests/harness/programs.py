"""Programs that run as a user runs them, and what they print."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.harness.documents import ROOT
from tests.harness.processes import die_with_parent
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType

START = 20.0  # seconds that a program may take to start, and to do its first work


class Program:
    """A Python program that runs; `async with` starts it, and kills it at the end."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        """What it has printed so far, errors too."""
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *self._arguments),
            cwd=ROOT,
            env=os.environ | self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=die_with_parent(),
        )
        self._reader = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        if error is not None:
            error.add_note("\n".join([f"{self._arguments} has printed:", *self.lines]))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for its end, and for the last of what it prints."""
        assert self._process is not None
        assert self._reader is not None
        async with asyncio.timeout(START):
            code = await self._process.wait()
            await self._reader
        return code

    async def kill(self) -> None:
        """Kill it as a crash would."""
        self.send(signal.SIGKILL)
        await self.exit_code()

    async def printed(self, pattern: str) -> re.Match[str]:
        """Wait for a line with this pattern."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        return await wait_until(found, f"printed: {pattern}", START)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            self.lines.append(line.decode().rstrip("\n"))
