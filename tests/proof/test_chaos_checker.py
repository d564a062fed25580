"""The checker of the chaos run: histories written by hand, what it finds in them, and which lines it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proof.chaos.checker import Verdict, check
from tests.proof.chaos.history import Event, Writer, read
from tests.proof.chaos.liveness import LIVELY, UNDISTURBED
from tests.proof.chaos.report import percentile, slice_of
from tests.proof.chaos.schedule import DEPLOYMENTS, MEMBER_FAULTS, SERVER_FAULTS, WRITER_FAULTS, schedule
from tests.proof.chaos.trouble import LONGEST_PAUSE, PASSED_ON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.proof.chaos.trouble import Violation

TTL = 1.0
STREAM = "s1"
LBS_ID = "1-0"
STEP = 0.1
"""Seconds between one entry and the next."""
LOST_AT = 1.02
"""Seconds after the last beat of an owner at which the next one has its streams."""
KILLED_AT = 1.0
"""When the first owner is killed in `handed_over()`, after three entries."""


def fence(count: int) -> str:
    return f"{1:020}-{0:020}-{count:020}"


class History:
    """A history in the making; `time` is when its next line is written."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.time = 0.0

    def say(self, source: str, kind: str, *args: object, at: float | None = None) -> Event:
        event = Event(self.time if at is None else at, source, kind, args)
        self.events.append(event)
        return event

    def begin(self, members: int, entries: int) -> None:
        """The members join, and all entries are there."""
        self.say("run", "began", TTL, 7, "by hand")
        for i in range(members):
            self.say("run", "spawned", f"m{i}")
            self.say(f"m{i}", "joined", f"consumer-{i}", "events")
        self.say("producer", "announced", STREAM, LBS_ID)
        for n in range(1, entries + 1):
            self.say("producer", "added", STREAM, f"1-{n}", n)
        self.say("producer", "ended", STREAM, f"1-{entries}")
        self.time = 0.5

    def lease(self, member: str, count: int, lease: int = 1) -> None:
        self.say(member, "leased", lease, STREAM, LBS_ID, fence(count), 1, "")

    def write(self, member: str, count: int, n: int, outcome: str = "accepted", lease: int = 1) -> Event:
        return self.say("ledger", "wrote", member, lease, STREAM, fence(count), f"1-{n}", outcome)

    def checkpoint(self, member: str, n: int, outcome: str = "accepted", lease: int = 1) -> Event:
        return self.say(member, "checkpoint", lease, f"1-{n}", outcome, self.time - 0.01)

    def process(self, member: str, count: int, numbers: Sequence[int], last: int = 0) -> None:
        """What an owner does with these entries; the `last` one is the end marker, and has no checkpoint."""
        for n in numbers:
            self.say(member, "handed", 1, f"1-{n}")
            self.write(member, count, n)
            self.say(member, "effect", 1, f"1-{n}", "accepted", self.time)
            self.time += STEP
            if n != last:
                self.checkpoint(member, n)

    def kill(self, member: str, number: int = 1) -> None:
        self.say("run", "fault", number, "kill", member)
        self.say("run", "over", number)
        self.say("run", "exited", member, -9, True)

    def finish(self, member: str) -> None:
        self.say(member, "returned", 1)
        self.say(member, "lost", 1, "done")

    def end(self, members: int, entries: int, killed: Sequence[str] = ()) -> None:
        self.time += 5.0
        self.say("run", "left over", [], [], [])
        for i in range(members):
            if f"m{i}" not in killed:
                self.say("run", "exited", f"m{i}", 0, True)
        self.say("producer", "entries", STREAM, [f"1-{n}" for n in range(1, entries + 1)])

    def check(self) -> Verdict:
        return check(sorted(self.events, key=lambda event: event.time))

    def found(self) -> list[Violation]:
        return self.check().violations

    def only(self, kind: str, *, source: str | None = None, nth: int = 0) -> Event:
        events = [e for e in self.events if e.kind == kind and source in (None, e.source)]
        return events[nth]

    def without(self, *events: Event) -> History:
        rest = History()
        rest.events = [event for event in self.events if not any(event is other for other in events)]
        rest.time = self.time
        return rest


def tell(shares: Sequence[int]) -> History:
    """A stream whose owners process so many entries each, and are killed, all but the last one."""
    history = History()
    entries = sum(shares)
    history.begin(len(shares) + 1, entries)
    done = 0
    for i, share in enumerate(shares):
        member = f"m{i}"
        history.lease(member, i + 1)
        history.process(member, i + 1, range(done + 1, done + share + 1), last=entries)
        done += share
        if i + 1 < len(shares):
            history.time += STEP
            history.kill(member, i + 1)
            history.say("m" + str(len(shares)), "offered", STREAM, LBS_ID, at=history.time + LOST_AT - 0.01)
            history.time += LOST_AT
    history.finish(f"m{len(shares) - 1}")
    history.end(len(shares) + 1, entries, killed=[f"m{i}" for i in range(len(shares) - 1)])
    return history


def handed_over() -> History:
    """Three entries by m0, which is killed, and three by m1; m2 is a peer."""
    return tell([3, 3])


def shown(violation: Violation) -> list[tuple[str, str]]:
    """Who wrote the lines that are shown, and of which kind they are."""
    return [(event.source, event.kind) for event in violation.evidence]


