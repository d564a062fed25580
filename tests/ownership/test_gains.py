"""What the log says of streams that were gained, and from whom."""

from __future__ import annotations

import logging

import pytest

from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._ownership.gains import ANNOUNCED, FOUND, LOGGED, Gains, Origin
from redis_stream_client._protocol.replies import Delivered
from tests.harness.logs import LOG


def gain(gains: Gains, origin: Origin, count: int = 1) -> list[LeaseState]:
    leases = [LeaseState(f"{n + 1}-0", Announcement(f"call-{n}", None), 2) for n in range(count)]
    for lease in leases:
        gains.gained(lease, origin, Delivered(lease.lbs_id, 2, ()))
    return leases


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_a_stream_of_a_dead_owner_is_told_with_its_fence_and_that_owner(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (lease,) = gain(Gains(log=LOG), Origin("claimed", "peer"))
    (record,) = caplog.records
    assert record.getMessage() == f"gained call-0 (fence {lease.fence}) from peer"
    assert (record.levelno, vars(record)["previous_owner"], vars(record)["fence"]) == (
        logging.INFO, "peer", str(lease.fence),
    )  # fmt: skip


def test_of_many_streams_of_one_owner_the_first_are_named_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gains = Gains(log=LOG)
    gain(gains, Origin("claimed", "peer"), LOGGED + 7)
    gains.claimed("peer")
    gain(gains, Origin("claimed", "peer"), 3)
    gains.claimed("peer")
    gains.claimed("peer")  # nothing more to say
    (lease,) = gain(gains, Origin("claimed", "other"))
    gains.claimed("other")
    told = [text for _, text in lines(caplog)]
    assert len(told) == LOGGED + 3
    assert told[LOGGED:] == [
        "gained 7 more streams from peer", "gained 3 more streams from peer",
        f"gained call-0 (fence {lease.fence}) from other",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (ANNOUNCED, "announced"),
        (FOUND, "audit"),
        (Origin("claimed", NOBODY), "it was released"),
        (Origin("rebalanced", NOBODY), "it was released"),
    ],
)
def test_a_stream_without_a_dead_owner_is_told_at_debug(
    origin: Origin, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (lease,) = gain(Gains(log=LOG), origin)
    assert lines(caplog) == [(logging.DEBUG, f"gained call-0 (fence {lease.fence}): {said}")]


def test_where_a_stream_comes_from() -> None:
    dead, released = Origin("claimed", "peer"), Origin("claimed", NOBODY)
    assert (dead.previous, dead.died, dead.given_back) == ("peer", 1, False)
    assert (released.previous, released.died, released.given_back) == (None, 0, True)
    assert (ANNOUNCED.previous, ANNOUNCED.died, ANNOUNCED.given_back) == (None, 0, False)
