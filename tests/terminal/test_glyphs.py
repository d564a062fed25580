"""Bars, and the characters that they are made of."""

from __future__ import annotations

import pytest

from redis_stream_client.terminal.glyphs import ASCII, UNICODE, glyphs_for


def test_an_output_gets_characters_that_it_can_show() -> None:
    assert glyphs_for("utf-8") is UNICODE
    for encoding in ("ascii", "latin-1", "no such encoding", None):
        assert glyphs_for(encoding) is ASCII


@pytest.mark.parametrize(
    ("value", "bar", "plain"),
    [
        (0, "", ""),
        (100, "████", "####"),
        (50, "██", "##"),
        (60, "██▍", "##"),
        (0.01, "▏", "#"),
        (999, "████", "####"),
    ],
)
def test_a_bar_is_as_long_as_its_value(value: float, bar: str, plain: str) -> None:
    assert UNICODE.bar(value, 100, 4) == bar
    assert ASCII.bar(value, 100, 4) == plain


def test_a_change_has_its_sign() -> None:
    assert [UNICODE.signed(change) for change in (1234, -30, 0)] == ["+1,234", "−30", ""]
    assert ASCII.signed(-30) == "-30"


def test_there_is_no_bar_without_room_or_without_a_most() -> None:
    assert UNICODE.bar(5, 0, 10) == UNICODE.bar(5, 10, 0) == ""