def the_only(violations: Sequence[Violation]) -> Violation:
    assert len(violations) == 1, [violation.what for violation in violations]
    return violations[0]


def test_a_good_history_passes() -> None:
    verdict = handed_over().check()
    assert verdict.violations == []
    [recovery] = verdict.recoveries
    assert (recovery.cause, recovery.clean) == ("kill", True)
    assert recovery.seconds == pytest.approx(LOST_AT - 0.01)
    assert recovery.due is not None
    assert recovery.seconds < recovery.due < 1.25 * TTL + 0.1


# Effects.


def test_an_effect_that_is_accepted_twice() -> None:
    history = handed_over()
    first = history.only("wrote", nth=2)
    history.time = first.time + 0.01
    history.write("m0", 1, 3)
    violation = the_only(history.found())
    assert violation.promise == "exactly once"
    assert shown(violation) == [("m0", "leased"), ("ledger", "wrote"), ("ledger", "wrote")]
    assert slice_of(violation) == [
        "broken promise: exactly once: the effect of s1 1-3 was accepted twice",
        *map(str, violation.evidence),
    ]


def test_effects_out_of_order() -> None:
    history = handed_over()
    second, third = history.only("wrote", nth=1), history.only("wrote", nth=2)
    history = history.without(second, third)
    history.events += [third._replace(time=second.time), second._replace(time=third.time)]
    violation = the_only(history.found())
    assert violation.promise == "in order"
    assert [event.args[-2:] for event in violation.evidence[1:]] == [("1-3", "accepted"), ("1-2", "accepted")]


def test_an_effect_that_is_lost() -> None:
    history = handed_over()
    lost = history.only("wrote", nth=3)
    violation = the_only(history.without(lost).found())
    assert violation.promise == "none lost"
    assert shown(violation) == [
        ("producer", "added"),
        ("m0", "leased"),
        ("ledger", "wrote"),
        ("m1", "leased"),
        ("ledger", "wrote"),
    ]
    assert [event.args[4] for event in violation.evidence if event.kind == "wrote"] == ["1-3", "1-5"]


def test_an_effect_of_no_entry() -> None:
    history = handed_over()
    history.time = 3.0
    history.write("m1", 2, 4_000)
    violation = the_only(history.found())
    assert (violation.promise, violation.what) == ("none lost", "s1 1-4000 had an effect, but is no entry")


def test_an_entry_that_a_fail_over_forgot() -> None:
    """Its effect stays in the ledger; but only what was added in that time may be missing."""
    history = tell([6])
    history.say("producer", "added", STREAM, "1-7", 7, at=0.6)
    history.write("m0", 1, 7)
    assert [violation.promise for violation in history.found()] == ["none lost"]
    history.say("run", "forgot", 0.55, at=0.7)
    assert history.found() == []
    history.events[-1] = history.events[-1]._replace(args=(0.65,))
    assert [violation.promise for violation in history.found()] == ["none lost"]


# Owners.


def test_a_fence_that_goes_back() -> None:
    history = handed_over()
    refused = history.only("wrote", nth=4)
    history.time = refused.time + 0.001
    history.write("m0", 1, 3, "repeated")
    found = history.found()
    assert {violation.promise for violation in found} == {"fences", "one owner"}
    violation = next(violation for violation in found if violation.promise == "fences")
    assert shown(violation) == [("m0", "leased"), ("m1", "leased"), ("ledger", "wrote"), ("ledger", "wrote")]


def test_an_older_owner_that_is_refused() -> None:
    history = handed_over()
    history.time = history.only("wrote", nth=4).time
    history.write("m0", 1, 3, "refused")
    assert history.found() == []


def test_two_owners_under_one_fence() -> None:
    history = handed_over()
    for event in [event for event in history.events if fence(2) in event.args]:
        args = tuple(fence(1) if arg == fence(2) else arg for arg in event.args)
        history.events[history.events.index(event)] = event._replace(args=args)
    found = history.found()
    assert {violation.promise for violation in found} == {"fences"}
    assert {violation.what for violation in found} == {
        "the owner of s1 changed, its fence did not",
        f"two leases of s1 began under the fence {fence(1)}",
    }


def test_two_owners_that_take_turns() -> None:
    history = History()
    history.begin(2, 4)
    history.lease("m0", 1)
    history.process("m0", 1, [1], last=4)
    history.lease("m1", 2)
    history.process("m1", 2, [2], last=4)
    back = [history.write("m0", 3, 3), history.write("m1", 4, 4)]
    history.end(2, 4)
    found = history.found()
    assert {violation.promise for violation in found} == {"one owner"}
    assert shown(found[0]) == [("m0", "leased"), ("ledger", "wrote"), ("m1", "leased"), *[("ledger", "wrote")] * 2]
    assert found[0].evidence[-1] is back[0]


def test_a_late_checkpoint_that_is_accepted() -> None:
    history = handed_over()
    handed = history.only("handed", source="m1")
    history.time = handed.time + 0.05
    late = history.checkpoint("m0", 4)
    violation = the_only(history.found())
    assert violation.what == "a checkpoint of s1 was accepted from an older owner after a newer one had begun"
    assert violation.evidence == (history.only("leased"), history.only("leased", nth=1), handed, late)
    history.events[-1] = late._replace(args=(1, "1-4", "refused", late.args[3]))
    assert history.found() == []


