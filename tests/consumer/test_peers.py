"""What is known of the other members."""

from __future__ import annotations

from redis_stream_client._consumer.peers import Peers


def test_alone_until_others_are_heard_of_or_counted() -> None:
    peers = Peers()
    assert peers.live == 1
    peers.joined()
    assert peers.live == 2
    peers.counted(4)
    assert peers.live == 5


def test_who_leaves_is_not_counted_any_more() -> None:
    peers = Peers()
    peers.counted(2)
    peers.left("one")
    assert peers.live == 2


def test_who_drains_and_leaves_is_subtracted_once() -> None:
    peers = Peers()
    peers.counted(2)
    peers.departs("one")
    peers.departs("one")
    assert (peers.live, peers.departing) == (2, {"one"})
    peers.left("one")
    assert (peers.live, peers.departing) == (2, set())


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
