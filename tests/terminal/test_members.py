"""The table of members, in windows of many widths."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from redis_stream_client.terminal.glyphs import ASCII, EIGHTHS, UNICODE
from redis_stream_client.terminal.members import MemberRow, members_table

TITLES = ("behind", "host", "trouble")
ROWS = [
    MemberRow("web-1-1a2b3c4d", "alive", 1234, change=12, cells=("0.1 s", "host-1", "")),
    MemberRow("web-2-1a2b3c4d", "draining", 617, change=-30, cells=("2.0 s", "host-2", "")),
    MemberRow("web-3-1a2b3c4d", "dead", 0, cells=("", "host-3", "")),
]


def drawn(width: int, *, changes: bool = True, glyphs: object = UNICODE) -> list[str]:
    output = io.StringIO()
    table = members_table(ROWS, TITLES, width, ASCII if glyphs is ASCII else UNICODE, changes=changes)
    Console(file=output, width=width).print(table)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 50, 60, 72, 80, 100, 160, 200])
def test_each_member_has_one_line_that_fits(width: int) -> None:
    lines = drawn(width)
    assert len(lines) == 1 + len(ROWS)
    assert max(map(len, lines)) <= width
    for line, row in zip(lines[1:], ROWS, strict=True):
        assert row.name[:3] in line
        assert row.name[-4:] in line
        assert row.state in line
        assert f" {row.streams:,} " in line
    assert "+12" in lines[1]
    assert "−30" in lines[2]
    bars = [len(re.findall(f"[█{EIGHTHS}]", line)) for line in lines[1:]]
    assert bars[0] >= bars[1] > bars[2] == 0


def test_columns_that_have_no_room_or_say_nothing_are_left_out() -> None:
    assert all(title in drawn(120)[0] for title in TITLES[:2])
    assert "trouble" not in drawn(120)[0]
    assert "host" not in drawn(56)[0]
    assert "behind" not in drawn(40)[0]


def test_without_changes_and_with_ascii_only() -> None:
    text = "\n".join(drawn(80, changes=False, glyphs=ASCII))
    assert text.isascii()
    assert "+12" not in text
    assert "#####" in text


def test_there_may_be_no_members() -> None:
    Console(file=io.StringIO()).print(members_table([], TITLES, 80, UNICODE))
