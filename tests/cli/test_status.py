"""`redis-stream-client status`: a fleet at one moment, for people and for programs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from redis_stream_client import Fleet, FleetMember, FleetStatus, Lag, StreamStatus
from redis_stream_client._model.keys import Keys
from tests.harness.commands import run_command
from tests.harness.masses import make_members, make_streams
from tests.harness.ports import HOST, free_port

if TYPE_CHECKING:
    import pytest

    from tests.harness.commands import CommandLine
    from tests.harness.servers import Server


def looked(server: Server, service: str) -> FleetStatus:
    async def look() -> FleetStatus:
        async with Redis.from_url(server.url) as redis:
            return await Fleet(redis, service).status()

    return asyncio.run(look())


def names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_the_members_and_what_waits(server: Server, service: str, command: CommandLine) -> None:
    make_members(server, service, 3)
    make_streams(server, service, 6, members=3)
    make_streams(server, service, 2, members=0)
    server.command("DEL", Keys(service).lock("member-2"))
    status, printed, errors = command("status")
    assert (status, errors) == (0, [])
    assert printed[0].startswith(f"{service}  2 members, 1 dead, 4 streams owned, 2 waiting, the oldest for ")
    assert ", 2 orphaned, the oldest for " in printed[0]
    assert [line.split()[:3] for line in printed[-3:]] == [
        ["member-0", "alive", "2"],
        ["member-1", "alive", "2"],
        ["member-2", "dead", "2"],
    ]
    assert all(line == line.rstrip() for line in printed)


def test_a_service_that_nobody_uses(command: CommandLine, service: str) -> None:
    assert command("status", "--lag") == (
        0,
        [f"{service}  0 members, 0 streams owned", "nothing to read in 0 streams"],
        [],
    )


def test_those_that_matter_are_shown_and_the_others_are_counted(
    server: Server, service: str, command: CommandLine
) -> None:
    make_members(server, service, 30)
    make_streams(server, service, 31, members=30)
    server.command("DEL", Keys(service).lock("member-7"), Keys(service).lock("member-9"))
    _, printed, _ = command("status", "--members", "3")
    assert [line.split()[0] for line in printed[-4:-1]] == ["member-0", "member-7", "member-9"]
    assert printed[-1] == "and 27 more members with 27 streams"


def test_json_is_one_object_with_these_names(server: Server, service: str, command: CommandLine) -> None:
    """Programs rely on them: names may be added, and none may go."""
    make_members(server, service, 2)
    make_streams(server, service, 2, members=2)
    status, [line], errors = command("status", "--json")
    assert (status, errors) == (0, [])
    document = json.loads(line)
    assert (
        {*document}
        == {*names(FleetStatus), "lag", "late"}
        >= {
            *("service", "time", "members", "waiting", "oldest_waiting", "owned", "orphaned", "orphaned_for"),
            *("released", "dead_letters", "unread", "paused", "lag", "late"),
        }
    )
    assert [*document["members"][0]] == names(FleetMember)
    assert {*names(FleetMember)} >= {
        *("id", "alive", "leases", "last_seen", "lock_left", "presence", "host", "pid", "version", "started"),
        *("weight", "max_streams", "draining", "paused"),
    }
    known = json.loads(json.dumps(dataclasses.asdict(looked(server, service))))
    volatile = {"time", "last_seen", "lock_left"}
    for seen, expected in zip(document["members"], known["members"], strict=True):
        assert {k: v for k, v in seen.items() if k not in volatile} == {
            k: v for k, v in expected.items() if k not in volatile
        }
    assert (document["lag"], document["late"]) == (None, None)


def test_it_fails_if_a_stream_is_that_far_behind_or_cannot_be_read(
    server: Server, service: str, command: CommandLine
) -> None:
    make_members(server, service, 1)
    make_streams(server, service, 3, members=1)
    status, printed, errors = command("status", "--fail-if-behind", "30s")
    assert (status, errors) == (0, [])
    assert printed[1] == "nothing to read in 3 streams"
    server.command("XADD", "call-1", "1-0", "n", "1")
    server.command("SET", "call-2", "text")
    status, printed, errors = command("status", "--fail-if-behind", "30s", "--json")
    assert status == 1
    assert len(errors) == 2
    assert errors[0].startswith("call-1 is ")
    assert errors[0].endswith(" behind; its owner: member-0")
    assert errors[1].startswith("call-2 could not be read: ")
    document = json.loads(printed[0])
    late = document["late"]
    assert (late["limit"], late["streams"], late["unread"]) == (30.0, 1, 1)
    assert [one["stream"] for one in late["worst"]] == ["call-1"]
    assert [one["stream"] for one in late["unreadable"]] == ["call-2"]
    assert [*late["worst"][0]] == names(StreamStatus)
    assert [*document["lag"]] == names(Lag)
    assert document["lag"]["stream"] == "call-1"
    status, *_ = command("status", "--fail-if-behind", "36500d")
    assert status == 1  # because of the one that cannot be read
    server.command("DEL", "call-2")
    status, *_ = command("status", "--fail-if-behind", "36500d")
    assert status == 0


def test_only_the_worst_are_named(server: Server, service: str, command: CommandLine) -> None:
    make_streams(server, service, 25, members=0)
    for number in range(25):
        server.command("XADD", f"call-{number}", f"{1000 + number}-0", "n", "1")
    status, _, errors = command("status", "--fail-if-behind", "1s")
    assert status == 1
    assert [line.split()[0] for line in errors[:20]] == [f"call-{number}" for number in range(20)]
    assert errors[20:] == ["5 more streams at least 1.0 s behind"]


def test_a_pause_stands_above_the_members(server: Server, service: str, command: CommandLine) -> None:
    make_members(server, service, 1)
    status, printed, _ = command("pause", "a \x07 migration", "--timeout", "0")
    assert (status, printed) == (0, [r"paused: a \x07 migration"])
    _, printed, _ = command("status")
    assert printed[1].startswith("PAUSED for ")
    assert printed[1].endswith(r": a \x07 migration (1 member may still take new streams)")
    _, [line], _ = command("status", "--json")
    assert json.loads(line)["paused"]["reason"] == "a \x07 migration"


def test_what_could_not_be_read_is_said(server: Server, service: str, command: CommandLine) -> None:
    make_members(server, service, 1)
    server.command("SET", Keys(service).dead, "text")
    status, printed, errors = command("status")
    assert (status, errors) == (0, [])
    assert any(line.startswith("not read: dead letters: ") for line in printed)


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://operator:secret@{HOST}:{free_port()}")
    monkeypatch.setenv("REDIS_STREAM_SERVICE", "orders")
    for arguments in (["status"], ["status", "--json"], ["status", "--watch"], ["streams"], ["owner", "call-1"]):
        status, printed, errors = run_command(capsys, *arguments)
        assert (status, printed, len(errors)) == (2, [], 1), arguments
        assert "secret" not in errors[0]
        assert errors[0].startswith(f"redis-stream-client {arguments[0]}: could not ")