def test_an_entry_that_is_handed_over_again() -> None:
    history = handed_over()
    first = history.only("handed", source="m1")
    history.events.insert(history.events.index(first), first._replace(args=(1, "1-3")))
    violation = the_only(history.found())
    assert violation.what == "s1 1-3 was handed over again, though a checkpoint covers it"
    covering = history.only("checkpoint", source="m0", nth=2)
    assert covering in violation.evidence
    forgetful = history.say("run", "forgot", covering.time - 0.02, at=covering.time + 0.1)
    assert history.found() == []
    history.events.remove(forgetful)
    history.say("run", "forgot", covering.time + 0.02, at=covering.time + 0.1)
    assert len(history.found()) == 1


def test_a_fence_that_is_handed_out_anew() -> None:
    """No failover excuses it."""
    history = handed_over()
    history.time = history.only("leased", nth=1).time + 0.05
    history.say("m2", "leased", 1, STREAM, LBS_ID, fence(2), 1, "")
    history.say("m2", "handed", 1, "1-5", at=history.time + 0.2)
    violation = the_only(history.found())
    assert violation.what == f"two leases of s1 began under the fence {fence(2)}"
    history.say("run", "forgot", history.time - 0.08, at=history.time - 0.01)
    assert the_only(history.found()).promise == "fences"


def test_who_suffers_nothing_keeps_what_it_owns() -> None:
    history = tell([6])
    done = history.only("lost")
    lost = done._replace(args=(1, "claimed"))
    history.events[history.events.index(done)] = lost
    violation = the_only(history.found())
    assert (violation.promise, violation.evidence) == ("kept", (history.only("leased"), lost))
    fault = history.say("run", "fault", 1, "cut", "m1", at=lost.time - 1.0)
    history.say("run", "over", 1, at=lost.time - 1.0)
    assert len(history.found()) == 1
    history.events[history.events.index(fault)] = fault._replace(args=(1, "cut", "m0"))
    assert history.found() == []


# The end.


def test_a_stream_that_is_not_finished() -> None:
    history = handed_over()
    violation = the_only(history.without(history.only("wrote", nth=5)).found())
    assert violation.promise == "finished"
    kinds = ["announced", "ended", "wrote", "leased", "lost"]
    assert sorted(kind for _, kind in shown(violation)) == sorted(kinds)


def test_an_announcement_that_is_left() -> None:
    history = handed_over()
    left = history.only("left over")
    history.events[history.events.index(left)] = left._replace(args=([LBS_ID], [f"{LBS_ID} consumer-1"], []))
    violation = the_only(history.found())
    assert violation.what == "1 announcements are left, 1 are pending"
    assert ("m1", "leased") in shown(violation)


def test_dead_letters() -> None:
    history = handed_over()
    left = history.only("left over")
    history.say("run", "malformed", "malformed-9", at=0.3)
    assert the_only(history.found()).what == "malformed-9 is not in the dead letters"
    index = history.events.index(left)
    history.events[index] = left._replace(args=([], [], ["not JSON malformed-9"]))
    assert history.found() == []
    history.events[index] = left._replace(args=([], [], ["not JSON malformed-9", f"failed 16 times {STREAM}"]))
    assert the_only(history.found()).promise == "dead letters"


def test_only_the_poisoned_are_in_the_dead_letters() -> None:
    history = handed_over()
    left = history.only("left over")
    index = history.events.index(left)
    history.say("run", "poison", "poison-9", at=0.3)
    history.say("producer", "announced", "poison-9", "9-0", at=0.3)
    letter = 'failed 8 times 9-0 {"DataStreamName": "poison-%s"}'
    history.events[index] = left._replace(args=([], [], [letter % 9]))
    assert history.found() == []
    history.events[index] = left._replace(args=([], [], [letter % 99]))
    assert [violation.what[:8] for violation in history.found()] == ["poison-9", "failed 8"]
    history.say("run", "forgot", 0.25, at=0.35)
    assert the_only(history.found()).what.startswith("failed 8")


def test_a_run_that_breaks_off() -> None:
    history = handed_over()
    assert the_only(history.without(history.only("left over")).found()).what == "the run has no end"


@pytest.mark.parametrize(
    ("code", "told", "wrong"),
    [(0, True, False), (1, False, True), (1, True, True), (-9, False, True), (-15, True, True), (-9, True, True)],
)
def test_how_members_end(code: int, told: bool, wrong: bool) -> None:
    history = handed_over()
    left = history.only("exited", nth=1)
    history.events[history.events.index(left)] = left._replace(args=(left.args[0], code, told))
    assert [violation.promise for violation in history.found()] == ["members"] * wrong


def test_a_member_that_takes_long_to_leave() -> None:
    history = handed_over()
    history.say("run", "fault", 9, "terminate", "m1", at=(left := history.only("exited", nth=1)).time - 7.9)
    history.say("run", "over", 9, at=left.time - 7.9)
    assert [violation for violation in history.found() if violation.promise == "members"] == []
    history.events[history.events.index(left)] = left._replace(time=left.time + 0.2)
    assert "m1 took 8.1 s to leave" in [violation.what for violation in history.found()]


# Recovery.


def late(by: float) -> History:
    """As `handed_over`, but it comes so much later."""
    history = handed_over()
    killed = history.only("fault").time
    history.events = [
        event._replace(time=event.time + by) if event.time > killed else event for event in history.events
    ]
    return history


