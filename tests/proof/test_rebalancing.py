"""Ring 1: a fleet in simulated time becomes even by about as few moves as possible, and then says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.rebalancing import OLD, SLOW, Fleet, Kind, Outcome, random_ends, rolling, scale

PLAIN = Kind()
WASTE = 1.1
"""So many times the least may move."""

LASTING = 60.0
"""Seconds of simulated time that a scene goes on after the last change."""


def joined(before: list[Kind], joining: list[Kind], streams: int, **how: Any) -> Outcome:
    return scale(before, joining, streams, lasting=LASTING, **how)


def came_even(outcome: Outcome, within: float = LASTING, off_by: int = 0) -> None:
    fleet = outcome.fleet
    assert fleet.moves <= WASTE * outcome.least
    assert fleet.off <= off_by
    assert not fleet.released
    assert outcome.even_after <= within
    assert fleet.most_given <= max(len(fleet.members), fleet.total / 20 + len(fleet.members))
    asks, looks = fleet.asks, fleet.looks
    fleet.play(60)
    assert (fleet.asks, fleet.looks) == (asks, looks), "an even fleet says nothing"


@pytest.mark.parametrize(
    ("members", "newcomers", "streams"), [(4, 1, 24), (4, 4, 24), (4, 1, 100), (4, 4, 1000), (10, 2, 500)]
)
def test_newcomers_get_their_share(members: int, newcomers: int, streams: int) -> None:
    outcome = joined([PLAIN] * members, [PLAIN] * newcomers, streams)
    came_even(outcome, within=20)
    assert max(outcome.fleet.gaps) < 0.05


@pytest.mark.parametrize(("newcomers", "streams"), [(4, 13), (8, 30), (20, 110)])
def test_many_that_join_one_leave_it_no_more_than_its_share(newcomers: int, streams: int) -> None:
    """Rounding is for those that have the least: who had its share may be short by one when others have theirs."""
    came_even(joined([PLAIN], [PLAIN] * newcomers, streams))


@pytest.mark.parametrize("new_first", [False, True])
@pytest.mark.parametrize("gap", [4, 30])
@pytest.mark.parametrize(("members", "streams"), [(4, 24), (8, 80)])
def test_a_rolling_restart_moves_nothing_twice_and_ends_even(
    members: int, streams: int, gap: float, new_first: bool
) -> None:
    outcome = rolling(members, streams, gap, new_first=new_first, lasting=LASTING)
    assert outcome.fleet.moves <= WASTE * outcome.least
    average = streams / members
    assert all(abs(streams - average) < max(2, average / 3) for streams in outcome.fleet.heights)


def test_a_slow_member_keeps_what_it_cannot_give_and_the_others_give_theirs() -> None:
    outcome = joined([SLOW, *[PLAIN] * 3], [PLAIN], 1000)
    assert outcome.fleet.moves <= WASTE * outcome.least
    slow, *others, newcomer = outcome.fleet.heights
    assert others == [200] * 3
    assert (slow, newcomer) != (250, 150), "a few of the slow one's did reach a checkpoint"


def test_shares_are_by_weight() -> None:
    came_even(joined([Kind(1), Kind(1), Kind(2), Kind(4)], [Kind(2)], 1000), within=20)
    came_even(joined([Kind(0.1)] * 5 + [Kind(3)], [Kind(5)], 400), off_by=1)


def test_nobody_gets_more_than_it_takes() -> None:
    outcome = joined([PLAIN] * 4, [Kind(limit=5)], 100)
    came_even(outcome, within=20)
    assert min(outcome.fleet.heights) == 5
    came_even(joined([Kind(limit=30)] * 4, [Kind(limit=10)] * 2, 100), within=20)
    full = joined([Kind(limit=25)] * 4, [Kind(limit=0)], 100)
    assert (full.fleet.moves, full.fleet.asks) == (0, 0)


def test_a_limit_that_peers_do_not_know_costs_little() -> None:
    outcome = joined([Kind(limit=30, told=False)] * 4, [Kind(limit=10, told=False)] * 2, 100)
    assert outcome.fleet.moves <= WASTE * outcome.least
    assert max(outcome.fleet.gaps) < 1


def test_members_of_an_older_version_neither_give_nor_stand_in_the_way() -> None:
    outcome = joined([OLD, OLD, PLAIN, PLAIN], [PLAIN], 100)
    assert sorted(outcome.fleet.heights) == [10, 20, 20, 25, 25]
    outcome = joined([PLAIN] * 4, [OLD], 100)
    assert outcome.fleet.moves == 0, "it does not ask, and nobody gives what nobody has asked for"


def test_hints_that_are_lost_delay_it() -> None:
    for seed in range(3):
        came_even(joined([PLAIN] * 4, [PLAIN] * 2, 200, lost=0.3, seed=seed))


def test_a_member_that_dies_while_it_gives_or_asks_leaves_nothing_behind() -> None:
    for victim in ("m000", "m004"):
        fleet = Fleet([PLAIN] * 4, 1000)
        fleet.play(60)
        fleet.join()
        while fleet.given < 60:
            fleet.play(0.01)
        fleet.die(fleet.members[victim])
        fleet.play(60)
        assert max(fleet.heights) - min(fleet.heights) < 30, "what is left is little"
        assert fleet.total == 1000
        assert not fleet.released
        assert not any(member.leaving for member in fleet.members.values())


def test_streams_that_come_and_end_at_random_move_nothing() -> None:
    for members, average in ((4, 25), (10, 5), (20, 40)):
        fleet = random_ends(members, average, life=120, hours=0.1)
        assert fleet.moves <= 0.03 * fleet.ended
        assert fleet.ended > 100


def test_without_rebalancing_newcomers_get_nothing() -> None:
    outcome = joined([PLAIN] * 4, [PLAIN], 100, settle=None)
    assert sorted(outcome.fleet.heights) == [0, 25, 25, 25, 25]
