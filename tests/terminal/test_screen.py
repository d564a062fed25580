"""The live screen on a pseudo-terminal, and where there is none."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest
from rich.text import Text

from redis_stream_client.terminal.screen import LiveScreen, is_live, tolerate
from tests.harness.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Terminal, TextIOWrapper]]:
    """Give a terminal of 40 columns and 10 lines, and a file that writes to it."""
    for name in ("CI", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal(40, 10) as terminal, os.fdopen(os.dup(terminal.its_end), "w", encoding="utf-8") as output:
        yield terminal, output


@pytest.mark.parametrize(
    ("name", "value", "live"),
    [("TERM", "xterm", True), ("TERM", "dumb", False), ("TERM", "", False), ("CI", "true", False)],
)
def test_a_terminal_is_live_unless_it_cannot_be(
    window: tuple[Terminal, TextIOWrapper], monkeypatch: pytest.MonkeyPatch, name: str, value: str, live: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert is_live(window[1]) is live
    assert not is_live(io.StringIO())


def test_a_picture_learns_its_room_and_the_news_stand_below_it(
    window: tuple[Terminal, TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", window[1])
    sizes = []

    def draw(width: int, height: int) -> Text:
        sizes.append((width, height))
        return Text("one\ntwo\nthree\nfour\nfive\nsix")

    with LiveScreen(whole=True) as live:
        live.show(draw)
        for number in range(7):
            live.news(f"news {number}")
        live.show(draw)
        window[0].resize(60, 20)
        live.show(draw)
    assert sizes == [(40, 10), (40, 6), (60, 16)]
    window[1].close()
    first, second = window[0].close().split("one")[2:]
    assert [f"news {number}" in first for number in range(7)] == [False] * 4 + [True] * 3
    assert all(f"news {number}" in second for number in range(7))
    assert "\x1b[?1049l" in second  # the window as it was before
    assert "\x1b[?25h" in second  # and its cursor


def test_a_terminal_that_does_not_say_its_size_has_the_usual_one(
    window: tuple[Terminal, TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", window[1])
    window[0].resize(0, 0)
    with LiveScreen() as live:
        live.show(lambda width, height: Text(f"{width > 40} {height > 10}"))
    window[1].close()
    assert "True True" in window[0].close()


def test_what_an_output_cannot_encode_is_replaced() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    tolerate(output)
    output.write("a → b")
    assert isinstance(output.buffer, io.BytesIO)
    assert output.buffer.getvalue() == b"a ? b"
    tolerate(io.StringIO())
