"""How much one read asks for: by what came before, and by what went unanswered."""

from __future__ import annotations

from dataclasses import dataclass

from redis_stream_client._streams.read_sizes import (
    FIRST_PIECE,
    LARGEST_PIECE,
    LEAST_BYTES,
    READ,
    READ_BYTES,
    STREAMS,
    ReadSizes,
    next_count,
    size_of,
)
from tests.harness.logs import LOG


@dataclass
class Stream:
    count: int = FIRST_PIECE
    idle: bool = False
    reassured: bool = False


def entries(number: int, size: int) -> list[object]:
    """As Redis sends them: each an id and its words, of `size` bytes together."""
    return [[b"1-0", [b"f", b"v" * (size - 1)]] for _ in range(number)]


def test_the_size_of_what_came() -> None:
    assert size_of([entries(2, 10), entries(1, 5)]) == (25, 3)


def test_a_full_piece_is_followed_by_a_larger_one_that_has_not_too_many_bytes() -> None:
    assert next_count(8, entries(8, 10), 1e6) == 32
    assert next_count(LARGEST_PIECE, entries(8, 10), 1e6) == LARGEST_PIECE
    assert next_count(8, entries(8, 1_000), 20_000) == 20
    assert next_count(8, entries(8, 1_000), 1) == 1


def test_many_idle_streams_are_read_together_and_few_busy_ones() -> None:
    sizes = ReadSizes(1.0, LOG)
    assert sizes.streams(Stream(idle=True, reassured=True)) == STREAMS
    assert sizes.streams(Stream()) == READ // FIRST_PIECE
    assert sizes.streams(Stream(count=LARGEST_PIECE)) == 1


def test_large_entries_make_small_reads() -> None:
    sizes = ReadSizes(1.0, LOG)
    sizes.answered(1, [entries(1, READ_BYTES // 64)], 0.001)
    assert sizes.streams(Stream()) == 64 // FIRST_PIECE
    assert sizes.streams(Stream(idle=True)) == 64, "a change means one entry at least"
    assert sizes.streams(Stream(idle=True, reassured=True)) == STREAMS, "and a mere look none"


def test_a_slow_line_makes_small_reads_until_it_is_quick_again() -> None:
    sizes = ReadSizes(1.0, LOG)
    sizes.answered(1, [entries(100, 1_000)], 1.0)
    assert sizes.entries(8, entries(8, 1_000)) <= LEAST_BYTES // 1_000
    for _ in range(40):
        sizes.answered(1, [entries(1, 1_000)], 0.001)
    assert sizes.entries(8, entries(8, 1_000)) == 32


def test_what_goes_unanswered_is_asked_for_in_smaller_pieces_and_with_more_patience() -> None:
    sizes = ReadSizes(1.0, LOG)
    page = [Stream(count=64) for _ in range(16)]
    sizes.unanswered(page)
    assert {stream.count for stream in page} == {16}
    assert sizes.streams(Stream(idle=True, reassured=True)) == 4
    assert sizes.patience == 2.0


def test_a_read_that_is_not_answered_is_repeated_for_less_down_to_one_entry() -> None:
    sizes = ReadSizes(quiet=1.0, log=LOG)
    page = [Stream() for _ in range(512)]
    asked = []
    while True:
        asked.append((len(page), page[0].count))
        if asked[-1] == (1, 1):
            break
        sizes.unanswered(page)
        page = page[: sizes.streams(page[0])]
    assert asked == [(512, 8), (128, 2), (32, 1), (8, 1), (2, 1), (1, 1)]
    for _ in range(12):
        sizes.answered(1, [], 0.01)
    assert sizes.streams(page[0]) == 256  # half of what has failed


def test_what_large_entries_and_a_slow_line_bear_is_judged_by_what_came() -> None:
    sizes = ReadSizes(quiet=1.0, log=LOG)
    stream = Stream(idle=True)
    assert sizes.streams(stream) == 512
    sizes.answered(1, [[(b"1-0", [b"x", b"y" * 1_000_000])]], took=0.01)
    assert sizes.streams(stream) == 16  # 16 MB
    stream.reassured = True
    assert sizes.streams(stream) == 512  # of these not much is expected
    stream.reassured = False
    sizes.answered(1, [[(b"1-0", [b"x", b"y" * 1_000_000])]], took=1.0)
    assert sizes.streams(stream) == 1  # half a second of this line
    for _ in range(40):
        sizes.answered(1, [[(b"1-0", [b"x", b"y"])]], took=0.01)
    assert sizes.streams(stream) == 512