def test_a_late_recovery() -> None:
    history = late(0.4)
    violation = the_only(history.found())
    assert violation.promise == "recovery"
    assert violation.what == "s1 was offered to no peer in time after kill: 1.41 s, due 1.29 s"
    assert shown(violation) == [("m1", "joined"), ("m0", "leased"), ("run", "fault"), ("m2", "offered")]
    [recovery] = history.check().recoveries
    assert recovery.seconds == pytest.approx(LOST_AT - 0.01 + 0.4)


def test_a_stream_that_is_never_offered() -> None:
    history = handed_over()
    gone = [e for e in history.events if e.kind == "offered" or e.source == "m1" or "m1" in e.args[:1]]
    left = history.without(*gone, history.only("entries"))
    left.say("m1", "joined", "consumer-1", "events", at=0.0)
    violation = the_only(left.found())
    assert violation.what == "s1 was offered to no peer in time after kill: never, due 1.29 s"


def test_a_member_in_run_shows_only_what_it_takes() -> None:
    """It may leave a peer its share for a while."""

    def only_run(history: History) -> list[Violation]:
        history.events = [
            event._replace(args=(event.args[0], "run")) if event.kind == "joined" else event
            for event in history.events
            if event.kind != "offered"
        ]
        return history.found()

    assert only_run(late(0.4)) == []
    assert [violation.promise for violation in only_run(late(0.9))] == ["recovery"]


def with_long_locks(history: History, *declared: str) -> History:
    """The same with locks that outlive the run; these members have declared their presence."""
    began = history.only("began")
    history.events[history.events.index(began)] = began._replace(args=(10.0, *began.args[1:]))
    for member in declared:
        history.say(member, "presence", "declared", at=-1.0)
    return history


def test_a_crash_is_noticed_by_presence_however_long_locks_live() -> None:
    assert with_long_locks(late(0.9)).found() == []
    assert with_long_locks(late(0.4), "m0", "m1", "m2").found() == []
    violation = the_only(with_long_locks(late(0.9), "m0", "m1", "m2").found())
    assert violation.promise == "recovery"
    assert violation.what == "s1 was offered to no peer in time after kill: 1.91 s, due 1.54 s"


@pytest.mark.parametrize(
    "declared",
    [("m1", "m2"), ("m0",)],  # by it, and by one that can see it
)
def test_presence_shows_only_what_was_declared(declared: Sequence[str]) -> None:
    assert with_long_locks(late(0.9), *declared).found() == []


def test_presence_that_was_withdrawn_shows_nothing() -> None:
    history = with_long_locks(late(0.9), "m0", "m1", "m2")
    history.say("m0", "presence", "withdrawn", at=0.8)
    assert history.found() == []


@pytest.mark.parametrize(("kind", "member"), [("storm", ""), ("freeze", "m0")])
def test_presence_shows_nothing_while_listeners_or_their_network_suffer(kind: str, member: str) -> None:
    history = with_long_locks(late(0.9), "m0", "m1", "m2")
    outage(history, -0.1, 0.5, kind, member)
    assert history.found() == []


def outage(history: History, begin: float, end: float, kind: str = "outage", member: str = "") -> None:
    killed = history.only("fault").time
    number = 100 + len(history.events)
    history.say("run", "fault", number, kind, member, at=killed + begin)
    history.say("run", "over", number, at=killed + end)


@pytest.mark.parametrize(
    ("by", "begin", "end", "is_late"),
    [
        (0.4, 0.2, 0.3, False),  # the clock starts anew at 0.3
        (0.7, 0.2, 0.3, True),
        (0.7, 0.2, 0.6, False),
        (0.4, -0.5, -0.1, True),  # it was over
        (0.4, 1.4, 2.0, True),  # it came later
        (1.7, 0.2, 1.5, False),
        (2.0, 0.2, 1.5, True),
    ],
)
def test_a_recovery_that_an_outage_delays(by: float, begin: float, end: float, is_late: bool) -> None:
    history = late(by)
    outage(history, begin, end)
    assert [violation.promise for violation in history.found()] == ["recovery"] * is_late
    clean = [recovery.clean for recovery in history.check().recoveries]
    assert clean == [not (begin < LOST_AT + by and end > 0)]


def test_faults_that_strike_all_peers() -> None:
    """One that is well would have done it."""
    history = late(0.4)
    outage(history, 0.1, 0.9, "stop", "m1")
    assert [violation.promise for violation in history.found()] == ["recovery"]
    outage(history, 0.2, 0.8, "partition", "m2")
    assert history.found() == []


def test_faults_that_delay_nothing() -> None:
    history = late(0.4)
    for kind in ("notifications off", "flush scripts", "garbage", "malformed", "full", "kill pubsub"):
        outage(history, 0.1, 0.9, kind)
    assert [violation.promise for violation in history.found()] == ["recovery"]


def test_what_a_member_in_run_took_shows_when_it_can_begin() -> None:
    history = late(0.4)
    offered = history.only("offered")
    [taken] = [e for e in history.events if e.kind == "leased" and e.time > history.only("fault").time]
    history = history.without(offered, history.only("joined", source=taken.source))
    history.say(taken.source, "joined", "consumer-x", "run", at=0.0)
    assert [violation.promise for violation in history.found()] == ["recovery"]
    outage(history, 0.1, 1.3, "full")
    assert history.found() == []


