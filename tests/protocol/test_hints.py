"""The control channel: what members tell each other, in the words that both sides know."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

import redis_stream_client
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._protocol import hints
from redis_stream_client._protocol.hints import (
    WORDS,
    Claimed,
    Dead,
    Deposed,
    Draining,
    Give,
    Hint,
    Joined,
    Left,
    Ordered,
    Recovered,
    Released,
    Taken,
    Wants,
)
from redis_stream_client._protocol.replies import Refusal, Won
from tests.protocol.consumer import SOON, Consumer


class Channel:
    """What is said on the control channel of a service."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._pubsub = consumer.redis.pubsub()

    async def __aenter__(self) -> Channel:
        await self._pubsub.subscribe(self._consumer.keys.control)
        assert await self._pubsub.get_message(timeout=SOON), "the confirmation"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pubsub.aclose()

    async def heard(self) -> list[str]:
        """What was said since the last call."""
        await self._consumer.redis.publish(self._consumer.keys.control, "mark")
        hints: list[str] = []
        while True:
            message = await self._pubsub.get_message(timeout=SOON)
            assert message is not None
            if message["data"] == b"mark":
                return hints
            hints.append(message["data"].decode())


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Joined("a"), b"joined a"),
        (Draining("a"), b"draining a"),
        (Left("a"), b"left a"),
        (Dead("a b"), b"dead a b"),
        (Deposed("a"), b"deposed a"),
        (Recovered("a"), b"recovered a"),
        (Claimed(("1-0", "2-0")), b"claimed 1-0 2-0"),
        (Released(("1-0",)), b"released 1-0"),
        (Wants("a b", 12), b"wants a b 12"),
        (Give("a b", "1-0", 3), b"give a b 1-0 3"),
        (Ordered(), b"ordered"),
        (Taken("a b", ("1-0", "2-0")), b"taken 1-0 2-0 a b"),
    ],
)
def test_a_hint_is_understood_as_it_was_meant(hint: Hint, message: bytes) -> None:
    assert hints.encode(hint) == message
    assert hints.decode(message) == hint


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"mark", b"Joined a", b"{}", b" left a"])
def test_what_is_no_hint_says_nothing(garbage: bytes) -> None:
    assert hints.decode(garbage) is None


@pytest.mark.parametrize(
    "ask",
    [
        *("give", "give a", "give a 1-0", "give a 1-0 x", "give a 1 1", "give 1-0 1", "give a 1-0 " + "9" * 5_000),
        *("taken", "taken a", "taken 1-0", "taken 1-0 ", "taken x 1-0"),
        *("wants", "wants 1", "wants a", "wants a -1", "wants a 1.5", "wants a " + "9" * 5_000),
    ],
)
def test_an_ask_without_a_name_or_a_number_says_nothing(ask: str) -> None:
    assert hints.decode(ask.encode()) is None


def test_a_name_that_is_not_utf_8_is_told_as_it_is() -> None:
    assert hints.encode(Dead("x\udcff")) == b"dead x\xff"


def test_scripts_publish_words_that_are_understood() -> None:
    folder = files(redis_stream_client) / "_protocol" / "lua"
    published: dict[str, set[str]] = {}
    for script in folder.iterdir():
        if not script.is_file():
            continue
        text = script.read_text(encoding="utf-8")
        words = re.findall(r"'PUBLISH', ARGV\[\d+\], '(\w+) ?'", text)
        assert len(words) == text.count("'PUBLISH'"), script.name
        assert re.findall(r"^-- Hint  (\w+)(?: <.*)?$", text, re.MULTILINE) == words, "its head says so"
        for word in words:
            published.setdefault(word, set()).add(script.name.removesuffix(".lua"))
    assert published.keys() <= WORDS
    assert published == {
        "joined": {"probe"},
        "left": {"leave"},
        "present": {"present"},
        "deposed": {"depose"},
        "dead": {"depose", "evict"},
        "claimed": {"claim", "claim_many"},
        "released": {"evict", "release", "rescue", "take_away"},
        "taken": {"evict", "take_away"},
        "ordered": {"order_drain", "pause", "resume"},
    }


async def test_peers_are_told_of_what_was_released_claimed_and_left(a: Consumer, b: Consumer) -> None:
    first, second, third = await b.take(3)
    async with Channel(a) as channel:
        await b.deliveries.release([(first, 1), (second, 9)], SOON)
        assert await channel.heard() == [f"released {first}"]
        assert isinstance(await a.deliveries.claim(first, NOBODY, SOON), Won)
        assert isinstance(await a.deliveries.claim(second, b.id, SOON), Refusal)
        assert await channel.heard() == [f"claimed {first}"]
        await b.lock.leave(SOON)
        assert await channel.heard() == [f"left {b.id}"]
        await a.deliveries.claim_many(b.id, 10, SOON)
        assert await channel.heard() == [f"claimed {second} {third}"]
        await a.redis.xack(a.keys.lbs, a.keys.group, first)
        await a.group.rescue(None, SOON)
        assert await channel.heard() == [f"released {first}"]
        await a.hints.tell(Dead("x"), SOON)
        assert await channel.heard() == ["dead x"]
