"""Ring 1: when failures of handlers are an outage and not poisoned streams, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._run import breaker as module
from redis_stream_client._run.breaker import CHANCES, FEW, LONGEST_PROBE, STREAMS, SURE, WITHIN, Breaker

AWAY = "ConnectionError: database is away"


class Process:
    """A breaker with a clock of its own, and what befell its streams."""

    def __init__(self, longest_pause: float = LONGEST_PROBE) -> None:
        self.time = 1000.0
        self.changes = 0
        self.breaker = Breaker(longest_pause, lambda: self.time)
        self.breaker.changed.add(self.changed)

    def changed(self) -> None:
        self.changes += 1

    def fail(self, *streams: str, error: str = AWAY, every: float = 0.01) -> list[bool]:
        shown = []
        for stream in streams:
            shown.append(self.breaker.failed(stream, error))
            self.time += every
        return shown

    def progress(self, stream: str, took: float = 0.0) -> None:
        self.time += took
        self.breaker.progressed(stream, self.time - took)

    def away(self) -> Process:
        """The dependency goes away."""
        self.fail("a", "b", "c")
        assert self.breaker.open
        return self


@pytest.fixture
def process() -> Process:
    return Process()


# When it opens.


def test_three_streams_that_fail_while_none_progresses_are_an_outage(process: Process) -> None:
    process.fail("a", "b")
    assert not process.breaker.open
    process.fail("c")
    assert process.breaker.open
    assert process.breaker.since == 1000.0
    assert process.changes == 1


def test_one_or_two_streams_that_fail_are_none_however_often(process: Process) -> None:
    process.fail(*["a", "b"] * 100)
    assert not process.breaker.open
    assert process.breaker.counts(process.time)


def test_streams_that_fail_now_and_then_are_none(process: Process) -> None:
    """Not within a minute of each other."""
    process.fail(*(f"stream-{i}" for i in range(100)), every=WITHIN / 2 + 1)
    assert not process.breaker.open


def test_streams_that_fail_while_others_progress_are_none(process: Process) -> None:
    for i in range(300):
        process.fail(f"stream-{i}")
        process.progress("healthy", took=0.005)
    assert process.changes == 0


def test_progress_of_work_that_began_before_the_others_failed_tells_nothing(process: Process) -> None:
    began = process.time
    process.time += 1
    process.fail("a", "b")
    process.breaker.progressed("slow", began)
    process.fail("c")
    process.breaker.progressed("slow", began)
    assert process.breaker.open


# What counts.


def test_failures_count_unless_there_was_an_outage_since(process: Process) -> None:
    before = process.time - 0.001
    assert process.breaker.counts(before)
    process.away()
    assert not process.breaker.counts(before)
    assert not process.breaker.counts(process.time)
    process.progress("a", took=0.1)
    assert not process.breaker.open
    assert not process.breaker.counts(process.time - 0.05)
    assert process.breaker.counts(process.time + 0.01)


# When it closes.


def test_the_first_progress_is_the_end(process: Process) -> None:
    process.away()
    process.time += 30
    process.progress("d", took=0.1)
    assert not process.breaker.open
    assert process.changes == 2
    assert process.breaker.may_start


def test_it_ends_when_nothing_has_failed_for_a_minute(process: Process) -> None:
    """Peers that progress have got all the streams."""
    process.away()
    process.time += WITHIN - 0.1
    process.breaker.look(0)
    assert process.breaker.open
    process.time += 0.2
    process.breaker.look(0)
    assert not process.breaker.open


def test_it_lasts_as_long_as_the_streams_fail(process: Process) -> None:
    process.away()
    for _ in range(2000):
        process.fail("a", "b", "c", every=1)
        process.breaker.look(20)
    assert process.breaker.open


def test_few_that_fail_among_many_that_have_nothing_to_do_are_at_fault_themselves(process: Process) -> None:
    process.away()
    for _ in range(70):
        process.fail("a", every=1)
        process.breaker.look(STREAMS * FEW)
    assert not process.breaker.open
    process.fail(*["a", "b", "c"] * 100)
    assert not process.breaker.open
    process.fail("d", "e", "f")
    assert process.breaker.open, "they prove nothing, and hide nothing"


def test_it_lasts_as_long_as_others_join_the_few_that_fail(process: Process) -> None:
    process.away()
    for i in range(100):
        process.fail(f"stream-{i}", every=WITHIN / 2)
        process.breaker.look(1_000_000)
    assert process.breaker.open


def test_streams_that_fail_however_often_others_progress_are_at_fault_themselves(process: Process) -> None:
    """All others are idle most of the time."""
    for _ in range(CHANCES):
        process.fail(*["a", "b", "c"] * 5)
        assert process.breaker.open
        process.time += 60
        process.progress("healthy", took=0.1)
    process.fail(*["a", "b", "c"] * 5)
    assert not process.breaker.open
    assert process.breaker.counts(process.time)
    process.progress("a")
    process.fail("a", "d", "e")
    assert process.breaker.open, "one that has progressed starts anew"


# What is told.


def test_an_outage_is_told_once_and_so_is_its_end(process: Process) -> None:
    process.away()
    assert not process.breaker.tell_of_outage()
    process.time += SURE
    assert process.breaker.tell_of_outage()
    assert not process.breaker.tell_of_outage()
    for _ in range(5):
        assert not process.breaker.counts(process.time)
    process.time = 1060.0
    process.breaker.progressed("a", 1059.0)
    ended = process.breaker.tell_of_end()
    assert ended is not None
    assert (ended.lasted, ended.uncounted, ended.progress) == (60.0, 5, True)
    assert process.breaker.tell_of_end() is None


def test_an_instant_without_progress_is_not_told(process: Process) -> None:
    process.away()
    process.progress("d", took=0.001)
    assert process.breaker.tell_of_end() is None
    process.time += 10
    assert not process.breaker.tell_of_outage()


def test_the_commonest_kind_of_error_is_told(process: Process) -> None:
    process.fail("a", error="ValueError: 17")
    for i in range(10):
        process.fail(f"stream-{i}", error=f"TimeoutError: after {i} s")
    assert process.breaker.error == "TimeoutError: after 9 s"
    process.progress("a", took=1)
    assert process.breaker.error == ""


def test_the_log_shows_what_came_before_and_each_kind_of_error_once(process: Process) -> None:
    assert process.fail("a", "b", "c") == [True, True, True]
    assert process.fail(*(f"stream-{i}" for i in range(10_000)), every=0) == [False] * 10_000
    assert process.fail("a", "b", error="ValueError: no") == [True, False]
    process.progress("a", took=1)
    assert process.fail("a") == [True]


# Probes.


def test_one_handler_starts_at_a_time_after_pauses_that_double(process: Process) -> None:
    process.away()
    pauses = []
    for _ in range(12):
        began = process.time
        while not process.breaker.may_start:
            process.time += 0.01
        pauses.append(process.time - began)
        process.breaker.started("a")
        assert not process.breaker.may_start
        process.breaker.failed("a", AWAY)
    for n, pause in enumerate(pauses):
        longest = min(LONGEST_PROBE, 0.25 * 2**n)
        assert longest / 2 - 0.05 <= pause <= longest + 0.02


def test_a_probe_that_does_not_end_is_not_waited_for(process: Process) -> None:
    process.away()
    process.time += 1
    process.breaker.started("a")
    process.time += LONGEST_PROBE - 0.1
    assert not process.breaker.may_start
    process.time += 0.2
    assert process.breaker.may_start


def test_after_a_probe_that_has_nothing_to_do_the_next_one_may_start(process: Process) -> None:
    process.away()
    process.time += 1
    process.breaker.started("idle")
    assert process.breaker.probe == "idle"
    process.breaker.tells_nothing("another one")
    assert not process.breaker.may_start
    process.breaker.tells_nothing("idle")
    assert process.breaker.may_start
    assert process.breaker.probe is None


def test_no_probe_is_waited_for_longer_than_the_longest_pause(process: Process) -> None:
    process.breaker = Breaker(0.5, lambda: process.time)
    process.away()
    process.time += 1
    process.breaker.started("a")
    process.time += 0.4
    assert not process.breaker.may_start
    process.time += 0.2
    assert process.breaker.may_start


def test_streams_that_were_at_work_before_and_fail_do_not_hold_probes_up(process: Process) -> None:
    process.away()
    process.time += 1
    assert process.breaker.may_start
    process.fail("d", "e", "f")
    assert process.breaker.may_start


def test_no_pause_is_longer_than_the_policy_says() -> None:
    process = Process(longest_pause=0.1)
    process.away()
    process.time += 0.1
    assert process.breaker.may_start


# Bounds.


def test_what_it_remembers_is_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 50)
    for i in range(1000):
        process.breaker.failed(f"stream-{i}", f"Kind{i}: text")
    assert process.breaker.open
    assert process.breaker.streams == 50
    assert process.breaker.error.startswith("Kind")
    assert not process.breaker.failed("another", "Kind1001: too many kinds")


Step = tuple[str, str, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fails", "fails", "progresses", "starts", "looks"]),
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.sampled_from([0.0, 0.01, 1.0, 10.0, 70.0]),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_whatever_happens(steps: list[Step]) -> None:
    """Checked against all that has happened, which the breaker itself does not remember."""
    process = Process()
    failures: dict[str, float] = {}  # since the last progress of anything
    for what, stream, passes in steps:
        process.time += passes
        was_open = process.breaker.open
        if what == "fails":
            process.breaker.failed(stream, AWAY)
            failures[stream] = process.time
        elif what == "progresses":
            process.breaker.progressed(stream, process.time)
            failures.clear()
            assert not process.breaker.open, "progress of work that began now ends it"
        elif what == "starts":
            process.breaker.started(stream)
        else:
            process.breaker.look(100)
        if process.breaker.open and not was_open:
            recent = [at for at in failures.values() if process.time - at <= WITHIN]
            assert len(recent) >= STREAMS
        assert not (process.breaker.open and process.breaker.counts(process.time))
    process.breaker.progressed("last", process.time)
    process.time += 0.001
    assert process.breaker.counts(process.time)
    assert process.breaker.may_start


@given(streams=st.lists(st.sampled_from(["a", "b"]), max_size=50), steps=st.sampled_from([0.0, 0.1, 30.0]))
def test_two_streams_never_open_it(streams: list[str], steps: float) -> None:
    process = Process()
    process.fail(*streams, every=steps)
    assert process.changes == 0


def test_it_ends_when_fewer_than_three_have_failed_for_a_minute(process: Process) -> None:
    """The others went to peers, or were buried there. What is left must not go round uncounted for ever."""
    process.away()
    for _ in range(11):
        process.fail("a", "b", every=WITHIN / 24)
        process.breaker.look(held=2)
        assert process.breaker.open
    process.fail("a", "b", every=WITHIN / 24)
    process.breaker.look(held=2)
    assert not process.breaker.open
    process.fail("a")
    assert process.breaker.counts(process.time)


def test_an_outage_in_which_all_fail_rarely_goes_on(process: Process) -> None:
    process.away()
    for _ in range(10):
        process.fail("a", "b", "c", every=WITHIN / 4)
        process.breaker.look(held=3)
        assert process.breaker.open
