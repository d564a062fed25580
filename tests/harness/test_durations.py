"""The order in which tests begin."""

from __future__ import annotations

import pytest

from tests.harness.durations import deal


@pytest.mark.parametrize("long", [0, 1, 3, 7, 40])
@pytest.mark.parametrize("others", [0, 1, 10, 101])
@pytest.mark.parametrize("shares", [1, 2, 4, 7])
def test_every_process_begins_with_its_share_of_the_long_ones(long: int, others: int, shares: int) -> None:
    dealt = deal(range(long), range(1000, 1000 + others), shares)
    assert sorted(dealt) == [*range(long), *range(1000, 1000 + others)]
    assert [test for test in dealt if test >= 1000] == sorted(test for test in dealt if test >= 1000)
    if others > shares * long:
        begun = 0
        for share in range(shares):
            size = (len(dealt) - begun) // (shares - share)  # as pytest-xdist cuts them
            mine = dealt[begun : begun + size]
            first = [test for test in mine if test < 1000]
            assert mine[: len(first)] == first == list(range(long))[share::shares]
            begun += size
