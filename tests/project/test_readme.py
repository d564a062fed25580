"""The README: its programs run and print what it shows, and its commands are those that this project uses."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.harness.processes import die_with_parent
from tests.harness.readme import BLOCKS, COMMANDS, OUTPUTS, PROGRAMS, ROOT, SESSION, TEXT
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers import Server


class Shell:
    """Runs the README's console session: programs before and behind, and `kill`."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        for name, text in PROGRAMS.items():
            program = text.replace("redis://localhost", server.url)
            (folder / name).write_text(program, encoding="utf-8")
        self.jobs: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self.lines: list[str] = []
        """What the programs have printed so far, errors too."""

    async def run(self, command: str) -> None:
        """Run a command; one that ends in `&` goes on in the background."""
        program, *arguments = shlex.split(command.removesuffix("&"))
        if program == "kill":
            self.jobs[int(arguments[1].removeprefix("%")) - 1].kill()
            return
        assert program == "python", command
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", *arguments),
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=die_with_parent(),
        )
        self._readers.append(asyncio.create_task(self._read(process.stdout)))
        self.jobs.append(process)
        if not command.endswith("&"):
            self.jobs.remove(process)
            await self._readers[-1]
            assert await process.wait() == 0, self.lines

    async def close(self) -> None:
        """Kill what still runs."""
        for process in self.jobs:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(*self._readers)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            self.lines.append(line.decode().rstrip("\n"))


def test_every_program_has_a_name_and_is_run_by_a_test() -> None:
    run_by_session = set(re.findall(r"\w+\.py", SESSION))
    assert len(PROGRAMS) == sum(language == "python" for language, _ in BLOCKS)
    assert set(PROGRAMS) == run_by_session | set(OUTPUTS) | {"connections.py"}


@pytest.mark.parametrize("name", OUTPUTS)
async def test_a_program_prints_what_the_readme_shows(server: Server, tmp_path: Path, name: str) -> None:
    shell = Shell(tmp_path, server)
    await shell.run(f"python {name}")
    assert shell.lines == OUTPUTS[name].splitlines()


async def test_the_clients_of_every_deployment_can_be_made(server: Server, tmp_path: Path) -> None:
    shell = Shell(tmp_path, server)
    await shell.run("python connections.py")
    assert len(shell.lines) == PROGRAMS["connections.py"].count("print(")
    assert all(line.startswith("<RedisStreamClient 'orders' ") for line in shell.lines)


async def test_a_killed_worker_is_replaced_as_the_session_shows(server: Server, tmp_path: Path) -> None:
    shell = Shell(tmp_path, server)
    expected: list[str] = []
    try:
        for line in SESSION.splitlines():
            if line.startswith("$ "):
                await shell.run(line.removeprefix("$ "))
                continue
            expected.append(line)
            await wait_until(lambda: len(shell.lines) >= len(expected), f"printed: {line}", timeout=20)
        assert shell.lines == expected
    finally:
        await shell.close()


def test_the_first_screen_has_two_commands() -> None:
    assert COMMANDS == ['pip install -e ".[demo]" && redis-stream-client demo', "pip install nox && nox"]


def test_the_test_command_is_the_one_of_the_continuous_integration() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution has no .ci")
    assert COMMANDS[1] in script.read_text(encoding="utf-8")


def test_the_demo_command_is_the_one_of_nox() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    install, run = (shlex.split(command) for command in COMMANDS[0].split(" && "))
    assert install[:2] == ["pip", "install"]
    for call, words in (("session.install", install[2:]), ("session.run", run)):
        arguments = ", ".join(f'"{word}"' for word in words)
        assert f"{call}({arguments}" in noxfile


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
