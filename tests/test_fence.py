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

LARGEST = 2**64 - 1

numbers = st.integers(0, LARGEST) | st.integers(0, 3)
fences = st.builds(Fence, numbers, numbers, numbers)


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
