"""Text for a terminal: one line, safe, and as wide as there is room."""

from __future__ import annotations

import pytest

from redis_stream_client.terminal.text import clip, clip_middle, plural, printable


def test_control_characters_and_what_the_output_lacks_are_escaped() -> None:
    assert printable("evil\x1b[2J\nname", "utf-8") == r"evil\x1b[2J\nname"
    assert printable("Gespräch-日本", "latin-1") == r"Gespräch-\u65e5\u672c"


@pytest.mark.parametrize(
    ("width", "clipped", "middle"),
    [
        (10, "worker-101", "worker-101"),
        (9, "worker...", "wor...101"),
        (4, "w...", "w..."),
        (3, "...", "..."),
        (2, "..", ".."),
        (0, "", ""),
    ],
)
def test_what_is_too_long_is_cut(width: int, clipped: str, middle: str) -> None:
    assert clip("worker-101", width) == clipped
    assert clip_middle("worker-101", width) == middle


def test_a_count_with_its_noun() -> None:
    assert [plural(count, "stream") for count in (0, 1, 1000)] == ["0 streams", "1 stream", "1,000 streams"]
    assert [plural(count, "entry", "entries") for count in (1, 2)] == ["1 entry", "2 entries"]
