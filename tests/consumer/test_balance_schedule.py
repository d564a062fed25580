"""When a member asks for streams, and when it answers members that ask, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import math

import pytest

from redis_stream_client._consumer.balance_schedule import (
    DEPLOY,
    GIVE_UP,
    LONGEST_PATIENCE,
    PACE,
    PATIENCE,
    BalanceSchedule,
)
from redis_stream_client._ownership.shares import Load

SETTLE = 10.0

EVEN = {"me": Load(6), "a": Load(6), "b": Load(6)}
SHORT = {"me": Load(0), "a": Load(60), "b": Load(60)}
TALL = {"me": Load(60), "a": Load(60), "b": Load(0)}
BY_CHANCE = {"me": Load(27), "a": Load(44), "b": Load(49)}
LITTLE = {"me": Load(39), "a": Load(41), "b": Load(40)}
NEVER = math.inf


class Scene:
    """The schedule of one member, which looks when it must."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.schedule = BalanceSchedule("me", SETTLE, lambda: self.time)
        self.taken = 0

    def saw(self, loads: dict[str, Load] | None, room: int = 1000, released: int = 0) -> int:
        return self.schedule.saw(loads, room=room, taken=self.taken, released=released)

    @property
    def look_in(self) -> float:
        return self.schedule.look_at(self.taken) - self.time

    def wait_and_look(self, loads: dict[str, Load] | None) -> int:
        self.time += self.look_in
        return self.saw(loads)

    def asks(self) -> int:
        """It has looked as often as it takes until it asks."""
        self.time += SETTLE
        asked = self.saw(SHORT)
        while not asked:
            asked = self.wait_and_look(SHORT)
        return asked

    def answer(self, loads: dict[str, Load] | None, going: int = 0, released: int = 0) -> int:
        return self.schedule.answer(loads, going=going, released=released)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Asking.


def test_two_looks_in_a_still_fleet_must_agree(scene: Scene) -> None:
    scene.time += SETTLE
    assert scene.saw(SHORT) == 0
    assert scene.look_in == SETTLE / 2
    scene.time += 1
    assert scene.saw(SHORT) == 0, "the sweeper has looked, too, but it is too early"
    assert scene.wait_and_look(SHORT) == 40
    assert scene.schedule.asking


def test_the_first_look_may_fall_into_the_time_of_settling(scene: Scene) -> None:
    scene.time += SETTLE / 5
    assert scene.saw(SHORT) == 0
    assert scene.look_in == pytest.approx(SETTLE * 3 / 10), "its first look that counts"
    assert scene.wait_and_look(SHORT) == 0
    assert scene.wait_and_look(SHORT) == 40
    assert scene.time == 1000 + SETTLE


def test_a_second_look_that_does_not_agree_ends_it(scene: Scene) -> None:
    scene.time += SETTLE
    assert scene.saw(SHORT) == 0
    assert scene.wait_and_look(EVEN) == 0
    assert scene.look_in == NEVER
    assert scene.saw(SHORT) == 0, "this is the first of two again"


def test_a_change_of_membership_begins_all_anew(scene: Scene) -> None:
    scene.asks()
    scene.schedule.membership_changed()
    assert not scene.schedule.asking
    assert scene.look_in == NEVER
    assert scene.saw(SHORT) == 0
    changed = scene.time
    while not scene.wait_and_look(SHORT):
        pass
    assert scene.time == changed + SETTLE


def test_a_rolling_restart_moves_nothing_while_members_come_and_go(scene: Scene) -> None:
    for _ in range(50):
        scene.time += SETTLE * 0.8
        assert scene.saw(SHORT) == 0
        scene.schedule.membership_changed()


def test_after_a_drain_it_waits_for_longer_since_more_may_follow(scene: Scene) -> None:
    scene.time += SETTLE
    scene.schedule.membership_changed(drained=True)
    drained = scene.time
    scene.time += SETTLE / 10
    scene.schedule.membership_changed()
    scene.schedule.wants("b", 40)
    assert scene.schedule.answer_at == NEVER
    scene.saw(SHORT)
    while not scene.wait_and_look(SHORT):
        pass
    assert scene.time == drained + DEPLOY * SETTLE


