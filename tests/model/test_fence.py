"""The fence: it grows with every owner, and its text sorts as it does."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client import Fence
from redis_stream_client._model.fence import announcement_of, holder_of, is_held_by

LARGEST = 2**64 - 1
CONSUMER = "redis-consumer-a-00c0ffee"

numbers = st.integers(0, LARGEST) | st.integers(0, 3)
fences = st.builds(Fence, numbers, numbers, numbers)
holders = st.builds(
    lambda since, by: f"{since:016}-{by:08x}", st.integers(0, 10**16 - 1), st.integers(0, 2**32 - 1)
)
held = st.builds(Fence, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), holders)


@given(fences, fences)
def test_the_text_sorts_as_the_fences_do(one: Fence, other: Fence) -> None:
    assert (one < other) == (str(one) < str(other))
    assert (one == other) == (str(one) == str(other))


@given(fences)
def test_the_text_is_ascii_of_one_width(fence: Fence) -> None:
    assert str(fence).isascii()
    assert len(str(fence)) == len(str(Fence(0, 0, 0)))


@given(fences)
def test_a_fence_can_be_pickled_copied_and_hashed(fence: Fence) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(fence, protocol)) == fence
    assert copy.deepcopy(fence) == fence
    assert len({fence, copy.copy(fence)}) == 1


@given(numbers, numbers, st.integers(1, 2**53 - 1))
def test_the_next_owner_of_an_announcement_has_a_greater_fence(first: int, second: int, count: int) -> None:
    lbs_id = f"{first}-{second}"
    assert Fence.of(lbs_id, count) < Fence.of(lbs_id, count + 1)


@given(numbers, st.integers(0, LARGEST - 1), numbers, numbers)
def test_a_later_announcement_has_a_greater_fence_whatever_the_counts(
    milliseconds: int, sequence: int, one: int, other: int
) -> None:
    earlier = Fence.of(f"{milliseconds}-{sequence}", one)
    later = Fence.of(f"{milliseconds}-{sequence + 1}", other)
    assert earlier < later


def test_all_fences_of_an_announcement_begin_alike_and_no_others_do() -> None:
    for lbs_id in ("1-0", "1-1", "11-0", "18446744073709551615-18446744073709551615"):
        mine = {
            str(Fence.of(lbs_id, count, holder)) for count in (0, 1, 10**20 - 1) for holder in ("", holder_of("x"))
        }
        assert all(text.startswith(announcement_of(lbs_id)) for text in mine)
        assert not str(Fence.of("1-10", 1)).startswith(announcement_of(lbs_id))
        assert len(announcement_of(lbs_id)) == 41


def test_a_fence_is_made_of_the_entry_id_and_the_delivery_count() -> None:
    assert Fence.of("1700000000000-7", 3) == Fence(1_700_000_000_000, 7, 3)
    assert str(Fence(1, 2, 3)) == "00000000000000000001-00000000000000000002-00000000000000000003"


@pytest.mark.parametrize("attribute", ["milliseconds", "sequence", "deliveries"])
def test_a_fence_cannot_be_changed(attribute: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(Fence(1, 2, 3), attribute, 4)


@pytest.mark.parametrize("other", [0, "", (1, 2, 3), None])
def test_a_fence_is_compared_with_fences_only(other: Any) -> None:
    assert Fence(1, 2, 3) != other
    with pytest.raises(TypeError):
        _ = Fence(1, 2, 3) < other


# Its holder.


@given(held | fences, held | fences)
def test_the_text_sorts_as_the_fences_do_with_and_without_a_holder(one: Fence, other: Fence) -> None:
    assert (one < other) == (str(one) < str(other))
    assert (one == other) == (str(one) == str(other))


@given(held | fences)
def test_what_is_written_can_be_read(fence: Fence) -> None:
    assert Fence.parse(str(fence)) == fence


@given(held, held)
def test_the_fences_of_leases_have_one_width(one: Fence, other: Fence) -> None:
    assert str(one).isascii()
    assert len(str(one)) == len(str(other))


@given(held, held)
def test_the_numbers_count_before_the_holder(one: Fence, other: Fence) -> None:
    numbers = [(fence.milliseconds, fence.sequence, fence.deliveries) for fence in (one, other)]
    if numbers[0] != numbers[1]:
        assert (one < other) == (numbers[0] < numbers[1])


def test_a_stored_fence_without_a_holder_is_older_than_any_with_the_same_numbers() -> None:
    assert Fence(1, 2, 3) < Fence(1, 2, 3, "0000000000000000-00000000") < Fence(1, 2, 4)


def test_two_holders_are_never_the_same_and_the_later_one_is_greater() -> None:
    one, other = holder_of(CONSUMER), holder_of("redis-consumer-b-0000000f")
    assert one.endswith("-00c0ffee")
    assert Fence(1, 2, 3, one) != Fence(1, 2, 3, other)
    assert one[:16] <= other[:16]


def test_a_fence_that_was_pickled_without_a_holder_can_be_read() -> None:
    pickled = (
        b"\x80\x04\x95/\x00\x00\x00\x00\x00\x00\x00\x8c\x13redis_stream_client\x94\x8c\x05Fence\x94\x93\x94)"
        b"\x81\x94]\x94(K\x01K\x02K\x03eb."
    )
    fence = pickle.loads(pickled)
    assert fence == Fence(1, 2, 3)
    assert str(fence) == str(Fence(1, 2, 3))


@given(held)
def test_a_fence_with_a_holder_can_be_pickled_and_copied(fence: Fence) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(fence, protocol)) == fence
    assert copy.deepcopy(fence) == fence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9-0-1",
        str(Fence(1, 2, 3))[:-1],
        f"{Fence(1, 2, 3)} ",
        f"{Fence(1, 2, 3)}-",
        f"{Fence(1, 2, 3)}-0000000000000000-0000000G",
        f"{Fence(1, 2, 3)}-0000000000000000-00000000-1",
        "99999999999999999999-00000000000000000000-00000000000000000001",
        "٠" * 20 + str(Fence(1, 2, 3))[20:],
        "what is this?",
    ],
)
def test_what_is_no_fence_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a fence"):
        Fence.parse(text)


def test_a_fence_says_whose_lease_it_was() -> None:
    fence = Fence.of("7-0", 1, holder_of(CONSUMER))
    assert is_held_by(fence, CONSUMER)
    assert not is_held_by(fence, "redis-consumer-a-00c0ffef")
    assert not is_held_by(Fence.of("7-0", 1), CONSUMER)
