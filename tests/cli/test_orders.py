"""`drain`, `evict`, `release`, `pause` and `resume`: what they say, and when they ask."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import cli
from redis_stream_client._model.keys import Keys
from tests.harness.commands import program_of, run_command, start_program
from tests.harness.masses import make_members, make_streams
from tests.harness.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.commands import CommandLine
    from tests.harness.servers import Server


@pytest.fixture
def fleet(server: Server, service: str) -> str:
    """Two members that live and never answer, and four streams."""
    make_members(server, service, 2)
    make_streams(server, service, 4, members=2)
    return service


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    with Terminal() as terminal:
        yield terminal


def answered(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, answer: str, *arguments: str) -> int:
    """Run a command on the terminal, and answer its question."""
    terminal.type(answer)
    with (
        os.fdopen(os.dup(terminal.its_end)) as keyboard,
        os.fdopen(os.dup(terminal.its_end), "w") as screen,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", keyboard)
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        return cli.main(arguments)


def pending(server: Server, service: str, member: str) -> int:
    """How many announcements this member has."""
    script = "return #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100, ARGV[2])"
    return int(server.command("EVAL", script, 1, Keys(service).lbs, Keys(service).group, member))


def test_a_member_drains(server: Server, fleet: str, command: CommandLine) -> None:
    assert command("drain", "member-0", "--timeout", "0") == (0, ["member-0 is to drain, with 2 streams"], [])
    status, printed, [error] = command("drain", "member-0", "--timeout", "50ms")
    assert (status, printed) == (1, [])
    assert "has not left within 0.05 s; it is still to drain" in error
    _, printed, _ = command("status")
    assert [line.split()[1] for line in printed if line.startswith("member-")] == ["draining", "alive"]
    server.command("DEL", Keys(fleet).lock("member-0"))
    assert command("drain", "member-0") == (0, ["member-0 has left"], [])


@pytest.mark.parametrize("order", ["drain", "evict"])
def test_a_member_that_is_not_there(fleet: str, command: CommandLine, order: str) -> None:
    status, printed, [error] = command(order, "member-7")
    assert (status, printed) == (1, [])
    assert error == f"redis-stream-client {order}: no member is called member-7"


def test_a_member_is_evicted(server: Server, fleet: str, command: CommandLine) -> None:
    status, printed, [error] = command("evict", "member-0")
    assert (status, printed) == (2, [])
    assert error.endswith("member-0, which is alive and has 2 streams? there is no terminal to ask on: give --yes")
    assert pending(server, fleet, "member-0") == 2
    assert command("evict", "member-0", "--yes") == (0, ["member-0 is evicted: 2 streams released"], [])
    assert pending(server, fleet, "member-0") == 0
    server.command("DEL", Keys(fleet).lock("member-1"))
    assert command("evict", "member-1", "--yes") == (
        0,
        ["member-1 was dead: its peers take over what it has left"],
        [],
    )


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_on_a_terminal_it_asks_and_does_it(
    server: Server, fleet: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    where = ("--redis", server.url, "--service", fleet)
    assert answered(terminal, monkeypatch, answer, "evict", "member-0", *where) == 0
    terminal.wait_for("evict member-0, which is alive and has 2 streams? [y/N] ")
    assert pending(server, fleet, "member-0") == 0


@pytest.mark.parametrize("answer", ["n\n", "\n", "yeah\n", "\x04"])
@pytest.mark.parametrize("order", [["evict", "member-0"], ["release", "call-0", "--force", "--timeout", "0"]])
def test_another_answer_does_nothing(
    server: Server,
    fleet: str,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    order: list[str],
    answer: str,
) -> None:
    assert answered(terminal, monkeypatch, answer, *order, "--redis", server.url, "--service", fleet) == 1
    terminal.wait_for("nothing was done")
    assert pending(server, fleet, "member-0") == 2


def test_ctrl_c_at_the_question_does_nothing(server: Server, fleet: str, terminal: Terminal) -> None:
    with start_program("evict", "member-0", terminal=terminal, environment=program_of(server, fleet)) as program:
        terminal.wait_for("[y/N]")
        terminal.type("\x03")
        assert program.wait(30) == 130
    assert "Traceback" not in terminal.text
    assert pending(server, fleet, "member-0") == 2


def test_a_stream_is_given_back_or_taken(server: Server, fleet: str, command: CommandLine) -> None:
    status, _, [error] = command("release", "call-0", "--timeout", "50ms")
    assert status == 1
    assert "'member-0' has not given 'call-0' back within 0.05 s" in error
    status, _, [error] = command("release", "call-0", "--timeout", "0", "--force")
    assert status == 2
    assert "take call-0 from member-0? there is no terminal to ask on: give --yes" in error
    assert command("release", "call-0", "--timeout", "0", "--force", "--yes") == (
        0,
        ["call-0: member-0 has lost it; it waits for a member"],
        [],
    )
    assert command("release", "call-0", "--force") == (0, ["call-0: no living member has it"], [])
    status, _, [error] = command("release", "call-9")
    assert status == 1
    assert "'call-9' is not announced" in error
    assert command("release", "{").status == 2


def test_a_pause_and_its_end(fleet: str, command: CommandLine) -> None:
    status, printed, [error] = command("pause", "a migration", "--timeout", "50ms")
    assert (status, printed) == (1, ["paused: a migration"])
    assert error == "2 members have not said so: member-0, member-1"
    assert command("pause", "").status == 2
    status, [line], errors = command("resume")
    assert (status, errors) == (0, [])
    assert line.startswith("resumed after ")
    assert line.endswith(": a migration")
    assert command("resume") == (0, ["there was no pause"], [])
    assert command("pause", "x", "--timeout", "0").status == 0


def test_a_pause_is_over_even_if_nobody_can_tell_how_long_it_was(
    server: Server, service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.command("SET", Keys(service).paused, '{"since": 1700000000000, "reason": "a migration"}')
    server.command("ACL", "SETUSER", "blind", "on", ">x", "~*", "&*", "+@all", "-xinfo")
    monkeypatch.setenv("REDIS_PASSWORD", "x")
    try:
        where = ("--redis", server.url.replace("//", "//blind@"), "--service", service)
        assert run_command(capsys, "resume", *where) == (0, ["resumed: a migration"], [])
        assert not server.command("EXISTS", Keys(service).paused)
    finally:
        server.command("ACL", "DELUSER", "blind")
