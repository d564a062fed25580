"""The protocol, exhaustively: no interleaving of a small fleet breaks a guarantee, and each known bug does."""

from __future__ import annotations

import functools
import random
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.harness.binaries import chosen
from tests.proof.model import sleep_conformance, sleep_protocol
from tests.proof.model.clients import Model
from tests.proof.model.configurations import MUTANTS, QUICK
from tests.proof.model.conformance import Mirror, walk
from tests.proof.model.explore import explore
from tests.proof.model.mutations import Mutation
from tests.proof.model.sleep_configurations import HARMLESS, SLIPS
from tests.proof.model.sleep_configurations import QUICK as SLEEP
from tests.proof.model.sleep_slips import Slip
from tests.proof.model.sleeping import Sleeping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.harness.connection import Connection
    from tests.proof.model import sleeping
    from tests.proof.model.explore import Result
    from tests.proof.model.world import Bounds

SECONDS = 300
"""The largest configuration takes 8 s of a core; a machine may have much else to do."""
WALKS = 300
LENGTH = 40  # calls
WORDS = {
    "claim": {"won", "gone", "owner", "alive", "lapsed"},
    "claim_many": {"won", "alive", "lapsed"},
    "adopt": {"won", "changed", "lapsed"},
    "done": {"done", "gone", "owner"},
    "release": {"released", "gone", "owner"},
    "bury": {"buried", "gone", "owner"},
    "lift": {"lifted", "gone", "owner"},
    "begin": {"begun", "fresh", "refused", "suspect"},
    "fail": {"failed", "refused"},
    "checkpoint": {"advanced", "kept", "refused"},
}
WORDS_OF_PRESENCE = {
    "present": {"present", "absent", "lapsed"},
    "withdraw": {"0", "1"},
    "watch": {"watching", "other", "blind", "undeclared", "lapsed"},
    "depose": {"nobody", "somebody"},
}

WORDS_OF_SLEEP = {
    "announce": {"0", "1"},
    "append": {"added", "asleep"},
    "write": {"added"},
    "withhold": {"withheld", "newer", "gone", "owner"},
    "restore": {"restored", "newer", "gone", "owner"},
    "done": {"done", "gone", "owner"},
    "supersede": {"done", "gone", "owner", "over"},
    "begin": {"begun", "refused"},
    "checkpoint": {"advanced", "kept", "refused"},
    "doze": {"asleep", "awake", "refused"},
    "settle": {"0", "1"},
}


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """The explorer runs nothing of the package, and takes half of the time without coverage's tracer."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


def breaks(guarantee: str, bug: str, result: Result) -> None:
    """Assert that the explorer has found that this bug breaks this guarantee."""
    print(f"When {bug}:\n{result}")
    assert result.violation, "the model has lost its teeth"
    assert result.violation[0] == guarantee


@functools.cache
def correct(bounds: Bounds) -> Result:
    """What the explorer finds without a bug."""
    return explore(Model(bounds))


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("name", QUICK)
def test_no_interleaving_breaks_a_guarantee(name: str) -> None:
    result = correct(QUICK[name])
    assert not result.violation, f"\n{result}"
    assert result.states > 100


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("mutation", Mutation, ids=lambda mutation: mutation.name.lower())
def test_a_known_bug_is_found(mutation: Mutation) -> None:
    guarantee, bounds = MUTANTS[mutation]
    breaks(guarantee, mutation.value, explore(Model(bounds, mutation)))
    assert not correct(bounds).violation, "and not by the bug"


@functools.cache
def asleep(bounds: sleeping.Bounds) -> Result:
    """What the explorer finds of sessions that sleep, without a mistake."""
    return explore(Sleeping(bounds))


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("name", SLEEP)
def test_no_entry_is_left_to_a_stream_that_sleeps(name: str) -> None:
    result = asleep(SLEEP[name])
    assert not result.violation, f"\n{result}"
    assert result.states > 100


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.name.lower())
def test_a_mistake_in_sleeping_is_found(slip: Slip) -> None:
    guarantee, bounds = SLIPS[slip]
    breaks(guarantee, slip.value, explore(Sleeping(bounds, slip)))
    assert not asleep(bounds).violation, "and not by the mistake"


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("slip", HARMLESS, ids=lambda slip: slip.name.lower())
def test_what_a_script_does_besides_is_not_what_keeps_entries(slip: Slip) -> None:
    assert not explore(Sleeping(HARMLESS[slip], slip)).violation


def test_each_mistake_in_sleeping_has_its_bounds() -> None:
    assert {*SLIPS, *HARMLESS} == set(Slip)


def seeds(least: int, missing: Callable[[], object]) -> Iterator[float]:
    """Seeds of random walks: so many, and more until each answer was given once, however rare it is."""
    for walks in range(20 * least):
        if walks >= least and not missing():
            return
        yield random.random()


def unsaid(said: Mapping[str, set[str]], words: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The answers of each script that no walk has heard yet."""
    return {name: words[name] - said[name] for name in words if words[name] - said[name]}