def test_what_is_uneven_by_chance_is_evened_out_after_a_change_only(scene: Scene) -> None:
    scene.time += SETTLE
    assert scene.saw(BY_CHANCE) == 0
    assert scene.wait_and_look(BY_CHANCE) == 13
    scene.taken += 13
    assert scene.wait_and_look(EVEN) == 0
    scene.time += SETTLE + PATIENCE
    assert scene.saw(EVEN) == 0
    assert scene.saw(BY_CHANCE) == 0
    assert scene.look_in == NEVER
    scene.schedule.membership_changed()
    assert scene.saw(BY_CHANCE) == 0
    assert scene.look_in == SETTLE / 2


def test_whoever_has_its_share_for_the_moment_does_not_take_the_fleet_for_even_while_others_ask(
    scene: Scene,
) -> None:
    """As others get theirs, it may be short again: by one stream, of those that one member has too many."""
    enough, short = (
        {"a": Load(a), "me": Load(2), "x": Load(2), "y": Load(y), "z": Load(y)} for a, y in ((7, 1), (5, 2))
    )
    scene.time += SETTLE
    scene.schedule.wants("z", 1)
    assert scene.saw(enough) == 0
    assert scene.saw(short) == 0
    assert scene.wait_and_look(short) == 1


def test_an_even_fleet_needs_no_look_of_its_own(scene: Scene) -> None:
    assert scene.look_in == NEVER
    for loads in (EVEN, LITTLE) * 20:
        scene.time += 4
        assert scene.saw(loads) == 0
        assert (scene.look_in, scene.schedule.answer_at) == (NEVER, NEVER)


@pytest.mark.parametrize("trouble", [None, {"me": Load(0)}, {"a": Load(5), "b": Load(0)}])
def test_nothing_moves_in_trouble_alone_or_outside_the_fleet(
    scene: Scene, trouble: dict[str, Load] | None
) -> None:
    scene.asks()
    scene.time += LONGEST_PATIENCE
    assert scene.saw(trouble) == 0
    assert not scene.schedule.asking
    assert scene.look_in == NEVER
    assert scene.saw(SHORT) == 0, "two looks again"
    assert scene.wait_and_look(SHORT) == 40


def test_who_has_no_room_asks_for_nothing_and_else_for_no_more_than_fits(scene: Scene) -> None:
    scene.time += SETTLE
    assert scene.saw(SHORT, room=0) == 0
    assert scene.look_in == NEVER
    assert scene.saw(SHORT, room=7) == 0
    scene.time += scene.look_in
    assert scene.saw(SHORT, room=7) == 7


def test_what_came_is_followed_by_the_next_request(scene: Scene) -> None:
    assert scene.asks() == 40
    assert scene.look_in == PATIENCE
    scene.taken += 3
    assert scene.look_in == PACE
    asked = {"me": Load(3), "a": Load(58), "b": Load(59)}
    assert scene.saw(asked) == 0, "too early"
    assert scene.wait_and_look(asked) == 37
    assert scene.look_in == PATIENCE


def test_it_goes_on_until_it_has_its_share_and_then_says_nothing(scene: Scene) -> None:
    scene.asks()
    scene.taken += 39
    assert scene.wait_and_look(LITTLE) == 1, "who asks goes on, however little is missing"
    scene.taken += 1
    assert scene.wait_and_look({"me": Load(40), "a": Load(40), "b": Load(40)}) == 0
    assert not scene.schedule.asking
    assert scene.look_in == NEVER
    scene.time += SETTLE
    assert scene.saw(LITTLE) == 0, "what is missing is too little to begin anew"


def test_patience_doubles_while_nothing_comes_and_begins_anew_when_something_does(scene: Scene) -> None:
    scene.asks()
    waited = []
    for _ in range(9):
        waited.append(scene.look_in)
        assert scene.wait_and_look(SHORT) == 40
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    scene.taken += 1
    assert scene.wait_and_look(SHORT) == 40
    assert scene.look_in == PATIENCE