def test_measured_lags_are_allowed_for() -> None:
    history = late(0.4)
    killed = history.only("fault").time
    for member in ("m1", "m2"):
        history.say(member, "lag", 0.1, at=killed + 0.5)
    assert [violation.promise for violation in history.found()] == ["recovery"]
    history.say("run", "lag", 0.1, at=killed + 0.9)
    assert history.found() == []


def test_a_stall_is_a_fault() -> None:
    """The line about it comes when it is over."""
    history = late(1.3)
    killed = history.only("fault").time
    stall = history.say("run", "lag", 0.3, at=killed + 1.05)
    assert history.found() == []
    history.events[-1] = stall._replace(args=(0.24,))
    assert [violation.promise for violation in history.found()] == ["recovery"]
    history = tell([6])
    lost = history.only("lost")
    history.events[history.events.index(lost)] = lost._replace(args=(1, "expired"))
    assert [violation.promise for violation in history.found()] == ["kept"]
    history.say("run", "lag", 1.0, at=lost.time + 0.2)
    assert history.found() == []


def test_a_storm_of_cut_listeners_costs_nothing_but_who_is_late() -> None:
    history = tell([6])
    lost = history.only("lost")
    history.events[history.events.index(lost)] = lost._replace(args=(1, "expired"))
    history.say("m0", "presence", "declared", at=0.0)
    history.say("run", "fault", 1, "storm", "", at=lost.time - 0.6)
    history.say("run", "over", 1, at=lost.time - 0.1)
    assert [violation.promise for violation in history.found()] == ["kept"]
    history.say("m0", "lag", 0.1, at=lost.time - 0.2)
    assert history.found() == []


def test_an_owner_that_comes_back_need_not_be_replaced() -> None:
    """Stopped for less than a recovery takes, it may keep its streams."""
    history = tell([6])
    history.say("run", "fault", 1, "stop", "m0", 1.2, at=0.65)
    history.say("run", "over", 1, at=1.85)
    verdict = history.check()
    assert (verdict.violations, verdict.recoveries) == ([], [])


def test_an_owner_that_is_stopped_for_long() -> None:
    history = tell([6])
    gone = [e for e in history.events if e.time > 0.7 and e.kind not in ("entries", "left over", "exited")]
    history = history.without(*gone, history.only("entries"))
    history.say("run", "fault", 1, "stop", "m0", 3.0, at=0.65)
    history.say("run", "over", 1, at=3.65)
    assert the_only(history.found()).what == "s1 was offered to no peer in time after stop: never, due 1.29 s"


@pytest.mark.parametrize(("kind", "member"), [("partition", "m0"), ("outage", ""), ("freeze the server", "")])
def test_who_hears_nothing_believes_in_nothing_for_long(kind: str, member: str) -> None:
    history = tell([6])
    alive = history.say("m0", "alive", at=0.1)
    fault = history.say("run", "fault", 1, kind, member, 2.0, at=0.4)
    silent = history.say("run", "silent", 1, at=0.45)
    history.say("run", "over", 1, at=2.45)
    lapsed = history.say("m0", "lapsed", at=1.54)
    assert history.found() == []
    history.events[-1] = late = lapsed._replace(time=1.56)
    violation = the_only(history.found())
    assert (violation.promise, violation.evidence) == ("beliefs", (alive, fault, silent, late))
    lag = history.say("m0", "lag", 0.02, at=1.0)
    assert history.found() == []
    history.events.remove(lag)
    history.say("run", "fault", 2, "stop briefly", "m0", at=1.5)
    history.say("run", "over", 2, at=1.6)
    assert history.found() == []


# Liveness.

STILL = LIVELY * TTL + 0.5
"""Seconds in which nothing happens that should."""


def long() -> History:
    """Three entries by m0, and then a long time until the end."""
    history = tell([3])
    ends = ("left over", "exited")
    history.events = [e._replace(time=30.0) if e.kind in ends else e for e in history.events]
    return history


def test_an_entry_that_is_not_handed_over() -> None:
    history = long()
    last = history.only("handed", nth=2)
    history.events = [
        event._replace(time=event.time + STILL) if last.time <= event.time < 30.0 else event
        for event in history.events
    ]
    violation = the_only(history.found())
    assert (violation.promise, violation.what) == (
        "unread entry",
        "s1 1-3 was not handed to m0 for 6.7 s, due 6.1 s",
    )
    assert shown(violation) == [("producer", "added"), ("m0", "leased"), ("m0", "handed"), ("m0", "lost")]
    history.say("run", "fault", 1, "cut", "m0", at=3.0)
    history.say("run", "over", 1, at=3.1)
    assert history.found() == []


def test_an_announcement_that_nobody_reads() -> None:
    history = long()
    for i in range(20):
        history.say("run", "unread", "9-0", at=0.6 + i * STILL / 19)
    history.say("run", "unread", "", at=0.7 + STILL)
    violation = the_only(history.found())
    assert violation.what == "announcement 9-0 was read by nobody for 6.2 s"
    for event in [event for event in history.events if event.kind == "unread"][10:]:
        history.events[history.events.index(event)] = event._replace(args=("9-1",))
    assert history.found() == []


def owned(since: float, consumer: str = "consumer-0") -> History:
    """A stream that is announced, and owned, and of which nothing more is heard, but for what a test adds."""
    history = long()
    history.say("producer", "announced", "s2", "2-0", at=0.6)
    history.say("run", "owners", [["2-0", consumer]], at=since)
    history.say("run", "owners", [["2-0", ""]], at=since + STILL)
    return history