async def test_the_model_does_what_the_scripts_do(redis: Connection, service: str) -> None:
    mirror = Mirror(redis, service)
    said: defaultdict[str, set[str]] = defaultdict(set)
    for seed in seeds(WALKS, lambda: unsaid(said, WORDS)):
        calls = walk(random.Random(seed), LENGTH, keeps_trimmed=chosen() == "redis-6.2")
        real = await mirror.repeat(calls)
        for i, (call, (reply, state)) in enumerate(zip(calls, real, strict=True), 1):
            way = "\n".join(f"{c.name}{c.args}: {c.reply}" for c in calls[:i])
            assert reply == call.reply, f"walk {seed}:\n{way}"
            assert state == call.after, f"walk {seed}:\n{way}"
            words = (
                call.reply[:1] if call.name != "adopt" or call.reply == ("lapsed",) else [r[0] for r in call.reply]
            )
            said[call.name].update(map(str, words))
    assert not unsaid(said, WORDS), "some answer was never given"


async def test_the_model_does_what_the_scripts_of_presence_do(redis: Connection, service: str) -> None:
    mirror = Mirror(redis, service)
    said: defaultdict[str, set[str]] = defaultdict(set)
    for seed in seeds(WALKS // 10, lambda: unsaid(said, WORDS_OF_PRESENCE)):
        calls = walk(random.Random(seed), 2 * LENGTH, keeps_trimmed=False, presence=True)
        real = await mirror.repeat_presence(calls)
        for i, (call, (reply, state)) in enumerate(zip(calls, real, strict=True), 1):
            way = "\n".join(f"{c.name}{c.args}: {c.reply}" for c in calls[:i])
            assert reply == call.reply, f"walk {seed}:\n{way}"
            assert state == call.after, f"walk {seed}:\n{way}"
            word = ("somebody" if reply else "nobody") if call.name == "depose" else str((*reply, "")[0])
            said[call.name].add(word)
    assert not unsaid(said, WORDS_OF_PRESENCE), "some answer was never given"


async def test_the_model_does_what_the_scripts_of_sleep_do(redis: Connection, service: str) -> None:
    mirror = sleep_conformance.Mirror(redis, service)
    said: defaultdict[str, set[str]] = defaultdict(set)
    for seed in seeds(WALKS // 10, lambda: unsaid(said, WORDS_OF_SLEEP)):
        dice = random.Random(seed)
        await mirror.start()
        model, way = sleep_protocol.Redis(), ""
        for _ in range(2 * LENGTH):
            name, args = sleep_conformance.choose(dice, model)
            model, reply = sleep_conformance.call(model, name, args)
            way += f"\n{name}{args}: {reply}"
            assert await mirror.call(name, args) == reply, f"walk {seed}:{way}"
            assert await mirror.state() == model, f"walk {seed}:{way}"
            said[name].add(str(reply[1] if name == "announce" else (*reply, "")[0]))
    assert not unsaid(said, WORDS_OF_SLEEP), "some answer was never given"
