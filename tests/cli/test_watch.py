"""`status --watch`: a live view on a terminal, lines and JSON elsewhere."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from redis_stream_client._model.keys import Keys
from tests.harness.commands import program_of, start_program
from tests.harness.masses import make_members, make_streams
from tests.harness.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.servers import Server

WATCH = ("status", "--watch", "--interval", "200ms")


def last_picture(shown: str) -> list[str]:
    """The lines of what was drawn last, without control sequences."""
    picture = shown.rpartition("\x1b[H")[2]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", picture).replace("\r", "").split("\n")


def fits(lines: list[str], width: int) -> bool:
    """Whether this is a whole picture, and no line is too long."""
    return any(line.startswith("member-2") for line in lines) and max(map(len, lines)) <= width


def let_in(server: Server) -> None:
    server.command("ACL", "SETUSER", "operator", "on", ">secret", "~*", "&*", "+@all")


def test_a_live_view_through_a_death_an_outage_and_another_size(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    let_in(server)
    make_members(server, service, 3)
    make_streams(server, service, 6, members=3)
    url = server.url.replace("redis://", "redis://operator@")
    environment = {"REDIS_PASSWORD": "secret", "REDIS_STREAM_SERVICE": service}
    with Terminal(100, 20) as terminal:
        with start_program(*WATCH, "--redis", url, terminal=terminal, environment=environment) as program:
            terminal.wait_for("nothing to read in 6 streams")
            assert "secret" not in " ".join(psutil.Process(program.pid).cmdline())
            server.command("DEL", Keys(service).lock("member-1"))
            terminal.wait_for("died: member-1 with 2 streams")
            terminal.resize(60, 12)
            terminal.wait_until(lambda shown: fits(last_picture(shown), 60), "a picture of this width")
            server.kill()
            terminal.wait_for("NO ANSWER since the last look, ")
            terminal.wait_for("Redis does not answer")
            server.start()
            let_in(server)
            terminal.wait_for("Redis answers again, after ")
            terminal.type("\x03")
            assert program.wait(30) == 130
        shown = terminal.close()
    assert "Traceback" not in shown
    assert "secret" not in shown
    assert shown.rfind("\x1b[?1049l") > shown.rfind("\x1b[?1049h")  # the window as it was
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # and its cursor


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"PYTHONIOENCODING": "latin-1"}])
def test_it_does_with_what_a_terminal_can_show(server: Server, service: str, setting: dict[str, str]) -> None:
    make_members(server, service, 2)
    make_streams(server, service, 2, members=2)
    with Terminal(80, 20) as terminal:
        environment = program_of(server, service) | setting
        with start_program(*WATCH, "--no-lag", terminal=terminal, environment=environment) as program:
            terminal.wait_for("2 streams owned")
            server.command("DEL", Keys(service).lock("member-1"))
            terminal.wait_for("died: member-1 with 1 stream")
            program.terminate()
            assert program.wait(30) == 128 + signal.SIGTERM
        shown = terminal.close()
    if "TERM" not in setting:
        assert shown.rfind("\x1b[?1049l") > shown.rfind("\x1b[?1049h")  # the window as it was
    if "NO_COLOR" in setting:
        assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", shown)
    if "TERM" in setting:
        assert "\x1b" not in shown
    if "PYTHONIOENCODING" in setting:
        assert "##########" in shown
        assert shown.isascii()


def test_without_a_terminal_it_prints_json_or_lines_for_each_look(server: Server, service: str) -> None:
    make_members(server, service, 1)
    with start_program(*WATCH, "--json", environment=program_of(server, service)) as program:
        assert program.stdout is not None
        documents = [json.loads(program.stdout.readline()) for _ in range(3)]
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 130
    times = [document["time"] for document in documents]
    assert times == sorted(set(times))
    assert all(document["service"] == service for document in documents)
    with start_program(*WATCH, environment=program_of(server, service)) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(2)]
        program.stdout.close()  # it notices with its next lines
        assert program.wait(30) == 1
        assert program.stderr is not None
        assert program.stderr.read() == ""
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {service}  1 member, 0 streams owned\n", lines[0])