def test_what_is_owned_and_not_handled() -> None:
    history = owned(1.0)
    violation = the_only(history.found())
    assert violation.what == "2-0 was owned by m0 and not handled for 6.5 s, due 6.0 s"
    history.say("m0", "leased", 2, "s2", "2-0", fence(1), 1, "", at=1.2)
    assert history.found() == []
    lost = history.say("m0", "lost", 2, "expired", at=1.4)
    assert {violation.promise for violation in history.found()} == {"kept", "owned and unhandled"}
    history.events[history.events.index(lost)] = lost._replace(args=(2, "done"), time=1.8)
    assert history.found() == []  # the rest is too short


def struck(kind: str, member: str = "") -> History:
    """A stream whose handler fails in an outage that lasts until 4.0."""
    history = long()
    history.say("producer", "announced", "s2", "2-0", at=0.6)
    history.say("run", "fault", 1, kind, member, at=0.9)
    history.say("m0", "leased", 2, "s2", "2-0", fence(1), 1, "", at=1.0)
    history.say("m0", "failed", 2, "Away: ", at=1.1)
    history.say("m0", "lost", 2, "released", at=1.2)
    history.say("run", "over", 1, at=4.0)
    return history


BACK = 4.0 + LONGEST_PAUSE + UNDISTURBED * TTL
"""When all go on after that outage at the latest."""


@pytest.mark.parametrize(("kind", "member"), [("ledger away", ""), ("member's dependency away", "m0")])
def test_a_stream_that_does_not_go_on_after_an_outage(kind: str, member: str) -> None:
    history = struck(kind, member)
    violation = the_only(history.found())
    assert (violation.promise, shown(violation)) == (
        "outage",
        [("run", "fault"), ("m0", "leased"), ("m0", "failed")],
    )
    late = history.say("m1", "leased", 1, "s2", "2-0", fence(2), 2, "", at=BACK + 0.1)
    assert the_only(history.found()).what == "s2 did not go on within 5.0 s after what its handlers need was back"
    history.events[history.events.index(late)] = late._replace(time=BACK - 0.1)
    assert history.found() == []
    history.say("m1", "failed", 1, "Away: ", at=BACK)
    history.say("m1", "lost", 1, "released", at=BACK)
    assert the_only(history.found()).promise == "outage"
    history.say("m1", "checkpoint", 1, "2-1", "accepted", BACK, at=BACK)  # in the next outage, then
    assert history.found() == []


@pytest.mark.parametrize(("id", "goes_on"), [("3-0", True), ("1-9", False)])
def test_a_newer_owner_goes_on_instead(id: str, goes_on: bool) -> None:
    history = struck("ledger away")
    history.say("producer", "announced", "s2", id, at=0.6)
    history.say("m1", "leased", 1, "s2", id, fence(2), 1, "", at=0.95)
    assert [violation.promise for violation in history.found()] == ["outage"] * (not goes_on)


@pytest.mark.parametrize(("deliveries", "goes_on"), [(2, True), (1, False)])
def test_an_owner_goes_on_beside_one_that_stood_still_and_began_late(deliveries: int, goes_on: bool) -> None:
    history = struck("ledger away")
    history.say("m1", "leased", 1, "s2", "2-0", fence(deliveries), 1, "", at=0.95)
    assert [violation.promise for violation in history.found()] == ["outage"] * (not goes_on)


def test_another_fault_delays_what_goes_on_after_an_outage() -> None:
    history = struck("ledger away")
    history.say("m1", "leased", 1, "s2", "2-0", fence(2), 2, "", at=BACK + 2.0)
    assert the_only(history.found()).promise == "outage"
    history.say("run", "fault", 2, "kill pubsub", "", at=BACK - 0.5)
    history.say("run", "over", 2, at=BACK - 0.4)
    assert history.found() == []


def test_a_stream_whose_owner_died_with_it_may_stand_in_line() -> None:
    history = handed_over()
    took = history.only("leased", source="m1")
    wait = PASSED_ON
    later = [e._replace(time=e.time + wait) if e.time >= took.time else e for e in history.events]
    later = [e._replace(args=(e.args[0], "run")) if e.kind == "joined" else e for e in later]
    history.events = [event for event in later if event.kind != "offered"]
    assert {violation.promise for violation in history.found()} == {"recovery"}, "it had got on"
    history.events = [event for event in history.events if (event.source, event.kind) != ("m0", "checkpoint")]
    assert history.found() == []


def test_a_stream_that_a_member_in_run_owns_but_cannot_begin_is_not_late() -> None:
    history = late(1.4)
    assert the_only(history.found()).promise == "recovery"
    killed = history.only("fault").time
    history.say("run", "owners", [[LBS_ID, "consumer-1"]], at=killed + 1.2)
    assert the_only(history.found()).promise == "recovery", "it uses events(), and would have said so"
    joined = history.only("joined", source="m1")
    history.events[history.events.index(joined)] = joined._replace(args=("consumer-1", "run"))
    assert history.found() == []


