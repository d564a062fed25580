"""How far the entries of a lease were handed out: what a checkpoint may say, and what is counted."""

from __future__ import annotations

from redis_stream_client._leases.handed_out import MARKS, Handed


def read(handed: Handed, *ids: str, added: int | None = None) -> None:
    """Hand these out, one after the other; the first is the `added`-th of the stream."""
    last: str | None = None
    for i, id in enumerate(ids):
        handed.hand_over(id, last, None if added is None else added + i)
        last = id


def test_a_checkpoint_may_go_as_far_as_was_handed_out() -> None:
    handed = Handed()
    assert not handed.any
    read(handed, "1-0", "2-0")
    assert handed.any
    assert (handed.reached, handed.furthest) == ("2-0", "2-0")
    assert handed.covers("1-0")
    assert handed.covers("2-0")
    assert not handed.covers("2-1")


def test_of_two_iterators_the_one_that_got_further_counts() -> None:
    handed = Handed()
    read(handed, "1-0", "2-0", "3-0")
    read(handed, "1-0", "2-0")
    assert handed.reached == "3-0"
    assert handed.count == 5


def test_ids_are_compared_as_numbers() -> None:
    handed = Handed()
    read(handed, "9-0", "10-0")
    assert handed.reached == "10-0"
    assert handed.covers("9-18446744073709551615")


def test_an_entry_unsettles_it_until_a_checkpoint() -> None:
    handed = Handed()
    assert handed.settled
    read(handed, "1-0")
    assert not handed.settled


def test_the_number_of_an_entry_is_known_until_a_checkpoint_passes_it() -> None:
    handed = Handed()
    read(handed, "1-0", "2-0", "3-0", added=8)
    assert [handed.added(id) for id in ("1-0", "2-0", "3-0", "4-0")] == [8, 9, 10, None]
    handed.checkpointed("2-0")
    assert [handed.added(id) for id in ("1-0", "2-0", "3-0")] == [None, None, 10]


def test_of_a_long_way_without_a_checkpoint_the_last_numbers_are_kept() -> None:
    handed = Handed()
    read(handed, *(f"{n}-0" for n in range(1, MARKS + 3)), added=1)
    assert handed.added("2-0") is None
    assert handed.added("3-0") == 3
    assert handed.added(f"{MARKS + 2}-0") == MARKS + 2


def test_reading_that_begins_again_covers_nothing_until_it_comes_there_once_more() -> None:
    handed = Handed()
    read(handed, "1-0", "2-0", "3-0")
    handed.restart("another server's")
    assert handed.any
    assert handed.history == "another server's"
    assert not handed.covers("1-0")
    assert handed.covered_before("3-0")
    assert not handed.covered_before("3-1")
    read(handed, "1-0")
    assert handed.covers("1-0")
    assert handed.furthest == "3-0"
