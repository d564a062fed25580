"""Hints: the messages that members publish on the control channel.

A hint makes recovery faster, and correctness never depends on it: it may be lost, doubled, late or wrong. Scripts
publish some of them, in one step with the change that they announce. `WORDS` has the first word of each.
"""

import re
from dataclasses import dataclass

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.base import encode_name
from redis_stream_client._redis.connection import SharedConnection


@dataclass(frozen=True, slots=True)
class Joined:
    """A consumer has joined."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Draining:
    """A consumer takes no new streams, and will leave."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Left:
    """A consumer has left; its streams may be claimed."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A consumer's lock does not exist, and entries are pending for it."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Deposed:
    """A consumer was found dead by its presence. `Dead` follows, which older members know, too."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """A consumer's handlers progress again after an outage of something that they depend on."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Present:
    """A consumer has declared its presence."""

    consumer: str


@dataclass(frozen=True, slots=True)
class Taken:
    """An operator has taken these entries away from a consumer."""

    consumer: str
    lbs_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """These entries were claimed."""

    lbs_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """These entries are pending for nobody: anybody may claim them."""

    lbs_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wants:
    """A consumer has clearly fewer streams than its share, and wants so many."""

    consumer: str
    streams: int


@dataclass(frozen=True, slots=True)
class Give:
    """An operator asks a consumer to give this entry back, if it has it with this delivery count."""

    consumer: str
    lbs_id: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator has ordered something, or taken it back: what that is, Redis knows."""


AboutConsumer = Joined | Draining | Left | Dead | Deposed | Recovered | Present
AboutEntries = Claimed | Released
Hint = AboutConsumer | AboutEntries | Wants | Give | Taken | Ordered

_ABOUT_CONSUMERS: dict[str, type[AboutConsumer]] = {
    "joined": Joined,
    "draining": Draining,
    "left": Left,
    "dead": Dead,
    "deposed": Deposed,
    "recovered": Recovered,
    "present": Present,
}
_ABOUT_ENTRIES: dict[str, type[AboutEntries]] = {"claimed": Claimed, "released": Released}
_TAKEN = re.compile(r"((?:[0-9]{1,20}-[0-9]{1,20} )+)(.+)", re.DOTALL)
_GIVE = re.compile(r"(.+) ([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,20})", re.DOTALL)
_OTHERS: dict[str, type[Wants | Give | Taken | Ordered]] = {
    "wants": Wants,
    "give": Give,
    "taken": Taken,
    "ordered": Ordered,
}
_WORD_OF: dict[type[Hint], str] = {
    kind: word for words in (_ABOUT_CONSUMERS, _ABOUT_ENTRIES, _OTHERS) for word, kind in words.items()
}

WORDS = frozenset(_WORD_OF.values())
"""The first word of each hint."""


def encode(hint: Hint) -> bytes:
    """Encode a hint: its word, and the consumer or entries that it is about."""
    match hint:
        case Claimed(lbs_ids) | Released(lbs_ids):
            about = " ".join(lbs_ids)
        case Wants(consumer, streams):
            about = f"{consumer} {streams}"
        case Give(consumer, lbs_id, deliveries):
            about = f"{consumer} {lbs_id} {deliveries}"
        case Taken(consumer, lbs_ids):
            about = f"{' '.join(lbs_ids)} {consumer}"
        case Ordered():
            return _WORD_OF[Ordered].encode()
        case _:
            about = hint.consumer
    return encode_name(f"{_WORD_OF[type(hint)]} {about}")


def decode(message: bytes) -> Hint | None:
    """Decode a message; None if it is no hint."""
    word, _, about = message.decode(errors="replace").partition(" ")
    if word in _ABOUT_CONSUMERS:
        return _ABOUT_CONSUMERS[word](about)
    if word in _ABOUT_ENTRIES:
        return _ABOUT_ENTRIES[word](tuple(about.split()))
    if word == "wants":
        consumer, _, streams = about.rpartition(" ")
        if consumer and re.fullmatch(r"[0-9]{1,9}", streams):
            return Wants(consumer, int(streams))
    if word == "ordered":
        return Ordered()
    if word == "taken" and (taken := _TAKEN.fullmatch(about)):
        return Taken(taken[2], tuple(taken[1].split()))
    if word == "give" and (asked := _GIVE.fullmatch(about)):
        return Give(asked[1], asked[2], int(asked[3]))
    return None


class Hints:
    """Publishes hints."""

    def __init__(self, keys: Keys, *, commands: SharedConnection) -> None:
        self._keys = keys
        self._commands = commands

    async def tell(self, hint: Hint, timeout: float) -> None:
        """Publish a hint to the peers."""
        await self._commands.request("PUBLISH", self._keys.control, encode(hint), timeout=timeout)