def test_a_handler_that_ended_and_left_its_lease() -> None:
    history = owned(1.0)
    history.events = [e._replace(time=20.0) if e.args == ([["2-0", ""]],) else e for e in history.events]
    history.say("m0", "leased", 2, "s2", "2-0", fence(1), 1, "", at=1.2)
    failed = history.say("m0", "failed", 2, "Mischief", at=1.3)
    violation = the_only(history.found())
    assert violation.what == "2-0 was kept by m0 for 18.7 s after its handler had ended"
    assert failed in violation.evidence
    released = 1.3 + LIVELY + LONGEST_PAUSE
    history.say("m0", "lost", 2, "released", at=released)
    [rest] = history.found()
    assert rest.promise == "owned and unhandled"
    history.say("run", "owners", [["2-0", ""]], at=0.2 + released)
    assert history.found() == []


@pytest.mark.parametrize("consumer", ["nobody", "consumer-that-nobody-knows"])
def test_what_has_no_owner(consumer: str) -> None:
    history = owned(1.0, consumer)
    violation = the_only(history.found())
    assert violation.what == "2-0 had no owner for 6.5 s, due 6.0 s"
    history.say("run", "fault", 1, "outage", "", at=3.0)
    history.say("run", "over", 1, at=3.1)
    assert history.found() == []


def test_what_a_member_says_is_stuck() -> None:
    history = long()
    history.say("m0", "stuck", [["lease", "s1", 7.6], ["announcement", None, 7.5]], at=9.0)
    violation = the_only(history.found())
    assert (violation.promise, violation.what) == ("stuck", "m0 says that lease s1 has been stuck for 7.6 s")
    history.say("run", "fault", 1, "cut", "m0", at=3.0)
    history.say("run", "over", 1, at=3.1)
    assert history.found() == []


# Properties.


# Sessions.

SESSION = "chat-1"


def woken(after: float) -> History:
    """A session that sleeps when a writer, which then dies, writes to it at 2.0 s; somebody reads that so many
    seconds later."""
    history = History()
    history.say("run", "began", TTL, 7, "by hand")
    history.say("run", "clock", 0.0)
    for i in range(2):
        history.say("run", "spawned", f"m{i}")
        history.say(f"m{i}", "joined", f"consumer-{i}", "events")
    for n, at in enumerate((1.0, 2.0), 1):
        history.say("w0.1", "writing", SESSION, n, "", at=at)
        if n == 1:
            history.say("w0.1", "written", SESSION, n, "1000-0", at=at)
        history.time = 1.1 if n == 1 else 2.0 + after
        fence = f"{n:020}-{0:020}-{1:020}"
        history.say("m0", "leased", n, SESSION, f"{n}-0", fence, 1, "")
        history.say("m0", "handed", n, f"{n}000-0")
        history.say("ledger", "wrote", "m0", n, SESSION, fence, f"{n}000-0", "accepted")
        history.say("m0", "checkpoint", n, f"{n}000-0", "accepted", history.time)
        history.time += 0.3
        history.say("m0", "returned", n)
        history.say("m0", "lost", n, "done")
    history.say("run", "left over", [], [], [], at=30.0)
    history.say("run", "remembered", [], [], at=30.0)
    for i in range(2):
        history.say("run", "exited", f"m{i}", 0, True, at=31.0)
    history.say("producer", "entries", SESSION, ["1000-0", "2000-0"], at=32.0)
    return history


def test_a_session_that_nobody_wakes() -> None:
    assert woken(0.1).found() == []
    late = woken(LIVELY + LONGEST_PAUSE + 0.5)
    [violation] = late.found()
    assert violation.promise == "unread in sleep"
    assert shown(violation) == [("m0", "joined"), ("m0", "lost")]


@pytest.mark.parametrize(("kind", "who", "is_late"), [("restart", "", False), ("stop a writer", "w0.1", True)])
def test_a_session_that_nobody_can_wake(kind: str, who: str, is_late: bool) -> None:
    late = woken(LIVELY + LONGEST_PAUSE + 0.5)
    late.say("run", "fault", 1, kind, who, at=5.0)
    late.say("run", "over", 1, at=6.0)
    assert [violation.promise for violation in late.found()] == ["unread in sleep"] * is_late


def test_an_entry_with_an_id_of_its_own_may_be_written_later_than_it_says() -> None:
    late = woken(LIVELY + LONGEST_PAUSE + 0.5)
    late.events = [
        event._replace(args=(*event.args[:2], f"{event.args[1]}000-0")) if event.kind == "writing" else event
        for event in late.events
    ]
    assert late.found() == []
    late.say("w0.1", "written", SESSION, 2, "2000-0", at=2.1)
    assert [violation.promise for violation in late.found()] == ["unread in sleep"]


@pytest.mark.parametrize("since", [0.5, 2.5])
def test_an_entry_that_a_fail_over_forgot_after_its_writer_had_died(since: float) -> None:
    history = woken(0.1)
    entries = history.only("entries")
    history = history.without(entries)
    history.say("producer", "entries", SESSION, ["1000-0"], at=32.0)
    assert [violation.promise for violation in history.found()] == ["none lost"]
    history.say("run", "forgot", since, at=since + 2.0)
    assert [violation.promise for violation in history.found()] == ["none lost"] * (since > 2.0)


