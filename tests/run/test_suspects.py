"""Ring 1: which streams may start after their owners have died, and which go to the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client import RetryPolicy
from redis_stream_client._run.suspects import (
    IN_LINE,
    PROBATION,
    SHARE,
    TOGETHER,
    TRIALS,
    Surroundings,
    Suspects,
)
from tests.run.simulated_fleet import Fleet, Stream

if TYPE_CHECKING:
    import random

HEALTHY = Surroundings([0] * 30, True)
"""Thirty streams; the suspect is not among them, for simplicity."""


class Scene:
    """The suspects of one process, and a clock that the test moves."""

    def __init__(self, policy: RetryPolicy | None = None) -> None:
        self.now = 1000.0
        self.chance = 0.5
        self.suspects = Suspects[str](policy or RetryPolicy(), lambda: self.chance)
        self.around = HEALTHY

    def arrive(
        self, name: str, deaths: int, lived: float | None = 0.5, trials: int = 0, failing_for: float = 0.0
    ) -> float:
        return self.suspects.add(name, deaths, lived=lived, trials=trials, failing_for=failing_for, now=self.now)

    def decided(self) -> list[tuple[str, str]]:
        """Everything that is decided now."""
        found: list[tuple[str, str]] = []
        while (decision := self.suspects.next(self.now, lambda: self.around)) is not None:
            found.append(decision)
        return found

    def started(self) -> list[str]:
        return [name for name, _ in self.decided()]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Who starts when.


def test_one_after_the_other_as_each_gets_on(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        assert scene.arrive(name, 1) == 0
    assert scene.started() == ["a"]
    assert scene.started() == []
    scene.suspects.got_on("a")
    assert scene.started() == ["b"]
    scene.suspects.progressed("a", scene.now)
    assert scene.started() == []
    scene.suspects.progressed("b", scene.now)
    assert scene.started() == ["c"]
    assert not scene.suspects


def test_those_with_fewer_deaths_go_first(scene: Scene) -> None:
    scene.arrive("worst", 4)
    scene.arrive("bad", 2)
    scene.now += 100
    scene.arrive("unlucky", 1)
    order = []
    while scene.suspects:
        order += scene.started()
        scene.suspects.got_on(order[-1])
    assert order == ["unlucky", "bad", "worst"]


def test_those_with_more_than_one_rest_and_each_death_doubles_it(scene: Scene) -> None:
    rests = [scene.arrive(f"stream-{deaths}", deaths, lived=None) for deaths in range(1, 12)]
    assert rests[:6] == [0, 0.5, 1, 2, 4, 8]
    assert rests[-1] == SHARE * 30
    assert scene.started() == ["stream-1"]
    scene.suspects.got_on("stream-1")
    scene.now += 0.49
    assert scene.started() == []
    assert scene.suspects.look_again_at() == 1000.5
    scene.now = 1000.5
    assert scene.started() == ["stream-2"]


def test_one_that_does_not_get_on_is_not_waited_for(scene: Scene) -> None:
    for name in ("a", "b"):
        scene.arrive(name, 1)
    assert scene.started() == ["a"]
    due = scene.suspects.look_again_at()
    assert due is not None
    assert due - scene.now <= PROBATION
    scene.now = due
    assert scene.started() == ["b"]
    assert scene.suspects.look_again_at() is None


@pytest.mark.parametrize(("deaths", "within"), [(1, TOGETHER), (2, 0.5 + IN_LINE)])
@pytest.mark.parametrize("streams", [3, 40, 2000])
def test_however_many_never_get_on_all_begin_in_time(
    scene: Scene, deaths: int, within: float, streams: int
) -> None:
    for i in range(streams):
        scene.arrive(f"stream-{i}", deaths)
    began = scene.now
    started = scene.started()
    while scene.suspects:
        due = scene.suspects.look_again_at()
        assert due is not None
        assert due > scene.now
        scene.now = due
        started += scene.started()
    assert len(started) == streams
    assert scene.now - began <= within + 0.01


def test_one_that_is_lost_while_it_waits_is_forgotten(scene: Scene) -> None:
    scene.arrive("a", 1)
    scene.arrive("b", 3)
    scene.arrive("c", 1)
    assert scene.started() == ["a"]
    scene.suspects.remove("c", scene.now)
    scene.suspects.remove("b", scene.now)
    scene.suspects.remove("a", scene.now)
    assert scene.started() == []
    assert scene.suspects.look_again_at() in (None, 1001.0)
    scene.now += 100
    assert scene.started() == []
    assert scene.suspects.look_again_at() is None


def test_one_that_ends_on_probation_is_not_waited_for(scene: Scene) -> None:
    scene.arrive("a", 1)
    scene.arrive("b", 1)
    assert scene.started() == ["a"]
    scene.suspects.remove("a", scene.now)
    assert scene.started() == ["b"]


# Those that come back: this process lapsed, and nobody else took them.


def test_one_that_comes_back_rests_for_what_is_left(scene: Scene) -> None:
    assert scene.arrive("a", 3, lived=4.0) == 8.0
    scene.now += 5
    scene.suspects.remove("a", scene.now)
    scene.now += 100  # while it was away it did not rest here
    assert scene.arrive("a", 3, lived=4.0) == 3.0
    scene.now += 2
    assert scene.decided() == []
    scene.suspects.remove("a", scene.now)
    assert scene.arrive("a", 3, lived=4.0) == 1.0
    scene.now += 1
    scene.suspects.progressed("other", scene.now)
    assert scene.decided() == [("a", "trial")]


@pytest.mark.parametrize(("deaths", "lived", "trials"), [(4, 4.0, 0), (3, 5.0, 0), (3, 4.0, 1)])
def test_one_that_comes_back_with_another_story_rests_anew(
    scene: Scene, deaths: int, lived: float, trials: int
) -> None:
    scene.arrive("a", 3, lived=4.0)
    scene.now += 100
    scene.suspects.remove("a", scene.now)
    assert scene.arrive("a", deaths, lived=lived, trials=trials) >= 8.0


def test_one_that_has_begun_and_comes_back_rests_anew(scene: Scene) -> None:
    scene.arrive("a", 3, lived=4.0)
    assert rested(scene) == [("a", "trial")]
    assert scene.arrive("a", 3, lived=4.0) == 0.0, "it was lost before it could begin"
    assert scene.decided() == [("a", "trial")]
    scene.suspects.forget("a")
    assert scene.arrive("a", 3, lived=4.0) == 8.0


def test_a_process_that_lapses_again_and_again_starts_all_in_time(scene: Scene) -> None:
    """Its streams get back in line where they were, and not at its end."""
    waiting = {f"stream-{i}" for i in range(300)}
    for _ in range(8):
        for name in waiting:
            scene.arrive(name, 2)
        lapses = scene.now + 1.5
        while (due := scene.suspects.look_again_at()) is not None and due < lapses:
            scene.now = max(scene.now, due)
            waiting.difference_update(scene.started())
        scene.now = lapses
        for name in waiting:
            scene.suspects.remove(name, scene.now)
        scene.now += 1
    assert not waiting


# Trials, and what convicts.


def rested(scene: Scene) -> list[tuple[str, str]]:
    """What is decided when all have rested."""
    scene.now += 100
    return scene.decided()


def test_a_process_that_lived_long_enough_without_it_tries_it(scene: Scene) -> None:
    assert scene.arrive("a", 3, lived=4.0) == 8.0
    assert rested(scene) == [("a", "trial")]


def test_no_rest_is_longer_for_the_sake_of_a_trial_than_the_policy_says(scene: Scene) -> None:
    assert scene.arrive("a", 3, lived=100.0) == SHARE * 30


@pytest.mark.parametrize("lived", [None, 0.4])
def test_it_takes_a_rest_and_a_known_time(scene: Scene, lived: float | None) -> None:
    scene.arrive("a", 2 if lived else 9, lived=lived)
    assert rested(scene) == [("a", "start")]


def test_where_nobody_gets_on_nobody_is_tried_or_buried(scene: Scene) -> None:
    scene.around = Surroundings([0] * 30, False)
    scene.arrive("a", 90, trials=TRIALS, failing_for=1e6)
    assert rested(scene) == [("a", "start")]


def test_progress_of_another_after_it_arrived_is_enough(scene: Scene) -> None:
    scene.around = Surroundings([0] * 30, False)
    scene.suspects.progressed("b", scene.now - 1)
    scene.arrive("a", 6, trials=TRIALS)
    scene.suspects.progressed("b", scene.now + 1)
    assert rested(scene) == [("a", "bury")]


def test_one_that_stands_out_is_buried_after_its_trials(scene: Scene) -> None:
    scene.arrive("a", 6, trials=TRIALS)
    assert rested(scene) == [("a", "bury")]
    assert not scene.suspects


@pytest.mark.parametrize(
    ("deaths", "trials", "lived"), [(5, TRIALS, 0.5), (6, TRIALS - 1, 0.5), (6, TRIALS, 15.0)]
)
def test_one_is_not_buried_sooner(scene: Scene, deaths: int, trials: int, lived: float) -> None:
    scene.arrive("a", deaths, trials=trials, lived=lived)
    assert rested(scene) == [("a", "trial")]


@pytest.mark.parametrize(("alike", "verdict"), [(3, "bury"), (4, "trial")])
def test_it_stands_out_where_one_in_ten_has_half_as_many_deaths(scene: Scene, alike: int, verdict: str) -> None:
    scene.around = Surroundings([3] * alike + [2] * (30 - alike), True)
    scene.arrive("a", 6, trials=TRIALS)
    assert rested(scene) == [("a", verdict)]


def test_with_each_further_trial_one_more_may_be_like_it(scene: Scene) -> None:
    scene.around = Surroundings([8, 6, 6, 0], True)
    for trials in (TRIALS, TRIALS + 1):
        scene.arrive("a", 8, trials=trials)
        assert rested(scene) == [("a", "trial")]
        scene.suspects.remove("a", scene.now)
    scene.arrive("a", 8, trials=TRIALS + 2)
    assert rested(scene) == [("a", "bury")]


def test_one_that_does_not_stand_out_has_patience(scene: Scene) -> None:
    scene.around = Surroundings([9] * 30, True)
    scene.arrive("a", 16, trials=TRIALS, failing_for=400.0)
    assert rested(scene) == [("a", "trial")]
    scene.suspects.remove("a", scene.now)
    scene.arrive("a", 16, trials=TRIALS, failing_for=600.0)
    assert rested(scene) == [("a", "bury")]


def test_alone_there_is_nothing_but_the_policy(scene: Scene) -> None:
    scene.around = Surroundings([16], False)
    for name, deaths, failing_for in (("a", 15, 600.0), ("b", 16, 400.0), ("c", 16, 600.0)):
        scene.arrive(name, deaths, failing_for=failing_for)
        expected = "bury" if name == "c" else "start"
        assert rested(scene) == [(name, expected)]
        scene.suspects.remove(name, scene.now)


def test_alone_it_is_passed_on_to_peers_if_there_are_any_but_not_always(scene: Scene) -> None:
    """A fleet in which each member owns one stream would pass it round for ever."""
    scene.around = Surroundings([3], False, True)
    scene.arrive("first", 1)
    assert rested(scene) == [("first", "start")]
    scene.suspects.remove("first", scene.now)
    scene.arrive("a", 3)
    assert rested(scene) == [("a", "pass")]
    scene.arrive("b", 3)
    scene.chance = 0.8
    assert rested(scene) == [("b", "start")]


def test_no_process_passes_it_on_twice(scene: Scene) -> None:
    """It comes back: all its peers have passed it on. It has rested, and starts at once."""
    scene.around = Surroundings([3], False, True)
    scene.arrive("a", 3)
    assert rested(scene) == [("a", "pass")]
    assert scene.arrive("a", 3) == 0.0
    assert scene.decided() == [("a", "start")]
    scene.arrive("a", 4)
    assert rested(scene) == [("a", "pass")], "for the others it is a new story, too"


def test_without_a_number_nothing_is_ever_buried() -> None:
    scene = Scene(RetryPolicy(max_attempts=None))
    scene.arrive("a", 1000, trials=1000, failing_for=1e6)
    assert rested(scene) == [("a", "trial")]
    scene.suspects.remove("a", scene.now)
    scene.around = Surroundings([16], False)
    scene.arrive("a", 1000, trials=1000, failing_for=1e6)
    assert rested(scene) == [("a", "start")]


def test_where_few_attempts_are_allowed_one_trial_is_enough() -> None:
    scene = Scene(RetryPolicy(max_attempts=3, patience=0))
    scene.arrive("a", 2, lived=1.0)
    assert rested(scene) == [("a", "trial")]
    scene.suspects.remove("a", scene.now)
    scene.arrive("a", 3, lived=1.0, trials=1)
    assert rested(scene) == [("a", "bury")]


# Whatever happens.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrives", "arrives", "leaves", "gets on", "passes"]),
        st.integers(0, 9),
        st.integers(1, 20),
        st.sampled_from([0.0, 0.01, 0.4, 3.0, 40.0]),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_everyone_who_waits_is_decided_once_and_in_time(steps: list[tuple[str, int, int, float]]) -> None:
    scene = Scene()
    waiting: dict[str, int] = {}
    for what, number, deaths, seconds in steps:
        name = f"stream-{number}"
        if what == "arrives" and name not in waiting:
            scene.suspects.remove(name, scene.now)
            rest = scene.arrive(name, deaths, trials=deaths // 2)
            assert 0 <= rest <= 30
            waiting[name] = deaths
        elif what == "leaves":
            scene.suspects.remove(name, scene.now)
            waiting.pop(name, None)
        elif what == "gets on":
            scene.suspects.progressed(name, scene.now)
        scene.now += seconds
        for decided, verdict in scene.decided():
            assert waiting.pop(decided) >= (6 if verdict == "bury" else 1)
        assert len(scene.suspects) == len(waiting)
    for _ in range(30):
        due = scene.suspects.look_again_at()
        if due is None:
            break
        scene.now = max(scene.now, due)
        for decided, _ in scene.decided():
            del waiting[decided]
    assert not waiting


# A fleet.


def fleet(
    innocent: int = 99, poisoned: int = 1, idle: int = 0, members: int = 4, kills: float = 0.0, **options: object
) -> Fleet:
    streams = [Stream(f"stream-{i}") for i in range(innocent - idle)]
    streams += [Stream(f"idle-{i}", work=None) for i in range(idle)]
    streams += [Stream(f"poison-{i}", kills=kills) for i in range(poisoned)]
    return Fleet(streams, members, **options)  # type: ignore[arg-type]


def names(streams: list[Stream]) -> list[str]:
    return sorted(stream.name for stream in streams)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kills", [0.0, 3.0])
@pytest.mark.parametrize("idle", [0, 90])
@pytest.mark.parametrize("members", [2, 4, 8])
def test_a_poisoned_stream_is_buried_and_no_other(seed: int, kills: float, idle: int, members: int) -> None:
    scene = fleet(idle=idle, members=members, kills=kills, seed=seed)
    scene.run_until_buried(1)
    assert names(scene.buried) == ["poison-0"]
    assert scene.deaths <= 8
    assert scene.longest_standstill < 5


@pytest.mark.parametrize("seed", range(3))
def test_two_poisoned_streams_are_buried_and_no_other(seed: int) -> None:
    scene = fleet(innocent=98, poisoned=2, seed=seed)
    scene.run_until_buried(2)
    assert names(scene.buried) == ["poison-0", "poison-1"]
    assert all(stream.killed <= 8 for stream in scene.buried)
    assert scene.longest_standstill < 5


@pytest.mark.parametrize("members", [1, 4])
def test_two_poisoned_streams_among_ten_are_buried_and_no_other(members: int) -> None:
    scene = fleet(innocent=8, poisoned=2, members=members)
    scene.run_until_buried(2)
    assert names(scene.buried) == ["poison-0", "poison-1"]
    assert all(stream.killed <= 10 for stream in scene.buried)


def test_a_poisoned_stream_beside_idle_ones_only() -> None:
    scene = fleet(innocent=9, idle=9)
    scene.run_until_buried(1)
    assert names(scene.buried) == ["poison-0"]
    assert scene.deaths <= 8


def test_a_poisoned_stream_alone_is_buried_when_the_policy_says_so() -> None:
    scene = fleet(innocent=0, members=1)
    scene.run_until_buried(1)
    assert scene.deaths >= 16
    assert scene.now >= 600
    scene = fleet(innocent=0, members=1, policy=RetryPolicy(max_attempts=3, patience=0))
    scene.run_until_buried(1)
    assert scene.deaths == 3


def test_a_poisoned_stream_is_never_buried_where_the_policy_says_so() -> None:
    scene = fleet(policy=RetryPolicy(max_attempts=None))
    scene.run(600)
    assert not scene.buried
    assert scene.deaths < 35
    assert scene.longest_standstill < 5


@pytest.mark.parametrize("members", [1, 4, 8])
@pytest.mark.parametrize("life", [0.5, 2.0, 10.0, 40.0])
@pytest.mark.parametrize(
    ("work", "slow", "idle"), [(0.05, 0, 0), (1e6, 0, 0), (0.05, 3, 0), (0.05, 1, 39)], ids=str
)
def test_a_bad_deploy_buries_nothing(members: int, life: float, work: float, slow: int, idle: int) -> None:
    """Processes die of something else, whether or not the handlers get on. In the end comes a good version."""

    def lives(chance: random.Random) -> float:
        return life * chance.uniform(0.9, 1.1)

    streams = [Stream(f"stream-{i}", work=work) for i in range(40 - slow - idle)]
    streams += [Stream(f"slow-{i}", work=1.2 * life) for i in range(slow)]
    streams += [Stream(f"idle-{i}", work=None) for i in range(idle)]
    scene = Fleet(streams, members, life=lives)
    scene.run(600)
    assert scene.deaths > 10
    scene.deploy()
    scene.run(60)
    assert not scene.buried
    assert scene.longest_standstill < 30
