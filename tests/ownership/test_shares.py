"""The rule of rebalancing: how many streams each member should have, who wants some, and who gives some up."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._ownership.shares import Load, allot, fair_shares, step, threshold, wish

Loads = dict[str, Load]

"""The machine may be busy."""

weights = st.sampled_from([1.0, 1.0, 0.1, 0.5, 2.0, 3.7, 10.0])
limits = st.one_of(st.none(), st.none(), st.integers(1, 120))


def named(loads: list[Load]) -> Loads:
    return {f"m{i}": load for i, load in enumerate(loads)}


def fleet(*streams: int) -> Loads:
    return named([Load(n) for n in streams])


some = st.integers(0, 100)
fleets = st.lists(st.builds(Load, some, weights, st.none()), min_size=2, max_size=9).map(named)
equal_fleets = st.lists(st.builds(Load, some, st.just(1.0), st.none()), min_size=2, max_size=9).map(named)
limited_fleets = st.lists(st.builds(Load, some, weights, limits), min_size=2, max_size=9).map(named)
released = st.integers(0, 50)


def total(loads: Loads) -> int:
    return sum(load.streams for load in loads.values())


def exact(loads: Loads, lying: int = 0) -> dict[str, float]:
    every = sum(load.weight for load in loads.values())
    return {name: (total(loads) + lying) * load.weight / every for name, load in loads.items()}


def unevenness(loads: Loads, shares: dict[str, float]) -> float:
    return sum((load.streams - shares[name]) ** 2 for name, load in loads.items())


def moved(loads: Loads, giver: str, taker: str) -> Loads:
    gives, takes = loads[giver], loads[taker]
    return loads | {
        giver: gives._replace(streams=gives.streams - 1),
        taker: takes._replace(streams=takes.streams + 1),
    }


def first_taker(loads: Loads, lying: int = 0) -> str:
    fair = fair_shares(loads, lying)
    return next(name for name, load in sorted(loads.items()) if fair[name] > load.streams)


def run_dry(loads: Loads) -> tuple[Loads, int]:
    """Everybody asks until it has its share, and what is given up arrives; one by one. Returns how many moved."""
    moves = 0
    while True:
        wishes = {name: wish(loads, name, asking=True) for name in loads}
        gives = allot(loads, wishes)
        if not gives:
            return loads, moves
        for giver, count in gives.items():
            for _ in range(count):
                loads = moved(loads, giver, first_taker(loads))
                moves += 1


# What each should have.


@given(fleets, released)
def test_shares_add_up_and_are_by_weight(loads: Loads, lying: int) -> None:
    fair = fair_shares(loads, lying)
    assert sum(fair.values()) == total(loads) + lying
    for name, share in exact(loads, lying).items():
        assert abs(fair[name] - share) < 1 + 1e-6


@given(limited_fleets, released)
def test_nobody_should_have_more_than_it_takes_and_nothing_is_left_over_while_others_take_it(
    loads: Loads, lying: int
) -> None:
    fair = fair_shares(loads, lying)
    bounded = [load.limit for load in loads.values() if load.limit is not None]
    assert all(load.limit is None or fair[name] <= load.limit for name, load in loads.items())
    if len(bounded) == len(loads):
        assert sum(fair.values()) == min(sum(bounded), total(loads) + lying)
    else:
        assert sum(fair.values()) == total(loads) + lying


@given(limited_fleets, released, st.randoms())
def test_all_members_compute_alike(loads: Loads, lying: int, random: object) -> None:
    names = list(loads)
    random.shuffle(names)  # type: ignore[attr-defined]
    other = {name: loads[name] for name in names}
    assert fair_shares(other, lying) == fair_shares(loads, lying)
    assert allot(other, {"m0": 10}, lying) == allot(loads, {"m0": 10}, lying)


def test_what_one_cannot_take_goes_to_the_others() -> None:
    loads = {"a": Load(10, limit=10), "b": Load(60), "c": Load(60), "d": Load(0)}
    assert fair_shares(loads) == {"a": 10, "b": 40, "c": 40, "d": 40}


def test_a_weight_that_no_float_holds_exactly_costs_nobody_a_stream() -> None:
    loads = named([Load(3, 0.1)] * 30 + [Load(7, 0.7)])
    assert fair_shares(loads)["m30"] == pytest.approx(97 * 0.7 / 3.7, abs=1)
    assert fair_shares(named([Load(3, 0.1)] * 30)) == dict.fromkeys((f"m{i}" for i in range(30)), 3)


# Who asks.


@pytest.mark.parametrize(
    ("share", "after_a_change", "by_chance"),
    [(0, 2, 2), (1, 2, 4), (6, 2, 9.8), (9, 3, 12), (36, 12, 24), (100, 20, 40), (2500, 100, 200)],
)
def test_clearly_off_is_more_than_what_chance_makes_and_after_a_change_at_most_a_third(
    share: float, after_a_change: float, by_chance: float
) -> None:
    assert threshold(share) == after_a_change
    assert threshold(share, drifted=True) == pytest.approx(by_chance, abs=0.1)


@given(limited_fleets)
def test_who_asks_is_short_by_so_many(loads: Loads) -> None:
    fair = fair_shares(loads)
    for name, load in loads.items():
        assert wish(loads, name, asking=True) == max(0, fair[name] - load.streams)
        assert wish(loads, name, asking=False) in (0, wish(loads, name, asking=True))


def test_a_fleet_that_is_even_says_nothing() -> None:
    for streams, members in itertools.product(range(60), range(2, 7)):
        loads = fleet(*(streams // members + (i < streams % members) for i in range(members)))
        for name in loads:
            assert wish(loads, name, asking=False) == wish(loads, name, asking=True) == 0


@given(fleets, st.booleans())
def test_what_chance_makes_moves_nothing(loads: Loads, drifted: bool) -> None:
    fair = fair_shares(loads)
    far = {name: threshold(share, drifted=drifted) for name, share in fair.items()}
    if all(abs(load.streams - fair[name]) < far[name] for name, load in loads.items()):
        assert not any(wish(loads, name, asking=False, drifted=drifted) for name in loads)


def test_a_newcomer_asks_for_its_share() -> None:
    assert wish(fleet(6, 6, 6, 6, 0), "m4", asking=False) == 4
    assert wish(fleet(2500, 2500, 2500, 2500, 0), "m4", asking=False) == 2000


def test_if_one_has_far_too_many_all_the_others_ask() -> None:
    loads = fleet(*[196] * 49, 396)
    assert sum(wish(loads, name, asking=False) for name in loads) == 196


def test_who_can_take_nothing_asks_for_nothing() -> None:
    assert wish({"a": Load(3, limit=3), "b": Load(50)}, "a", asking=False) == 0


def test_released_streams_come_without_asking() -> None:
    assert wish(fleet(200, 200, 0), "m2", asking=False, released=50) == 100
    assert wish(fleet(5, 5, 0), "m2", asking=False, released=20) == 0


# Who gives.


@given(
    limited_fleets, st.dictionaries(st.sampled_from(["m0", "m1", "m2", "gone"]), st.integers(-5, 300)), released
)
def test_nobody_gives_more_than_it_has_to_spare_or_than_a_step_or_than_is_asked(
    loads: Loads, wishes: dict[str, int], lying: int
) -> None:
    fair = fair_shares(loads, lying)
    gives = allot(loads, wishes, lying)
    asked = sum(
        max(0, min(count, fair[name] - loads[name].streams)) for name, count in wishes.items() if name in loads
    )
    assert sum(gives.values()) <= asked
    for name, count in gives.items():
        load = loads[name]
        assert 0 < count <= step(load.streams)
        assert load.streams - count >= fair[name]


@given(fleets)
def test_nobody_comes_below_the_whole_part_of_its_share(loads: Loads) -> None:
    wishes = {name: wish(loads, name, asking=True) for name in loads}
    for name, count in allot(loads, wishes).items():
        assert loads[name].streams - count >= math.floor(exact(loads)[name] + 1e-9)


@given(fleets)
def test_each_stream_that_moves_makes_the_fleet_more_even(loads: Loads) -> None:
    shares = exact(loads)
    wishes = {name: wish(loads, name, asking=True) for name in loads}
    for giver in allot(loads, wishes):
        for taker in (name for name, count in wishes.items() if count):
            after = moved(loads, giver, taker)
            assert unevenness(after, shares) < unevenness(loads, shares)


@given(equal_fleets)
def test_among_equals_a_stream_moves_only_to_one_that_has_two_fewer(loads: Loads) -> None:
    wishes = {name: wish(loads, name, asking=True) for name in loads}
    for giver in allot(loads, wishes):
        for taker in (name for name, count in wishes.items() if count):
            assert loads[giver].streams - loads[taker].streams >= 2


@given(fleets)
def test_all_that_ask_get_their_share_by_as_few_moves_as_possible(loads: Loads) -> None:
    fair = fair_shares(loads)
    surplus = sum(max(0, load.streams - fair[name]) for name, load in loads.items())
    after, moves = run_dry(loads)
    assert {name: load.streams for name, load in after.items()} == fair_shares(after)
    assert total(after) == total(loads)
    assert moves == surplus


@given(equal_fleets)
def test_no_other_even_fleet_is_nearer(loads: Loads) -> None:
    low, high = divmod(total(loads), len(loads))
    ordered = sorted((load.streams for load in loads.values()), reverse=True)
    least = sum(max(0, streams - low - (rank < high)) for rank, streams in enumerate(ordered))
    assert run_dry(loads)[1] == least


def test_the_tallest_give_first_by_their_weight() -> None:
    loads = {"big": Load(100, weight=10), "small": Load(40), "taker": Load(0)}
    assert allot(loads, {"taker": 2}) == {"small": 2}


def test_one_that_cannot_give_does_not_stand_in_the_way_of_others() -> None:
    """The tallest one may be of an older version. It is counted for no more than a step."""
    gives = allot(fleet(100, 60, 60, 0), {"m3": 11})
    assert gives == {"m0": 5, "m1": 3, "m2": 3}


@pytest.mark.parametrize(("streams", "at_once"), [(0, 1), (1, 1), (20, 1), (21, 2), (100, 5), (2500, 125)])
def test_a_twentieth_is_on_its_way_at_a_time_and_at_least_one(streams: int, at_once: int) -> None:
    assert step(streams) == at_once
