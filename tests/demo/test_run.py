"""The demo, as a user runs it; and that it notices what it is there to notice."""

from __future__ import annotations

import contextlib
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

from tests.harness.processes import die_with_parent

if TYPE_CHECKING:
    from tests.harness.servers import Server

COMMAND = (sys.executable, "-m", "redis_stream_client")
QUICK = ("demo", "--lock-ttl", "0.4", "--streams", "12")
PATIENCE = 60.0

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
    counts = re.findall(r"([\d,]+) produced, ([\d,]+) effects: 0 lost, 0 twice, 0 out of order", output)
    assert len(counts) == 2  # of the streams, and of the sessions
    assert all(produced == effects for produced, effects in counts)
    assert re.search(r"sessions +200, woken [1-9][\d,]* times; in the end none awake", output)
    for harm in ("kill", "freeze"):
        recovered, held = re.findall(rf"{harm} worker-\d +(\d+) of (\d+) streams? recovered", output)[0]
        assert recovered == held != "0"
    handed_over, held = re.findall(r"(\d+) of (\d+) streams handed over, p50 \d\.\d\d s", output)[0]
    assert handed_over == held
    assert int(held) >= 12  # each once, at least
    assert re.search(r"repeats +\d+ after the kill, \d+ after the freeze, 0 in the rolling restart", output)
    assert "2 owners killed; " in output
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