@pytest.mark.parametrize("asleep", [False, True])
def test_an_owner_that_dies_when_its_session_sleeps_loses_nothing(asleep: bool) -> None:
    history = woken(0.1)
    returned, lost = history.only("returned"), history.only("lost")
    history = history.without(returned, lost)
    history.time = lost.time
    history.kill("m0")
    history.events = [
        event._replace(source="m1") if event.source == "m0" and event.time > lost.time else event
        for event in history.events
    ]
    history.events = [
        event._replace(args=("m1", *event.args[1:])) if event.kind == "wrote" and event.time > lost.time else event
        for event in history.events
        if (event.kind, event.args[:2]) != ("exited", ("m0", 0))
    ]
    if asleep:
        history.say("run", "owners", [["1-0", "consumer-0"]], at=1.2)
        history.say("run", "owners", [["1-0", ""]], at=lost.time + 0.2)
    else:
        history.events = [e._replace(time=e.time + 5.0) if 2.0 < e.time < 9.0 else e for e in history.events]
    assert [violation.promise for violation in history.found()] == ["recovery"] * (not asleep)


def test_what_is_left_of_sessions() -> None:
    history = woken(0.1)
    left = history.without(history.only("remembered"))
    left.say("run", "remembered", [SESSION], [SESSION], at=30.0)
    announced, kept = left.found()
    assert "1 streams are still said to be announced" in announced.what
    assert f"the record of {SESSION} does not expire" in kept.what
    left.say("run", "forgot", 2.2, at=2.6)
    assert left.found() == [announced]


def test_a_writer_that_dies_unasked() -> None:
    history = woken(0.1)
    history.say("run", "spawned", "w0.1", at=0.0)
    history.say("run", "exited", "w0.1", -9, True, at=2.1)
    assert [violation.promise for violation in history.found()] == ["members"]
    history.say("run", "fault", 1, "kill a writer", "w0.1", at=2.0)
    history.say("run", "over", 1, at=2.0)
    assert history.found() == []


shares = st.lists(st.integers(1, 8), min_size=1, max_size=5)


@given(shares)
def test_every_orderly_history_passes(shares: list[int]) -> None:
    verdict = tell(shares).check()
    assert verdict.violations == []
    assert len(verdict.recoveries) == len(shares) - 1


def an_effect(history: History, data: st.DataObject) -> Event:
    effects = [event for event in history.events if event.kind == "wrote"]
    drawn: Event = data.draw(st.sampled_from(effects))
    return drawn


@given(shares, st.data())
def test_a_lost_effect_is_always_found(shares: list[int], data: st.DataObject) -> None:
    history = tell(shares)
    spoilt = history.without(an_effect(history, data))
    assert {"none lost", "finished"} & {violation.promise for violation in spoilt.found()}


@given(shares, st.data())
def test_a_repeated_effect_is_always_found(shares: list[int], data: st.DataObject) -> None:
    history = tell(shares)
    written = an_effect(history, data)
    history.events.append(written._replace(time=data.draw(st.floats(written.time, history.time))))
    assert "exactly once" in {violation.promise for violation in history.found()}


@given(shares.filter(lambda shares: len(shares) > 1), st.data())
def test_a_checkpoint_of_an_older_owner_is_always_found(shares: list[int], data: st.DataObject) -> None:
    history = tell(shares)
    owner = data.draw(st.integers(0, len(shares) - 2))
    n = data.draw(st.integers(sum(shares[: owner + 1]) + 1, sum(shares)))
    history.time = history.only("handed", source=f"m{len(shares) - 1}", nth=shares[-1] - 1).time + 0.01
    history.checkpoint(f"m{owner}", n)
    assert "checkpoints" in {violation.promise for violation in history.found()}


# The tools around it.


def test_histories_are_read_in_order_of_time(tmp_path: Path) -> None:
    first, second = Writer(tmp_path, "m0.1"), Writer(tmp_path, "run")
    second.write("began", 1.0, 7, "x", time=1.0)
    first.write("joined", "c", "run", time=2.0)
    second.write("ended", time=3.0)
    with (tmp_path / "m0.1.jsonl").open("ab") as file:
        file.write(b'[4.0,"hand')  # killed while it wrote
    first.close()
    second.close()
    assert [(event.time, event.source, event.kind) for event in read(tmp_path)] == [
        (1.0, "run", "began"),
        (2.0, "m0.1", "joined"),
        (3.0, "run", "ended"),
    ]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_seed_determines_the_faults(deployment: str) -> None:
    plan = schedule(7, 60.0, 1.1, 5, 3, 1.0, deployment)
    assert plan == schedule(7, 60.0, 1.1, 5, 3, 1.0, deployment)
    assert plan != schedule(8, 60.0, 1.1, 5, 3, 1.0, deployment)
    kinds = {fault.kind for fault in schedule(7, 180.0, 1.1, 5, 3, 1.0, deployment)}
    assert (
        kinds
        == MEMBER_FAULTS.keys() | WRITER_FAULTS.keys() | SERVER_FAULTS.keys() | DEPLOYMENTS[deployment].keys()
    )
    assert all(0.0 < fault.at < 60.0 for fault in plan)
    away = [
        fault.seconds for fault in schedule(7, 1_800.0, 1.1, 5, 3, 1.0, deployment) if fault.kind == "ledger away"
    ]
    assert max(away) == 60.0
    assert min(away) < 8.0
    assert max(fault.seconds for fault in plan) < 10.0


def test_percentiles() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], percent) for percent in (50, 90, 99, 100)] == [2.0, 4.0, 4.0, 4.0]
    assert percentile([5.0], 50) == 5.0
