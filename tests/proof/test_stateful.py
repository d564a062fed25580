"""Ring 3: anything happens to a fleet, in any order, and nothing is lost, owned twice, or finished twice.

Hypothesis draws the steps. A failure's are printed without what it does not need, as the corpus holds them.
`RSC_HYPOTHESIS=deep` plays many more and longer ones.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from redis_stream_client._consumer import on_their_way
from redis_stream_client._redis.script_calls import ScriptCalls
from tests.proof.stateful.balancing import PINNED, SHARED, BalancingFleet
from tests.proof.stateful.balancing import SCRIPTS as MOVES
from tests.proof.stateful.corpus import BALANCING, CORPUS, HAPPENS, SLEEPING
from tests.proof.stateful.machine import Fleet, shorten
from tests.proof.stateful.retries import GOOD, KNOWN, POISON, SCRIPTS, RunningFleet
from tests.proof.stateful.script import Step, as_script
from tests.proof.stateful.sleeping import OF_OWNERS, OF_WRITERS, SleepingFleet

if TYPE_CHECKING:
    from tests.harness.servers import Server

DEEP = os.environ.get("RSC_HYPOTHESIS") == "deep"

SETTINGS = settings(
    max_examples=1_000 if DEEP else 30,
    deadline=None,
    print_blob=True,
    phases=(Phase.reuse, Phase.generate),  # what does not fail every time is shortened here, with patience
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)

REQUEST = st.sampled_from(
    ["claim", "done", "release", "adopt", "share", "join", "XREADGROUP", "PEXPIRE", "XPENDING"]
)


def step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """A step, with one of the consumers and streams that there will be then."""
    return st.tuples(st.just(name), st.fixed_dictionaries({"pick": st.integers(0, 11), **arguments}))


WORK = st.one_of(
    step("join"),
    step("announce", streams=st.integers(1, 2)),
    *map(step, ("read", "claim", "all_claim", "done", "release", "checkpoint")),
)
TROUBLE = st.one_of(
    *map(step, ("wake", "reconnect", "cut", "take_lock_away", "hiccup", "done_arrives_late")),
    *(step(name, past_its_lock=st.booleans()) for name in ("stall", "isolate")),
    step("end", in_good_order=st.booleans()),
    step("deafen", silenced=st.booleans()),
    step("lose", what=st.sampled_from(["reply", "request"]), to=REQUEST),
)
SCENES: st.SearchStrategy[list[list[Step]]] = st.lists(
    st.lists(WORK | TROUBLE, max_size=12), max_size=16 if DEEP else 8
)


@pytest.mark.parametrize("name", CORPUS)
def test_what_failed_once(server: Server, name: str) -> None:
    Fleet(server).play(CORPUS[name])


@pytest.mark.long
@pytest.mark.timeout(4 * 3600 if DEEP else 900)
def test_anything_happens(server: Server) -> None:
    failed: list[tuple[list[Step], Exception]] = []

    @SETTINGS
    @given(consumers=st.integers(1, 3), streams=st.integers(1, 2), scenes=SCENES)
    def anything_happens(consumers: int, streams: int, scenes: list[list[Step]]) -> None:
        fleet = Fleet(server)
        try:
            fleet.play([("begin", {"consumers": consumers, "streams": streams}), *itertools.chain(*scenes)])
        except Exception as error:
            failed.append((fleet.script, error))
            raise

    try:
        anything_happens()
    except Exception as error:
        script, failure = failed[0]
        error.add_note(
            f"{failure!r}; as short as it could be made:\n{as_script(shorten(server, script, failure))}"
        )
        raise


HANDLERS = st.one_of(
    step("join"),
    step("announce", kind=st.sampled_from([GOOD, GOOD, GOOD, KNOWN, POISON]), streams=st.integers(1, 4)),
    step("write"),
    step("wait", seconds=st.sampled_from([0.02, 0.1, 0.5])),
    step("stumble", how=st.sampled_from(["fail", "later"])),
    step("outage", seconds=st.sampled_from([0.1, 0.3, 0.7])),
)
OWNERS = st.one_of(
    step("end", in_good_order=st.booleans()),
    step("stall", past_its_lock=st.booleans()),
    step("cut"),
    step("lose", what=st.sampled_from(["reply", "request"]), to=st.sampled_from(SCRIPTS)),
)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600 if DEEP else 900)
def test_handlers_fail_and_owners_die(server: Server) -> None:
    """What no handler can process is buried, and nothing else, whatever else befalls it."""

    @settings(SETTINGS, max_examples=300 if DEEP else 12)
    @given(steps=st.lists(HANDLERS | OWNERS, min_size=4, max_size=40 if DEEP else 20))
    def handlers_fail_and_owners_die(steps: list[Step]) -> None:
        RunningFleet(server).play([("announce", {"kind": GOOD, "streams": 3}), *steps])

    handlers_fail_and_owners_die()


BALANCE = st.one_of(
    step(
        "join",
        weight=st.sampled_from([1.0, 1.0, 2.0]),
        rebalance=st.sampled_from([True, True, False]),
        limit=st.sampled_from([None, None, 2]),
    ),
    step("announce", kind=st.sampled_from([SHARED, SHARED, PINNED]), streams=st.integers(1, 4)),
    step("write"),
    step("wait", seconds=st.sampled_from([0.02, 0.1, 0.5])),
    step("hold", holding=st.booleans()),
    step("forge", streams=st.integers(1, 9), times=st.integers(1, 3)),
)
IMBALANCE = st.one_of(
    step("giver_dies", when=st.sampled_from(["at work", "releasing", "released"])),
    step("taker_ends", how=st.sampled_from(["drains", "dies", "dies taking", "is cut off"])),
    step("deafen"),
    step("end", in_good_order=st.booleans()),
    step("stall", past_its_lock=st.booleans()),
    step("cut"),
    step("lose", what=st.sampled_from(["reply", "request"]), to=st.sampled_from([*MOVES, "wants "])),
)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that come to no checkpoint are left alone sooner, and for less time."""
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.4)
    monkeypatch.setattr(on_their_way, "ALONE", 1.0)


