"""The command line as a whole: its help, its mistakes, its exit statuses, and completion in a real shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Literal

import pytest

from redis_stream_client import __version__, cli
from redis_stream_client.cli import app
from redis_stream_client.cli.app import NAME
from tests.harness.commands import run_command, start_program

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("status", "streams", "owner", "drain", "evict", "release", "pause", "resume", "dead", "demo")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_the_help_names_the_commands_and_how_redis_is_found(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, printed, errors = run_command(capsys, *arguments)
    assert (status, errors) == (0 if arguments else 2, [])
    text = "\n".join(printed)
    assert described(text) == [*COMMANDS]
    assert all(word in text for word in ("redis+sentinel://", "REDIS_PASSWORD", "--install-completion", "1h30m"))


def described(text: str) -> list[str]:
    """The commands that a help lists with what they do."""
    return re.findall(r"^│ (\w+) +[A-Z]\w+ ", text, re.MULTILINE)


def test_a_new_process_knows_what_the_commands_do() -> None:
    with start_program("-h") as program:
        said, _ = program.communicate(timeout=30)
    assert described(said) == [*COMMANDS]


@pytest.mark.parametrize("command", [*COMMANDS, "dead list", "dead put-back", "dead discard"])
def test_each_command_has_a_help_that_says_the_exit_status(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    status, printed, _ = run_command(capsys, *command.split(), "--help")
    text = " ".join(" ".join(printed).split())
    assert status == 0
    assert f"Usage: {NAME} {command} " in text
    if " " not in command:
        assert "xit status" in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(capsys, "--version") == (0, [f"{NAME} {__version__}"], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statu"], 'Unknown command "statu". Did you mean "status"?'),
        (["status", "--wach", "--service", "orders"], "status: Unknown option: --wach. Did you mean --watch?"),
        (["status", "--servce", "orders"], "--service is missing; give it, or set REDIS_STREAM_SERVICE. Did you"),
        (["status"], "status: --service is missing; give it, or set REDIS_STREAM_SERVICE"),
        (["owner", "--service", "orders"], "owner: STREAM is missing"),
        (["owner", "a", "b", "--service", "orders"], "owner: unexpected: b"),
        (["status", "--service"], "status: --service needs a value"),
        (["status", "--service", "{"], "status: service has unbalanced braces: '{'"),
        (["streams", "--behind", "soon", "--service", "orders"], "'soon' is not a duration, such as 30s"),
        (["streams", "--limit", "-1", "--service", "orders"], "--limit"),
        (["status", "--interval", "1ms", "--service", "orders"], "'1ms' is less than 100ms"),
        (["status", "--watch", "--fail-if-behind", "1", "--service", "orders"], "leave out --watch"),
        (["status", "\x1b[2J", "--service", "orders"], r"unexpected: \x1b[2J"),
    ],
)
def test_a_mistake_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, printed, errors = run_command(capsys, *arguments)
    assert (status, printed, len(errors)) == (2, [], 1)
    assert errors[0].startswith(NAME)
    assert message in errors[0]


def test_without_the_extra_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("redis_stream_client.cli.", "cyclopts")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(cli, "app")
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert run_command(capsys, "status") == (
        2,
        [],
        [f'{NAME}: the command line needs cyclopts: pip install "redis-stream-client[cli]"'],
    )


def test_an_interrupted_command_has_the_status_of_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "perform", interrupted)
    assert cli.main(["status"]) == 130


# Completion.


@cache
def completion(shell: Literal["bash", "zsh", "fish"]) -> str:
    return app.app.generate_completion(shell=shell)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("st", ["status", "streams"]),
        ("dead ", ["discard", "list", "put-back"]),
        ("dead put", ["put-back"]),
        ("status --wa", ["--watch"]),
        ("status --watch --fail", ["--fail-if-behind"]),
        ("streams --service orders --be", ["--behind"]),
        ("release --fo", ["--force"]),
    ],
)
def test_bash_completes_commands_and_options(tmp_path: Path, line: str, completed: list[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("COMPLETION NOT TESTED: there is no bash")
    script = tmp_path / "completion"
    script.write_text(completion("bash"))
    words = [NAME, *line.split(" ")]
    ask = (
        f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        f"$(complete -p {NAME} | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    said = subprocess.run(
        [bash, "--norc", "-c", ask, "bash", *words], capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stderr == ""
    assert sorted(said.stdout.split()) == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(
    capsys: pytest.CaptureFixture[str], shell: Literal["bash", "zsh", "fish"]
) -> None:
    status, printed, errors = run_command(capsys, "--show-completion", shell)
    assert (status, printed, errors) == (0, completion(shell).splitlines(), [])
    assert all(command in completion(shell) for command in COMMANDS)


def test_the_completion_is_installed_for_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    status, printed, errors = run_command(capsys, "--install-completion", "bash")
    assert (status, errors) == (0, [])
    [script] = tmp_path.rglob("completions/*")
    assert printed == [f"installed in {script}; start a new shell"]
    assert str(script) in (tmp_path / ".bashrc").read_text()
    status, _, errors = run_command(capsys, "--install-completion", "tcsh")
    assert status == 2
    assert len(errors) == 1
    monkeypatch.setenv("HOME", os.devnull)
    status, _, [error] = run_command(capsys, "--install-completion", "bash")
    assert status == 2
    assert "cannot install the completion" in error
