"""`redis-stream-client dead`, as an operator runs it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import cli
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.letter_details import LetterDetails
from tests.harness.cluster import start_cluster
from tests.harness.letters import CONSUMER, REASON, announcement, bury, bury_stream, written
from tests.harness.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.servers import Server

COMMAND = (sys.executable, "-W", "error", "-m", "redis_stream_client", "dead")
PATIENCE = 30.0

Result = tuple[int, list[str], list[str]]
"""Exit status, what was printed and what was printed as errors, in lines."""


@pytest.fixture
def dead(server: Server, service: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Give a function that runs the command on `server` and `service`."""

    def run(action: str, *arguments: str) -> Result:
        return main(capsys, action, "--redis", server.url, "--service", service, *arguments)

    return run


def main(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    capsys.readouterr()
    status = cli.main(["dead", *arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out.splitlines(), said.err.splitlines()


def announced(server: Server, service: str) -> dict[str, str]:
    """What is on the load balancer stream: the streams' names by the announcements' ids."""
    entries = server.command("XRANGE", Keys(service).lbs, "-", "+")
    return {lbs_id.decode(): json.loads(fields[b"lbs-input"])["DataStreamName"] for lbs_id, fields in entries}


def remaining(server: Server, service: str) -> list[str]:
    return [letter_id.decode() for letter_id, _ in server.command("XRANGE", Keys(service).dead, "-", "+")]


# Listing.


def test_the_table_has_a_line_for_each_letter(server: Server, service: str, dead: Callable[..., Result]) -> None:
    ids = [
        bury_stream(server, service, "call-17"),
        bury(server, service, [(b"lbs-input", b"no JSON")], "not JSON"),
        bury_stream(server, service, "a-much-longer-name"),
    ]
    status, printed, errors = dead("list")
    assert (status, errors) == (0, [])
    assert printed[0].split("  ")[0].strip() == "ID"
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    for line, letter_id, stream, reason in zip(
        printed[1:], ids, ("call-17", "-", "a-much-longer-name"), (REASON, "not JSON", REASON), strict=True
    ):
        assert re.fullmatch(rf"{letter_id}  {time}  1 +{stream}  +- +- +- +{re.escape(reason)}", line), line
    assert (
        len({line.rindex(reason) for line, reason in zip(printed[1:], (REASON, "not", REASON), strict=True)}) == 1
    )
    assert remaining(server, service) == ids


def test_it_shows_where_the_stream_stood_and_what_failed(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    details = LetterDetails("3-0", "4-0", "LookupError", "no such customer", 16, 1, 1_790_000_000.5)
    bury(server, service, [announcement("call-17")], details=details.encode())
    status, [_, line], _ = dead("list")
    assert status == 0
    assert re.search(rf"  call-17  3-0 +4-0 +LookupError  {re.escape(REASON)}$", line)
    status, [document], _ = dead("list", "--json")
    shown = json.loads(document)
    assert {name: shown[name] for name in asdict(details)} == asdict(details)


def test_there_may_be_none(dead: Callable[..., Result]) -> None:
    assert dead("list") == (0, ["no dead letters"], [])
    assert dead("list", "--json") == (0, [], [])
    assert dead("discard", "--all") == (0, [], [])


def test_json_has_one_object_a_line_with_all_there_is(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    fields = [announcement("call-17", 17), (b"other", b"\xff\n")]
    ids = [bury(server, service, fields), bury(server, service, [(b"lbs-input", b"no JSON")], "not JSON")]
    status, printed, errors = dead("list", "--json")
    assert (status, errors) == (0, [])
    first, second = (json.loads(line) for line in printed)
    assert [first["id"], second["id"]] == ids
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", first["time"])
    assert first["reason"] == REASON
    assert first["consumer"] == CONSUMER
    assert first["deliveries"] == 1
    assert re.fullmatch(r"\d+-\d+", first["lbs_id"])
    assert (first["stream"], first["info"]) == ("call-17", {"number": 17})
    assert (second["stream"], second["info"]) == (None, None)
    texts = [[text.encode(errors="surrogateescape") for text in pair] for pair in first["fields"]]
    assert texts == [list(pair) for pair in fields]


def test_what_json_cannot_say_does_not_break_the_listing(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    bury(server, service, [(b"lbs-input", b'{"DataStreamName": "call-1", "Info": {"x": 1e999}}')])
    deep = b'{"x":' * 900 + b"1" + b"}" * 900
    bury(server, service, [(b"lbs-input", b'{"DataStreamName": "call-2", "Info": %b}' % deep)])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    status, printed, _ = dead("list", "--json")
    assert status == 0
    first, second = (json.loads(line, parse_constant=refuse) for line in printed)
    assert (first["stream"], first["info"]) == ("call-1", None)
    assert "1e999" in first["fields"][0][1]
    assert second["stream"] in ("call-2", None)


def test_a_letter_fills_one_line_and_gives_the_terminal_no_orders(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    bury_stream(server, service, "evil\x1b[2J\nname")
    long_id = bury_stream(server, service, "long" * 100)
    server.command("XADD", Keys(service).dead, "*", b"reason", b"\xff\r\n\x07", *written([])[2:])
    status, printed, _ = dead("list")
    assert status == 0
    assert len(printed) == 4
    assert r"evil\x1b[2J\nname" in printed[1]
    assert "longl... " in printed[2]
    assert printed[3].endswith(r"\xff\r\n\x07")
    status, [line], _ = dead("put-back", long_id)
    assert line.endswith("long" * 100)


def test_what_the_output_cannot_show_is_escaped(
    server: Server, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury_stream(server, service, "Gespräch-日本")
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    assert cli.main(["dead", "list", "--redis", server.url, "--service", service]) == 0
    assert isinstance(output.buffer, io.BytesIO)
    assert r"Gespräch-\u65e5\u672c".encode("latin-1") in output.buffer.getvalue()


def test_on_a_terminal_lines_are_clipped_to_its_width(server: Server, service: str) -> None:
    bury_stream(server, service, "call-17")
    terminal, its_end = pty.openpty()
    environment = os.environ | {"COLUMNS": "70", "TERM": "xterm"}
    command = [*COMMAND, "list", "--redis", server.url, "--service", service]
    done = subprocess.run(command, stdout=its_end, env=environment, timeout=PATIENCE, check=False)
    os.close(its_end)
    shown = os.read(terminal, 4096).decode().splitlines()
    os.close(terminal)
    assert done.returncode == 0
    assert len(shown) == 2
    assert len(shown[1]) == 70
    assert shown[1].endswith("...")


def test_who_stops_reading_the_list_sees_no_traceback(server: Server, service: str) -> None:
    for number in range(3):
        bury_stream(server, service, f"call-{number}")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "list", "--json", "--redis", server.url, "--service", service]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# Putting back and discarding.


def test_letters_are_put_back_by_id(server: Server, service: str, dead: Callable[..., Result]) -> None:
    ids = [bury_stream(server, service, f"call-{number}") for number in range(3)]
    status, printed, errors = dead("put-back", ids[2], ids[0], ids[2])
    assert (status, errors) == (0, [])
    (first, first_stream), (second, second_stream) = announced(server, service).items()
    assert (first_stream, second_stream) == ("call-2", "call-0")
    assert printed == [
        f"{ids[2]}  put back as {first}: call-2",
        f"{ids[0]}  put back as {second}: call-0",
    ]
    assert remaining(server, service) == [ids[1]]


def test_all_letters_are_put_back_but_those_that_would_only_come_back(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    ids = [bury_stream(server, service, "call-0")]
    ids.append(bury(server, service, [(b"lbs-input", b"no JSON")]))
    ids.append(bury_stream(server, service, "call-2"))
    status, printed, errors = dead("put-back", "--all")
    assert status == 1
    assert [line.split("  put back as ")[0] for line in printed] == [ids[0], ids[2]]
    [error] = errors
    assert error.startswith(f"{ids[1]}  not put back: ")
    assert "discard it, or announce the stream with LoadBalancerStream.add()" in error
    assert remaining(server, service) == [ids[1]]
    assert list(announced(server, service).values()) == ["call-0", "call-2"]


def test_letters_are_discarded_by_id_or_all(server: Server, service: str, dead: Callable[..., Result]) -> None:
    ids = [bury_stream(server, service, f"call-{number}") for number in range(4)]
    assert dead("discard", ids[1]) == (0, [f"{ids[1]}  discarded"], [])
    rest = [ids[0], *ids[2:]]
    assert remaining(server, service) == rest
    assert dead("discard", "--all") == (0, [f"{letter_id}  discarded" for letter_id in rest], [])
    assert remaining(server, service) == []
    assert announced(server, service) == {}


@pytest.mark.parametrize("action", ["put-back", "discard"])
def test_a_letter_that_is_not_there_is_named_and_the_others_are_done(
    server: Server, service: str, dead: Callable[..., Result], action: str
) -> None:
    letter_id = bury_stream(server, service, "call-17")
    status, printed, errors = dead(action, "1-1", letter_id)
    assert status == 1
    assert errors == ["1-1  not there"]
    assert [line.split()[0] for line in printed] == [letter_id]
    assert remaining(server, service) == []


# What cannot be done.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bury"], 'Unknown command "bury". Available commands: list, put-back, discard.'),
        (["list"], "--service is missing; give it, or set REDIS_STREAM_SERVICE"),
        (["list", "--service", ""], "service must not be empty"),
        (["list", "--service", "{"], "service has unbalanced braces"),
        (["list", "1-1", "--service", "orders"], "unexpected: 1-1"),
        (["discard", "--service", "orders"], "give either the letters' ids or --all"),
        (["discard", "--service", "orders", "1-1", "--all"], "give either the letters' ids or --all"),
        (["put-back", "--service", "orders", "1"], "'1' is not a dead letter's id, which looks like"),
    ],
)
def test_what_cannot_be_done_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, printed, errors = main(capsys, *arguments)
    assert (status, printed) == (2, [])
    assert message in errors[-1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://operator:secret@localhost",
        "redis://operator:secret@localhost:port",
        "redis://:secret/ive@localhost",
        "redis://operator:1234/secret@localhost",
        "redis://operator:12?secret=34@localhost",
        "redis://operator:se#secret@localhost",
        "redis://localhost?secret=1",
        "redis://localhost?socket_timeout=secret",
        "redis://[secret",
    ],
)
def test_a_url_that_cannot_be_used_is_said_without_repeating_any_of_it(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    status, printed, errors = main(capsys, "list", "--redis", url, "--service", "orders")
    assert (status, printed) == (2, [])
    [error] = errors
    assert error.startswith("redis-stream-client dead: --redis: not a usable URL; ")
    assert not re.search("secret|1234|operator", error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--service", "orders", "--json=redis://operator:secret@localhost"],
        ["put-back", "--service", "orders", "redis://operator:secr@et@localhost"],
        ["redis://operator:secret@localhost"],
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, _, errors = main(capsys, *arguments)
    assert status == 2
    assert "redis://***@localhost" in errors[-1]
    assert "secr" not in "".join(errors)


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["put-back", "1-1"], ["discard", "--all"]])
def test_a_server_that_is_not_there_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://operator:secret@{HOST}:{free_port()}")
    status, printed, errors = main(capsys, *arguments, "--service", "orders")
    assert (status, printed) == (2, [])
    [error] = errors
    assert error.startswith("redis-stream-client dead: could not ")
    assert "Connect" in error
    assert "secret" not in error


def test_in_a_cluster_any_node_will_do(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    with start_cluster() as cluster:
        owner = cluster.owner_of(Keys(service).lbs)
        for node in cluster.nodes:
            ids = [bury_stream(owner, service, f"call-{number}") for number in range(2)]
            where = ("--redis", node.url, "--service", service)
            status, printed, errors = main(capsys, "list", *where)
            assert (status, errors) == (0, [])
            assert [line.split()[0] for line in printed[1:]] == ids
            assert main(capsys, "discard", *where, ids[0])[0] == 0
            assert main(capsys, "put-back", *where, "--all")[0] == 0
            assert remaining(owner, service) == []
        owner.kill()
        for node in cluster.nodes:
            status, printed, errors = main(capsys, "list", "--redis", node.url, "--service", service)
            assert (status, printed, len(errors)) == (2, [], 1)


def test_a_refused_login_is_said_in_one_line(
    server: Server, service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", server.url.replace("redis://", "redis://operator:secret@"))
    status, printed, errors = main(capsys, "list", "--service", service)
    assert (status, printed) == (2, [])
    [error] = errors
    assert "refuses the login" in error
    assert "secret" not in error


def test_another_type_under_the_services_key_is_said_in_one_line(
    server: Server, service: str, dead: Callable[..., Result]
) -> None:
    server.command("SET", Keys(service).dead, "text")
    status, printed, errors = dead("list")
    assert (status, printed) == (2, [])
    [error] = errors
    assert "another type" in error


def test_what_was_done_before_redis_went_away_was_said(
    server: Server, service: str, dead: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [bury_stream(server, service, f"call-{number}") for number in range(2)]
    said: list[str] = []

    class Output(io.StringIO):
        def flush(self) -> None:
            if not said and self.getvalue():
                said.append(self.getvalue())
                server.command("SET", Keys(service).dead, "text")

    monkeypatch.setattr(sys, "stdout", Output())
    status, _, errors = dead("discard", *ids)
    assert status == 2
    assert said == [f"{ids[0]}  discarded\n"]
    assert len(errors) == 1


def test_it_works_as_a_program(server: Server, service: str) -> None:
    letter_id = bury_stream(server, service, "call-17")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments, "--service", service]
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE}
        return subprocess.run([*command, "--redis", server.url], check=False, **settings)

    listing = run("list")
    assert (listing.returncode, listing.stderr) == (0, "")
    assert letter_id in listing.stdout
    done = run("put-back", letter_id)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{letter_id}  put back as ")


def test_without_an_action_the_help_is_shown_which_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = main(capsys)
    assert status == 2
    assert any("put-back" in line for line in printed)


def test_help_names_the_actions_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = main(capsys, "--help")
    assert status == 0
    assert all(word in "\n".join(printed) for word in ("list", "put-back", "discard", "Exit status"))
