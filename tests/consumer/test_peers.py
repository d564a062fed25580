"""What is known of the other members."""

from __future__ import annotations

import pytest

from redis_stream_client._consumer.peers import Peers
from redis_stream_client._protocol.replies import Holder


def test_alone_until_others_are_heard_of_or_counted() -> None:
    peers = Peers()
    assert peers.live == 1
    peers.joined()
    assert peers.live == 2
    peers.counted(["a", "b", "c", "d"])
    assert peers.live == 5


def test_who_leaves_is_not_counted_any_more() -> None:
    peers = Peers()
    peers.counted(["one", "two"])
    peers.left("one")
    assert peers.live == 2


def test_who_drains_and_leaves_is_subtracted_once() -> None:
    peers = Peers()
    peers.counted(["one", "two"])
    peers.departs("one")
    peers.departs("one")
    assert (peers.live, peers.departing) == (2, {"one"})
    peers.left("one")
    assert (peers.live, peers.departing) == (2, set())


def test_whoever_comes_or_goes_is_a_change() -> None:
    peers, drained = Peers(), list[bool]()
    peers.changed.add(drained.append)
    peers.joined()
    peers.left("one")
    peers.died()
    assert drained == [False, False, False]
    peers.departs("two")
    peers.departs("two")
    peers.left("two")
    assert drained[3:] == [True, True]


def test_there_is_always_one() -> None:
    """More may be heard to leave than were counted."""
    peers = Peers()
    peers.left("one")
    assert peers.live == 1


def test_who_drains_takes_nothing_new() -> None:
    peers = Peers()
    peers.departs("two")
    assert peers.takers(["one", "two", "three", "me"], without={"me"}) == ["one", "three"]
    peers.keep({"one", "three"})
    assert peers.takers(["one", "two"], without=()) == ["one", "two"], (
        "a later consumer of that name is another one"
    )


def test_what_is_not_known_of_a_member_is_what_most_are() -> None:
    peers = Peers()
    assert not peers.knows("one")
    assert peers.holder("one") == Holder(1.0, None)
    peers.described("one", Holder(2.0, 10))
    assert peers.knows("one")
    assert peers.holder("one") == Holder(2.0, 10)
    peers.keep({"two"})
    assert not peers.knows("one")


@pytest.mark.parametrize("live", [1, 2, 3, 7, 49, 200])
@pytest.mark.parametrize("streams", [0, 1, 49, 400, 10_000])
def test_members_of_equal_weight_have_equal_shares(live: int, streams: int) -> None:
    for weight in (1.0, 0.1, 3.3):
        peers = Peers(weight)
        names = [f"peer-{number}" for number in range(live - 1)]
        for name in names:
            peers.described(name, Holder(weight))
        peers.counted(names)
        assert peers.share_of(streams) == -(-streams // live)


def test_a_share_is_by_the_weight_of_those_that_live() -> None:
    peers = Peers(2.0)
    peers.described("one", Holder(1.0))
    peers.described("dead", Holder(100.0))
    peers.counted(["one", "of an older version"])
    assert peers.share_of(400) == 200
    peers.joined()
    assert peers.share_of(400) == 160
    peers.left("one")
    assert peers.share_of(400) == 200
    peers.departs("of an older version")
    assert peers.share_of(300) == 200
