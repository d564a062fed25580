"""`redis-stream-client owner`: one stream."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from redis_stream_client import StreamStatus
from redis_stream_client._model.keys import Keys
from redis_stream_client.cli.owner import facts
from tests.harness.masses import make_members, make_streams

if TYPE_CHECKING:
    from tests.harness.commands import CommandLine
    from tests.harness.servers import Server


def said(printed: list[str]) -> dict[str, str]:
    return {text[:12].strip(): text[12:] for text in printed}


def test_who_has_it_and_how_far_behind(server: Server, service: str, command: CommandLine) -> None:
    make_members(server, service, 1)
    make_streams(server, service, 1, members=1)
    server.command("XADD", "call-0", "1-0", "n", "1")
    status, printed, errors = command("owner", "call-0")
    assert (status, errors) == (0, [])
    found = said(printed)
    assert (found["stream"], found["owner"], found["checkpoint"]) == ("call-0", "member-0", "none")
    assert found["behind"].endswith(", 1 entry to read")
    status, [line], _ = command("owner", "call-0", "--json")
    assert status == 0
    assert [*json.loads(line)] == [field.name for field in dataclasses.fields(StreamStatus)]
    server.command("DEL", Keys(service).lock("member-0"))
    assert said(command("owner", "call-0").printed)["owner"] == "member-0 (dead: a living member will claim it)"


def test_one_that_waits_and_one_that_is_not_announced(server: Server, service: str, command: CommandLine) -> None:
    make_streams(server, service, 1, members=0)
    assert said(command("owner", "call-0").printed)["owner"] == "none yet: it waits"
    assert command("owner", "evil\x07") == (1, [], [r"evil\x07 is not announced"])
    assert command("owner", "call-1", "--json") == (1, ["null"], [])
    assert command("owner", "{").status == 2


def test_what_fails_and_what_cannot_be_read_is_said() -> None:
    failing = StreamStatus(
        *("call-1", "1000-0", "a"), True, 2, 2, 3, 1_790_000_000.0, "KeyError: \n", "1-1", 95.0, 100, True
    )
    found = dict(facts(failing))
    assert found["failing"] == r"3 failures since 2026-09-21 14:13:20 UTC: KeyError: \n"
    assert found["behind"] == "1 min 35 s, more than 100 entries to read"
    assert found["deliveries"] == "2, attempt 2"
    assert found["announced"] == "1000-0, 1970-01-01 00:00:01 UTC"
    assert dict(facts(StreamStatus(None, "1-0", None, False, 0, unread="no answer")))["not read"] == "no answer"