@pytest.mark.parametrize("name", BALANCING)
@pytest.mark.usefixtures("_impatient")
def test_streams_move_as_they_should(server: Server, name: str) -> None:
    fleet = BalancingFleet(server)
    fleet.play(BALANCING[name])
    moved, happened = HAPPENS[name]
    assert bool(fleet.moved) == moved
    assert fleet.happened == happened


@pytest.mark.long
@pytest.mark.timeout(4 * 3600 if DEEP else 900)
@pytest.mark.usefixtures("_impatient")
def test_streams_move_while_anything_happens(server: Server) -> None:
    """What moves goes on where it was, and no more often than it must; in the end the fleet is even."""

    @settings(SETTINGS, max_examples=300 if DEEP else 4)
    @given(
        members=st.integers(1, 3),
        streams=st.integers(6, 14),
        steps=st.lists(BALANCE | IMBALANCE, min_size=3, max_size=30 if DEEP else 10),
    )
    def streams_move_while_anything_happens(members: int, streams: int, steps: list[Step]) -> None:
        begin = {"members": members, "streams": streams, "pinned": 2}
        BalancingFleet(server).play([("begin", begin), *steps])

    streams_move_while_anything_happens()


BY = st.integers(0, 1)
WRITERS = st.one_of(
    step("write", by=BY, wait=st.booleans()),
    step("write", by=BY, wait=st.booleans()),
    step("write_to_all", by=BY),
    *map(step, ("by_hand", "like_go", "finish", "look_now", "let_go")),
    step("for_no_reason", again=st.booleans()),
    step("wait", seconds=st.sampled_from([0.01, 0.04, 0.05, 0.06, 0.1])),
    step("forget"),
)
SLEEPERS = st.one_of(
    step("join"),
    step(
        "lose_a_writer_s",
        by=BY,
        what=st.sampled_from(["reply", "request", "late"]),
        to=st.sampled_from(OF_WRITERS),
    ),
    step("lose", what=st.sampled_from(["reply", "request"]), to=st.sampled_from(OF_OWNERS)),
    step("hold", to=st.sampled_from(OF_OWNERS)),
    step("end", in_good_order=st.booleans()),
    step("stall", past_its_lock=st.booleans()),
    step("cut"),
)


@pytest.fixture(params=["together", "apart"])
def _order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two streams are on one server, or are written to as if they were not."""
    if request.param == "apart":
        monkeypatch.setattr(ScriptCalls, "slot", lambda _, key: key_slot(key.encode()))


@pytest.mark.parametrize("name", SLEEPING)
@pytest.mark.parametrize("_order", ["apart"], indirect=True)
@pytest.mark.usefixtures("_order")
def test_streams_sleep_and_wake(server: Server, name: str) -> None:
    SleepingFleet(server).play(SLEEPING[name])


@pytest.mark.long
@pytest.mark.timeout(4 * 3600 if DEEP else 900)
@pytest.mark.usefixtures("_order")
def test_streams_sleep_and_wake_while_anything_happens(server: Server) -> None:
    """Whatever is written is read, and in the end all sleep and nothing of them is left."""

    @settings(SETTINGS, max_examples=300 if DEEP else 3)
    @given(
        members=st.integers(1, 3),
        forgetful=st.booleans(),
        on_forgotten=st.sampled_from(["from_start", "from_now"]),
        steps=st.lists(WRITERS | SLEEPERS, min_size=10, max_size=60 if DEEP else 30),
    )
    def streams_sleep_and_wake(members: int, forgetful: bool, on_forgotten: str, steps: list[Step]) -> None:
        begin = {"members": members, "forgetful": forgetful, "on_forgotten": on_forgotten}
        SleepingFleet(server).play([("begin", begin), *steps])

    streams_sleep_and_wake()
