"""Ring 1: which streams may start after their owners have died, and which go to the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client import RetryPolicy
from redis_stream_client._run.suspects import (
    AT_ONCE,
    IN_LINE,
    SHARE,
    SHORTEST_REST,
    SPREAD,
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
    ) -> None:
        self.suspects.add(name, deaths, lived=lived, trials=trials, failing_for=failing_for, now=self.now)

    def rest(self, name: str, deaths: int, **story: float) -> float:
        """For how long it would rest, alone."""
        self.arrive(name, deaths, **story)  # type: ignore[arg-type]
        assert self.decided() == []
        due = self.suspects.look_again_at()
        assert due is not None
        return due - self.now

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
        scene.arrive(name, 2)
    assert scene.started() == ["a"]
    assert scene.suspects.awaited == ["a"]
    assert scene.started() == []
    scene.suspects.got_on("a")
    assert scene.started() == ["b"]
    scene.suspects.progressed("a", scene.now)
    assert scene.started() == []
    scene.suspects.progressed("b", scene.now)
    assert scene.started() == ["c"]
    assert scene.suspects.awaited == []
    assert not scene.suspects.waiting


def test_those_with_fewer_deaths_go_first(scene: Scene) -> None:
    scene.arrive("worst", 5)
    scene.arrive("worse", 4)
    scene.arrive("bad", 3)
    scene.arrive("unlucky", 2)
    order = []
    while scene.suspects.waiting:
        order += scene.started()
        scene.suspects.got_on(order[-1])
        due = scene.suspects.look_again_at()
        scene.now = max(scene.now, due or 0.0)
    assert order == ["unlucky", "bad", "worse", "worst"]


def test_those_with_as_many_deaths_begin_in_another_order_each_time(scene: Scene) -> None:
    """Else the one that kills would take the same ones along, each time."""
    for name, scene.chance in (("a", 0.9), ("b", 0.1), ("c", 0.5)):
        scene.arrive(name, 2)
    order = []
    while scene.suspects.waiting:
        order += scene.started()
        scene.suspects.got_on(order[-1])
    assert order == ["b", "c", "a"]


def test_the_last_one_rests_if_it_has_three_deaths(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.arrive(name, 3)
    assert scene.started() == ["a"]
    scene.suspects.got_on("a")
    assert scene.started() == ["b"]
    scene.suspects.got_on("b")
    assert scene.started() == []
    assert scene.suspects.look_again_at() == scene.now + SHORTEST_REST
    scene.now += SHORTEST_REST
    assert scene.decided() == [("c", "trial")]


def test_the_last_one_rests_no_more_when_a_likelier_one_comes(scene: Scene) -> None:
    scene.arrive("a", 3)
    assert scene.started() == []
    scene.arrive("b", 2)
    assert scene.started() == ["b"]
    scene.suspects.got_on("b")
    assert scene.started() == []
    scene.arrive("c", 4)
    assert scene.started() == ["a"]


def test_those_with_five_deaths_rest_and_each_further_one_doubles_it() -> None:
    assert [Scene().rest("a", deaths) for deaths in range(3, 9)] == [2, 2, 4, 8, 16, SHARE * 30]
    assert Scene().rest("a", 5, lived=7.0) == 14.0
    assert Scene().rest("a", 5, lived=100.0) == SHARE * 30, "no longer for the sake of a trial"


def test_nobody_waits_for_one_that_rests(scene: Scene) -> None:
    scene.arrive("worst", 7)
    scene.now += 100
    assert scene.started() == ["worst"]
    scene.arrive("worse", 6)
    scene.arrive("unlucky", 2)
    assert scene.started() == ["unlucky"]


def test_one_that_does_not_get_on_is_not_waited_for(scene: Scene) -> None:
    for name in ("a", "b"):
        scene.arrive(name, 2, lived=0.0)
    assert scene.started() == ["a"]
    due = scene.suspects.look_again_at()
    assert due is not None
    assert 0 < due - scene.now <= AT_ONCE / 2
    scene.now = due
    assert scene.started() == ["b"]
    assert scene.suspects.look_again_at() is None


@pytest.mark.parametrize(("deaths", "within"), [(2, AT_ONCE), (3, 2 + AT_ONCE), (5, 4.0 + IN_LINE)])
@pytest.mark.parametrize("streams", [3, 40, 2000])
def test_however_many_never_get_on_all_begin_in_time(
    scene: Scene, deaths: int, within: float, streams: int
) -> None:
    for i in range(streams):
        scene.arrive(f"stream-{i}", deaths)
    began = scene.now
    started = scene.started()
    while scene.suspects.waiting:
        due = scene.suspects.look_again_at()
        assert due is not None
        assert due > scene.now
        scene.now = due
        started += scene.started()
    assert len(started) == streams
    assert scene.now - began <= within + 0.01


def test_one_that_is_lost_while_it_waits_is_forgotten(scene: Scene) -> None:
    scene.arrive("a", 2)
    scene.arrive("b", 5)
    scene.arrive("c", 2)
    assert scene.started() == ["a"]
    for name in ("c", "b", "a"):
        scene.suspects.remove(name, scene.now)
    assert scene.started() == []
    assert scene.suspects.look_again_at() is None
    scene.arrive("last", 3)
    assert scene.started() == []
    scene.suspects.remove("last", scene.now)
    scene.arrive("d", 3)
    scene.now += 100
    assert scene.started() == ["d"]
    assert scene.suspects.look_again_at() is None


def test_one_that_ends_is_not_waited_for(scene: Scene) -> None:
    scene.arrive("a", 2)
    scene.arrive("b", 2)
    assert scene.started() == ["a"]
    scene.suspects.remove("a", scene.now)
    assert scene.started() == ["b"]


# Those that are cleared.


def test_those_that_live_longer_than_with_any_owner_that_died_are_cleared(scene: Scene) -> None:
    scene.arrive("a", 2, lived=1.0)
    scene.arrive("b", 2, lived=3.0)
    scene.arrive("c", 2, lived=None)
    while scene.suspects.waiting:
        scene.started()
        scene.now = max(scene.now, scene.suspects.look_again_at() or 0.0)
    assert scene.suspects.clear(scene.now) == []
    scene.now += 1.4
    assert scene.suspects.clear(scene.now) == ["a"]
    assert scene.suspects.clear(scene.now) == [], "once"
    scene.suspects.got_on("b")
    scene.now += 10
    assert scene.suspects.clear(scene.now) == []
    assert not scene.suspects


# Those that come back: this process lapsed, and nobody else took them.


def test_one_that_comes_back_rests_for_what_is_left(scene: Scene) -> None:
    assert scene.rest("a", 5, lived=4.0) == 8.0
    scene.now += 5
    scene.suspects.remove("a", scene.now)
    scene.now += 100  # while it was away it did not rest here
    assert scene.rest("a", 5, lived=4.0) == 3.0
    scene.now += 2
    assert scene.decided() == []
    scene.suspects.remove("a", scene.now)
    assert scene.rest("a", 5, lived=4.0) == 1.0
    scene.now += 1
    scene.suspects.progressed("other", scene.now)
    assert scene.decided() == [("a", "trial")]


@pytest.mark.parametrize(("deaths", "lived", "trials"), [(6, 4.0, 0), (5, 5.0, 0), (5, 4.0, 1)])
def test_one_that_comes_back_with_another_story_rests_anew(
    scene: Scene, deaths: int, lived: float, trials: int
) -> None:
    scene.arrive("a", 5, lived=4.0)
    scene.now += 100
    scene.suspects.remove("a", scene.now)
    assert scene.rest("a", deaths, lived=lived, trials=trials) >= 8.0


def test_one_that_has_begun_and_comes_back_rests_anew(scene: Scene) -> None:
    scene.arrive("a", 5, lived=4.0)
    assert rested(scene) == [("a", "trial")]
    scene.arrive("a", 5, lived=4.0)
    assert scene.decided() == [("a", "trial")], "it was lost before it could begin"
    scene.suspects.forget("a")
    scene.suspects.got_on("a")
    assert scene.rest("a", 5, lived=4.0) == 8.0


def test_a_process_that_lapses_again_and_again_starts_all_in_time(scene: Scene) -> None:
    """Its streams get back in line where they were, and not at its end."""
    waiting = {f"stream-{i}" for i in range(300)}
    for _ in range(12):
        for name in waiting:
            scene.arrive(name, 5)
        lapses = scene.now + 2.5
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
    assert scene.rest("a", 5, lived=4.0) == 8.0
    assert rested(scene) == [("a", "trial")]


def test_one_that_has_not_rested_for_long_enough_is_not_tried(scene: Scene) -> None:
    assert scene.rest("a", 3, lived=1.1) == SHORTEST_REST
    scene.now += SHORTEST_REST
    assert scene.decided() == [("a", "start")]


@pytest.mark.parametrize("lived", [None, 0.4])
def test_it_takes_deaths_and_a_known_time(scene: Scene, lived: float | None) -> None:
    scene.arrive("a", 2 if lived else 9, lived=lived)
    assert rested(scene) == [("a", "start")]


def test_where_nobody_gets_on_nobody_is_buried(scene: Scene) -> None:
    """It rests for longer first: they may be slow."""
    scene.around = Surroundings([0] * 30, False)
    scene.arrive("a", 6, trials=TRIALS, failing_for=1e6)
    arrived, decided = scene.now, scene.decided()
    while not decided:
        scene.now = scene.suspects.look_again_at() or 0.0
        decided = scene.decided()
    assert decided == [("a", "trial")]
    assert scene.now == arrived + SHARE * 30


def test_others_that_live_long_enough_to_be_cleared_convict(scene: Scene) -> None:
    """They need not get on: each of their entries may take a minute."""
    scene.around = Surroundings([0] * 30, False)
    scene.arrive("slow", 2, lived=6.0)
    assert scene.started() == ["slow"]
    scene.arrive("a", 6, trials=TRIALS)
    scene.now += 8
    assert scene.decided() == [("a", "bury")]


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


def test_one_that_has_nothing_to_compare_with_is_passed_on_but_not_twice(scene: Scene) -> None:
    """A fleet in which each member owns one stream would pass it round for ever."""
    scene.around = Surroundings([3, 2], False, members=2)
    scene.arrive("a", 3)
    assert rested(scene) == [("a", "pass")]
    scene.arrive("a", 3)
    assert scene.decided() == [("a", "trial")], "all its peers have passed it on, and it has rested"
    scene.arrive("a", 4)
    assert rested(scene) == [("a", "pass")], "for the others it is a new story, too"


def test_those_that_come_together_are_spread(scene: Scene) -> None:
    scene.around = Surroundings([0] * 30, True, members=4)
    for i in range(8):
        scene.chance = i / 8
        scene.arrive(f"stream-{i}", 2)
    draws = iter((0.3, 0.2, 0.4, 0.1, 0.9, 0.2, 0.9))
    verdicts: list[tuple[str, str]] = []
    while scene.suspects.waiting:
        scene.chance = next(draws, 0.9)
        decision = scene.suspects.next(scene.now, lambda: scene.around)
        assert decision is not None
        verdicts.append(decision)
        scene.suspects.got_on(decision[0])
    assert [verdict for _, verdict in verdicts] == ["pass", "start"] * 2 + ["pass", "start", "pass", "start"]


def test_too_many_are_not_spread(scene: Scene) -> None:
    scene.around = Surroundings([0] * 30, True, members=4)
    scene.chance = 0.9
    for i in range(SPREAD + 1):
        scene.arrive(f"stream-{i}", 2)
    assert scene.suspects.next(scene.now, lambda: scene.around) == ("stream-0", "start")


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
            scene.arrive(name, deaths, trials=deaths // 2)
            waiting[name] = deaths
        elif what == "leaves":
            scene.suspects.remove(name, scene.now)
            waiting.pop(name, None)
        elif what == "gets on":
            scene.suspects.progressed(name, scene.now)
        scene.now += seconds
        for decided, verdict in scene.decided():
            assert waiting.pop(decided) >= (6 if verdict == "bury" else 1)
        assert set(scene.suspects.waiting) == set(waiting)
        for cleared in scene.suspects.clear(scene.now):
            assert cleared not in waiting
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
    innocent: int = 99,
    poisoned: int = 1,
    idle: int = 0,
    members: int = 4,
    kills: float = 0.0,
    work: float = 0.01,
    **options: object,
) -> Fleet:
    streams = [Stream(f"stream-{i}", work) for i in range(innocent - idle)]
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("work", [2.0, 5.0, 20.0])
@pytest.mark.parametrize(("members", "poisoned"), [(2, 1), (4, 1), (8, 1), (4, 2)])
def test_beside_a_poisoned_stream_slow_handlers_work_on(
    seed: int, work: float, members: int, poisoned: int
) -> None:
    """They finish no entry between two deaths, and are charged with some."""
    scene = fleet(innocent=100 - poisoned, poisoned=0, members=members, work=work, seed=seed)
    scene.run(work + 1)
    scene.announce(*(Stream(f"poison-{i}", kills=0.0) for i in range(poisoned)))
    scene.run_until_buried(poisoned)
    assert all(stream.kills is not None for stream in scene.buried)
    assert len(scene.buried) == poisoned
    assert all(stream.killed <= 8 for stream in scene.buried)
    if poisoned == 1 or work < 20:
        assert scene.longest_standstill < 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kills", [0.0, 3.0])
@pytest.mark.parametrize("poisoned", [1, 2])
def test_where_no_handler_ever_got_on_only_the_poisoned_streams_are_buried(
    seed: int, kills: float, poisoned: int
) -> None:
    """The whole fleet has just started: nothing tells them apart at first."""
    scene = fleet(innocent=100 - poisoned, poisoned=poisoned, kills=kills, work=20.0, seed=seed)
    scene.run_until_buried(poisoned)
    assert names(scene.buried) == [f"poison-{i}" for i in range(poisoned)]


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
