"""`redis-stream-client streams`: a line for each stream, as it comes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import StreamStatus
from redis_stream_client._model.keys import Keys
from redis_stream_client.cli.streams import HEADINGS, cells, line
from tests.harness.commands import program_of, start_program
from tests.harness.masses import make_members, make_streams

if TYPE_CHECKING:
    from tests.harness.commands import CommandLine
    from tests.harness.servers import Server

EVIL = StreamStatus(
    "evil\x1b[2J-" + "long" * 20,
    "1-0",
    "redis-consumer-web-1-0a1b2c3d",
    owner_alive=False,
    deliveries=3,
    attempts=2,
    failures=1234,
    error="KeyError: 'x'\n",
    behind=95.0,
    entries=100,
    more=True,
)


def test_a_line_for_each_stream_that_is_wanted(server: Server, service: str, command: CommandLine) -> None:
    make_members(server, service, 2)
    make_streams(server, service, 4, members=2)
    make_streams(server, service, 1, members=0)
    server.command("XADD", "call-2", "1-0", "n", "1")
    server.command("DEL", Keys(service).lock("member-1"))
    status, printed, errors = command("streams")
    assert (status, errors) == (0, [])
    assert printed[0].split() == [*HEADINGS]
    assert [row.split()[:2] for row in printed[1:]] == [
        *(["call-0", "member-0"], ["call-1", "!member-1"], ["call-2", "member-0"], ["call-3", "!member-1"]),
        ["call-0", "-"],
    ]
    _, printed, _ = command("streams", "--behind", "1s")
    assert [row.split()[0] for row in printed[1:]] == ["call-2"]
    _, printed, _ = command("streams", "--owner", "member-1")
    assert [row.split()[0] for row in printed[1:]] == ["call-1", "call-3"]
    assert command("streams", "--behind", "36500d") == (0, ["no such streams"], [])
    status, printed, [error] = command("streams", "--owner", "member-7")
    assert (status, printed) == (1, [])
    assert error.endswith("no member is called member-7")


def test_there_may_be_none(command: CommandLine) -> None:
    assert command("streams") == (0, ["no streams are announced"], [])
    assert command("streams", "--json") == (0, [], [])


def test_json_lines_have_these_names(server: Server, service: str, command: CommandLine) -> None:
    make_streams(server, service, 3, members=0)
    status, printed, errors = command("streams", "--json", "--limit", "2")
    assert status == 0
    assert errors == ["only the first 2 were asked for: there are more"]
    known = [field.name for field in dataclasses.fields(StreamStatus)]
    assert [[*json.loads(text)] for text in printed] == [known] * 2
    assert {*known} >= {
        *("stream", "lbs_id", "owner", "owner_alive", "deliveries", "attempts", "failures", "failing_since"),
        *("error", "checkpoint", "behind", "entries", "more", "unread"),
    }
    assert command("streams", "--json", "--limit", "3").errors == []


@pytest.mark.parametrize("room", [40, 60, 80, 119, 120, 200])
def test_a_line_fits_the_terminal(room: int) -> None:
    text = line(cells(EVIL), room)
    assert len(text) <= room
    assert text.isprintable()
    assert "1 min 35 s" in text
    assert "!web" in text


def test_what_is_no_terminal_gets_all_of_it() -> None:
    text = line(cells(EVIL), None)
    assert EVIL.stream is not None
    assert EVIL.stream.replace("\x1b", r"\x1b") in text
    assert [part.strip() for part in text.split("  ") if part][1:] == [
        *("!web-1-0a1b2c3d", "1 min 35 s", "100+", "3", "1,234", r"attempt 2; KeyError: 'x'\n")
    ]


def test_who_stops_reading_sees_no_traceback(server: Server, service: str) -> None:
    make_streams(server, service, 300, members=0)
    with start_program("streams", environment=program_of(server, service), bufsize=1) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline().startswith("STREAM")
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(30) == 1
