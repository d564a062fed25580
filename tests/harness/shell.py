"""A shell that knows the few commands of the documents' console blocks, on a server of the tests."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from tests.harness.documents import ROOT
from tests.harness.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.servers import Server

SIGNALS = {"-9": signal.SIGKILL, "-KILL": signal.SIGKILL, "-STOP": signal.SIGSTOP, "-CONT": signal.SIGCONT}


class Shell:
    """Runs programs before and behind, `kill`, `export`, `redis-cli` and `redis-stream-client`.

    What is behind prints whenever it likes: a block shows a line of it where it is waited for.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.jobs: dict[int, asyncio.subprocess.Process] = {}
        """What runs behind, by number. A new one gets the next after the greatest, as in bash."""
        self._started: list[asyncio.subprocess.Process] = []
        self.lines: list[str] = []
        """What the programs have printed so far, errors too."""
        self._server = server
        self._readers: list[asyncio.Task[None]] = []
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}

    def write(self, name: str, text: str) -> None:
        """Write a program, which finds the server where it looks for Redis."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(text), encoding="utf-8")

    async def run(self, command: str) -> None:
        """Run a command; one that ends in `&` goes on in the background."""
        program, *arguments = shlex.split(self._here(command).removesuffix("&"), comments=True)
        match program:
            case "kill":
                name, job = arguments if len(arguments) > 1 else ("-TERM", *arguments)
                self._signal(job.removeprefix("%"), SIGNALS.get(name, signal.SIGTERM))
            case "export":
                self._environment |= dict(argument.split("=", 1) for argument in arguments)
            case "redis-cli":
                await self._ask_redis(arguments)
            case "python":
                await self._start([*arguments], background=command.endswith("&"))
            case "redis-stream-client":
                await self._start(["-m", "redis_stream_client", *arguments], background=command.endswith("&"))
            case _:
                raise AssertionError(f"a document may not use this command: {command}")

    async def close(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(*self._readers)

    def _signal(self, name: str, number: signal.Signals) -> None:
        job = max(self.jobs) if name == "%" else int(name)
        self.jobs[job].send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):  # until the reader types the next command, it has ended
            del self.jobs[job]

    def _here(self, text: str) -> str:
        return re.sub(r"redis://localhost(:6379)?", self._server.url, text)

    async def _start(self, arguments: list[str], *, background: bool) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", *arguments),
            cwd=self.folder,
            env=self._environment | {"REDIS_URL": self._server.url},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=die_with_parent(),
        )
        reader = asyncio.create_task(self._read(process.stdout))
        self._readers.append(reader)
        self._started.append(process)
        if background:
            self.jobs[max(self.jobs, default=0) + 1] = process
            return
        await reader
        if await process.wait() and arguments[0] != "-m":  # commands say themselves what is wrong
            self.lines.append(f"exit status {process.returncode}")

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            self.lines.append(line.decode().rstrip("\n"))

    async def _ask_redis(self, words: list[str]) -> None:
        async with Redis(host="127.0.0.1", port=self._server.port, decode_responses=True) as redis:
            redis.response_callbacks.clear()
            execute: Callable[..., Any] = redis.execute_command
            self.lines += as_redis_cli_shows(await execute(*words))


def as_redis_cli_shows(reply: Any) -> list[str]:
    """A reply as `redis-cli` prints it on a terminal."""
    if isinstance(reply, list):
        if not reply:
            return ["(empty array)"]
        lines = []
        width = len(str(len(reply)))
        for number, item in enumerate(reply, 1):
            first, *rest = as_redis_cli_shows(item)
            lines += [f"{number:>{width}}) {first}", *(f"{'':{width + 2}}{line}" for line in rest)]
        return lines
    if isinstance(reply, int):
        return [f"(integer) {reply}"]
    return ["(nil)"] if reply is None else ["OK"] if reply == "OK" else [f'"{reply}"']
