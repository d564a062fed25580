"""Real servers on private ports, which a test may stop, freeze and restart."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from tests.harness.binaries import chosen, locate
from tests.harness.ports import HOST, free_port
from tests.harness.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from tests.harness.connection import Connection

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
ATTEMPTS = 10
SMALL_OUTPUT_BUFFERS = ("--client-output-buffer-limit", "normal", "16mb", "16mb", "0")
"""Arguments of a server that cuts a client for which more than 16 MB lie ready, as some managed services do.

What the kernel and a proxy hold does not count: a reply of 32 MB on a slow line exceeds it for certain.
"""

SYNC_AT_ONCE = ("--repl-diskless-sync", "no", "--repl-diskless-load", "on-empty-db")
"""Arguments of servers that replicate: a first copy takes 0.1 s, and a replica gets at once what is written then.

By default both wait for something that is done once a second, or longer.
"""


class Server:
    """A server process of our own on 127.0.0.1, empty, writing nothing to disk unless told to.

    `name` is one of `binaries.SERVERS` (default: the one that the suite runs on); `arguments` are further
    command-line arguments, such as `"--maxmemory", "10mb"`, and win over the defaults. The port stays the
    same over restarts. Everything here blocks, a start for
    some 30 ms: an async test whose event loop must not stall meanwhile uses `asyncio.to_thread`.
    """

    def __init__(self, *arguments: str, name: str | None = None) -> None:
        self.binary = locate(name or chosen())
        self.arguments = arguments
        self.port = 0
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "stopped"
        return f"<Server {self.binary.name} port {self.port} {state}{' frozen' if self._frozen else ''}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether it hangs."""
        return self._frozen

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def url(self) -> str:
        """What to give to `Redis.from_url`, for database 0; `f"{url}/1"` is database 1."""
        return f"redis://{HOST}:{self.port}"

    @property
    def directory(self) -> Path:
        """The server's own temporary directory: its log and its data."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="rsc-server-"))
        return self._directory

    def start(self) -> None:
        """Start the server, with the data left by `stop(keep_data=True)`, and return when it answers."""
        assert not self.running, f"{self!r} runs already"
        atexit.register(self.close)
        deadline = time.monotonic() + START_TIMEOUT
        chosen_before = bool(self.port)
        for _ in range(ATTEMPTS):
            if not chosen_before:
                self.port = free_port()
            if self._launch(deadline):
                return
        raise RuntimeError(f"{self!r} could not be started:\n{self.log()}")

    def stop(self, *, keep_data: bool = False) -> None:
        """Stop the server; with `keep_data` the next start finds what is in it now, else nothing."""
        if self.running:
            self.thaw()
            if keep_data:
                self.command("SAVE")
            self._end(signal.SIGTERM)
        if not keep_data:
            self._remove_data()

    def kill(self) -> None:
        """Kill the server as a crash would; what it had not written to disk is lost."""
        self._end(signal.SIGKILL)

    def restart(self, *, keep_data: bool) -> None:
        """Stop and start it, on the same port, with its data or without any."""
        self.stop(keep_data=keep_data)
        self.start()

    def freeze(self) -> None:
        """Make the server hang: its connections stay open, and nothing is answered until `thaw`."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Let a frozen server go on; it then executes what arrived meanwhile."""
        self._signal(signal.SIGCONT)
        self._frozen = False

    def close(self) -> None:
        """End the process and remove its directory; the server may be started afresh later."""
        atexit.unregister(self.close)
        self._end(signal.SIGKILL)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def command(self, *words: str | bytes | float) -> Any:
        """Execute one command over a connection of its own; never repeated, at most 5 s."""
        with self.commands() as command:
            return command(*words)

    @contextlib.contextmanager
    def commands(self) -> Generator[Callable[..., Any]]:
        """Give a function that executes commands as `command` does, all of them over one connection."""
        client: Connection
        with redis.Redis.from_url(self.url, socket_timeout=5.0) as client:
            yield client.execute_command

    def log(self) -> str:
        """Return what the server has said so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _launch(self, deadline: float) -> bool:
        """Start the process; False when it ended at once, as it does if somebody else took the port."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command_line(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            )
        while time.monotonic() < deadline:
            if not self.running:
                return False
            if self._answers():
                return True
            time.sleep(0.002)
        self._end(signal.SIGKILL)
        raise TimeoutError(f"{self!r} did not answer within {START_TIMEOUT:g} s:\n{self.log()}")

    def _command_line(self) -> list[str]:
        options = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.directory)]
        options += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        if self.binary.version >= (7, 0):  # before, DEBUG was always allowed
            options += ["--enable-debug-command", "local"]
        return [str(self.binary.path), *options, *self.arguments]

    def _answers(self) -> bool:
        # Whoever else listens on this port would answer a PING as well: ask for the process id.
        with contextlib.suppress(redis.RedisError):
            return bool(self.command("INFO", "server")["process_id"] == self.pid)
        return False

    def _remove_data(self) -> None:
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "log":
                path.unlink()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._frozen = False


def clients_of(server: Server) -> list[dict[str, str]]:
    """What `CLIENT LIST` says of a server's clients: without who asks, replicas, masters and sentinels."""
    lines = server.command("CLIENT", "LIST").decode().splitlines()
    clients = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return [
        client
        for client in clients
        if client["cmd"] not in ("client", "client|list")
        and client["flags"] not in ("S", "M")
        and not client["name"].startswith("sentinel-")
    ]
