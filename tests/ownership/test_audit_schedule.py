"""When an audit is due, on a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._ownership.audit_schedule import PERIOD, AuditSchedule

PACE = 2.0
LATE = 2.0


class Fleet:
    """A schedule with a clock of its own."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.audits = AuditSchedule(PACE, LATE, lambda: self.time)

    def audit(self, *, takes: float = 0.0) -> None:
        with self.audits.under_way():
            self.time += takes


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_it_is_due_after_its_period(fleet: Fleet) -> None:
    assert not fleet.audits.due
    assert fleet.audits.delay == PERIOD * PACE
    fleet.time += PERIOD * PACE
    assert fleet.audits.due
    fleet.audit()
    assert fleet.audits.delay == PERIOD * PACE


def test_who_asks_for_one_wakes_whoever_waits(fleet: Fleet) -> None:
    woken = asyncio.Event()
    fleet.audits.changed.add(woken.set)
    fleet.audits.request()
    assert fleet.audits.due
    assert woken.is_set()


def test_what_is_asked_for_meanwhile_may_be_about_what_came_too_late(fleet: Fleet) -> None:
    with fleet.audits.under_way():
        assert not fleet.audits.due
        fleet.audits.request()
    assert fleet.audits.due


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
def test_one_that_fails_is_due_again(fleet: Fleet, failure: type[BaseException]) -> None:
    with pytest.raises(failure), fleet.audits.under_way():
        raise failure
    assert fleet.audits.due


def test_after_a_lost_read_there_are_two(fleet: Fleet) -> None:
    """The second one, when Redis cannot serve that read any more."""
    fleet.audits.read_lost()
    assert fleet.audits.due
    fleet.audit()
    assert fleet.audits.delay == LATE
    fleet.time += LATE
    assert fleet.audits.due
    fleet.audit()
    assert fleet.audits.delay == PERIOD * PACE


def test_an_audit_that_begins_too_early_does_not_stand_for_the_second_one(fleet: Fleet) -> None:
    fleet.audits.read_lost()
    fleet.audit(takes=LATE + 1.0)
    assert fleet.audits.due