def test_who_has_waited_in_vain_for_long_asks_no_more_for_a_little(scene: Scene) -> None:
    scene.asks()
    while scene.look_in < GIVE_UP:
        assert scene.wait_and_look(LITTLE) == 1
    assert scene.wait_and_look(LITTLE) == 0
    assert not scene.schedule.asking
    assert scene.look_in == NEVER


def test_what_came_after_it_was_waited_for_counts_too(scene: Scene) -> None:
    scene.asks()
    scene.time += PACE * 2
    scene.taken += 1
    assert scene.look_in < 0, "look now"


# Answering.


def test_who_has_more_gives_a_step_at_a_time(scene: Scene) -> None:
    scene.time += SETTLE
    scene.schedule.wants("b", 40)
    assert scene.answer(TALL) == 3
    scene.schedule.wants("b", 37)
    assert scene.answer(TALL, going=3) == 0, "a twentieth is on its way"
    scene.schedule.wants("b", 37)
    assert scene.answer(TALL, going=2) == 1


def test_a_request_is_answered_once_and_several_together(scene: Scene) -> None:
    scene.time += SETTLE
    woken = asyncio.Event()
    scene.schedule.changed.add(woken.set)
    assert scene.schedule.answer_at == NEVER
    scene.schedule.wants("b", 40)
    assert woken.is_set()
    assert scene.schedule.answer_at <= scene.time
    assert scene.answer(TALL) == 3
    assert scene.schedule.answer_at == NEVER
    assert scene.answer(TALL) == 0
    scene.schedule.wants("b", 1)
    scene.schedule.wants("c", 1)
    assert scene.schedule.answer_at == scene.time + PACE
    assert scene.answer(TALL | {"c": Load(0)}) == 1, "the other one is for the peer that is as tall"


def test_what_is_on_its_way_is_not_given_twice(scene: Scene) -> None:
    scene.time += SETTLE
    loads = {"me": Load(7), "b": Load(4)}
    scene.schedule.wants("b", 1)
    assert scene.answer(loads) == 1
    loads = {"me": Load(400), "b": Load(384)}
    scene.schedule.wants("b", 8)
    assert scene.answer(loads, going=8) == 0
    scene.schedule.wants("b", 8)
    assert scene.answer({"me": Load(392), "b": Load(384)}, released=8) == 0


@pytest.mark.parametrize("trouble", [None, {"b": Load(0)}, EVEN])
def test_nobody_gives_in_trouble_or_in_an_even_fleet(scene: Scene, trouble: dict[str, Load] | None) -> None:
    scene.time += SETTLE
    scene.schedule.wants("b", 40)
    assert scene.answer(trouble) == 0
    assert scene.schedule.answer_at == NEVER


def test_requests_from_before_a_change_are_void_and_soon_after_it_nobody_gives(scene: Scene) -> None:
    scene.time += SETTLE
    scene.schedule.wants("b", 40)
    scene.schedule.membership_changed()
    assert scene.schedule.answer_at == NEVER
    scene.schedule.wants("b", 40)
    assert scene.schedule.answer_at == NEVER, "it does not even look"
    scene.time += SETTLE * 0.9  # who asks may have heard of the change a little earlier
    scene.schedule.wants("b", 40)
    assert scene.answer(TALL) == 3


def test_who_has_nothing_to_give_does_not_even_look(scene: Scene) -> None:
    scene.time += SETTLE
    scene.saw(EVEN)
    scene.schedule.wants("b", 40)
    assert scene.schedule.answer_at == NEVER
    scene.saw(TALL)
    scene.schedule.wants("b", 40)
    assert scene.schedule.answer_at < NEVER


def test_senseless_requests_are_not_heard(scene: Scene) -> None:
    for consumer, streams in (("me", 5), ("b", 0), ("b", -3)):
        scene.schedule.wants(consumer, streams)
        assert scene.schedule.answer_at == NEVER
