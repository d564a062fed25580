"""Counting entries: what is missing is what was added and was not read, where nothing else explains it."""

from __future__ import annotations

import pytest

from redis_stream_client._model.gaps import UNKNOWN, Added, Count, Gap, Look


@pytest.mark.parametrize(
    ("added", "position", "look", "missing"),
    [
        (Added(3, sure=True), "3-0", Look(3, 3, "1-0", "3-0", "0-0"), None),
        (Added(3, sure=True), "3-0", Look(5, 5, "1-0", "5-0", "0-0"), None),
        (Added(3, sure=True), "3-0", Look(5, 2, "4-0", "5-0", "0-0"), None),
        (Added(3, sure=True), "3-0", Look(5, 1, "5-0", "5-0", "0-0"), Gap("3-0", "5-0", 1)),
        (Added(3, sure=True), "3-0", Look(5, 0, "0-0", "0-0", "5-0"), Gap("3-0", None, 2)),
        (Added(3, sure=False), "3-0", Look(5, 0, "0-0", "0-0", "5-0"), None),
        (Added(3, sure=False), "3-0", Look(5, 1, "5-0", "5-0", "2-0"), Gap("3-0", "5-0", 1)),
        (Added(None, sure=False), "3-0", Look(5, 1, "5-0", "5-0", "0-0"), None),
        (Added(3, sure=True), "3-0", Look(1, 1, "4-0", "4-0", "0-0"), None),
        (Added(3, sure=True), "3-0", Look(0, 0, "0-0", "0-0", "0-0"), None),
    ],
)
def test_a_gap_is_what_nothing_else_explains(added: Added, position: str, look: Look, missing: Gap | None) -> None:
    count = Count(added, position)
    assert count.compare(position, look) == missing
    assert count.compare(position, look) is None  # once


def test_what_was_read_is_not_missing() -> None:
    count = Count(Added(3, sure=True), "3-0")
    count.read(2)
    assert count.compare("5-0", Look(5, 0, "0-0", "0-0", "5-0")) is None
    count.read(1)
    assert count.compare("6-0", Look(8, 1, "8-0", "8-0", "0-0")) == Gap("5-0", "8-0", 1)


def test_whoever_reads_before_anybody_looked_counts_from_then_on() -> None:
    """What an earlier owner deleted cannot be told from what was trimmed."""
    count = Count(Added(3, sure=False), "3-0")
    count.read(2)
    assert count.number is None
    assert count.compare("9-0", Look(9, 0, "0-0", "0-0", "9-0")) is None
    assert count.number == 9


def test_a_stream_all_of_which_lies_before_the_position_is_another_one() -> None:
    count = Count(Added(3, sure=True), "9-0")
    assert not count.began_anew("9-0", Look(3, 3, "7-0", "9-0", "0-0"))
    assert not count.began_anew("9-0", Look(3, 2, "7-0", "8-0", "9-0")), "the last one was deleted"
    assert not count.began_anew("9-0", Look(0, 0, "0-0", "0-0", "0-0")), "it is empty"
    assert count.began_anew("9-0", Look(2, 2, "1-0", "2-0", "0-0"))
    assert not count.began_anew("9-0", Look(2, 2, "1-0", "2-0", "0-0")), "it is said once"


@pytest.mark.parametrize(
    ("text", "added"),
    [
        (b"0", Added(0, sure=True)),
        (b"17", Added(17, sure=False)),
        (b"17!", Added(17, sure=True)),
        (b"", UNKNOWN),
        (b"!", UNKNOWN),
        (b"-1", UNKNOWN),
        (b"many", UNKNOWN),
        (b"9" * 21, UNKNOWN),
    ],
)
def test_the_count_of_a_record_that_somebody_else_wrote_is_not_known(text: bytes, added: Added) -> None:
    assert Added.parse(text) == added
