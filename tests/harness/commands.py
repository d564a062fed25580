"""The command line in a test: run within this process, or as a program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from redis_stream_client import cli
from tests.harness.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Generator

    import pytest

    from tests.harness.servers import Server
    from tests.harness.terminal import Terminal

PROGRAM = (sys.executable, "-W", "error", "-m", "redis_stream_client")
VARIABLES = ("REDIS_URL", "REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD", "REDIS_STREAM_SERVICE", "CI", "NO_COLOR")
"""What a developer's environment may have, and the command line reads."""


class Result(NamedTuple):
    """How a command ended: its exit status, and the lines that it printed, as output and as errors."""

    status: int
    printed: list[str]
    errors: list[str]


class CommandLine:
    """Runs commands about one service on one server."""

    def __init__(self, capsys: pytest.CaptureFixture[str], url: str, service: str) -> None:
        self._capsys = capsys
        self._where = ("--redis", url, "--service", service)

    def __call__(self, command: str, *arguments: str) -> Result:
        """Run a command here; it must leave no traceback."""
        return run_command(self._capsys, command, *arguments, *self._where)


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    """Run the command line within this process."""
    capsys.readouterr()
    status = cli.main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return Result(status, said.out.splitlines(), said.err.splitlines())


@contextlib.contextmanager
def start_program(
    *arguments: str, terminal: Terminal | None = None, **settings: Any
) -> Generator[subprocess.Popen[str]]:
    """Start it as a program, on a terminal or with pipes; kill it in the end, if it still runs."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"TERM": "xterm"} | settings.pop("environment", {})
    if terminal is None:
        ends: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    else:
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.its_end)
        ends["preexec_fn"] = terminal.take_control
    settings = {"preexec_fn": die_with_parent()} | ends | settings
    with subprocess.Popen([*PROGRAM, *arguments], text=True, env=environment, **settings) as program:
        try:
            yield program
        finally:
            program.kill()


def program_of(server: Server, service: str) -> dict[str, str]:
    """The environment in which a program is about this service."""
    return {"REDIS_URL": server.url, "REDIS_STREAM_SERVICE": service}
