"""Entries that are no longer in their data stream, though nobody has read them.

Redis 7 and Valkey count the entries that were ever added to a stream. Whoever counts what was read, too, can tell
how many are missing: exactly, and only where nothing else explains the difference. What an owner that died may
have deleted itself is no gap, nor is anything before the checkpoint, however it was removed.

Redis 6.2 does not count, so nothing is known there.
"""

from dataclasses import dataclass
from typing import NamedTuple

from redis_stream_client._model.entry import order

PAUSE = 1.0  # seconds between two looks at a stream that gets entries


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that were trimmed or deleted before they were read.

    Attributes:
        after: they came after the entry with this id.
        before: id of the oldest entry behind them that was still there; None if there was none.
        entries: how many they were.
    """

    after: str
    before: str | None
    entries: int


class Added(NamedTuple):
    """How many entries were added to a stream up to a position, None if that is not known; and whether it is
    certain that none behind it was read."""

    number: int | None
    sure: bool

    @classmethod
    def parse(cls, text: bytes) -> "Added":
        """As a record has it."""
        number = text.removesuffix(b"!")
        if not number.isdigit() or len(number) > 20:  # somebody else wrote it
            return UNKNOWN
        return cls(int(number), text in (b"0", number + b"!"))


UNKNOWN = Added(None, False)


class Look(NamedTuple):
    """What Redis knows of a stream: entries ever added, entries there, the ids of the first and of the last of
    these, and the greatest id that was deleted one by one."""

    added: int
    length: int
    first: str
    last: str
    deleted: str


class Count:
    """How many entries were added to a stream up to a position: to compare with what Redis counted.

    Args:
        added: up to the position. An entry behind it that was read may have been deleted by who read it.
        position: id of the entry.
    """

    __slots__ = ("_sure", "_told_anew", "_verified", "due", "number")

    def __init__(self, added: Added, position: str) -> None:
        self.number, self._sure = added
        self._verified = position
        self._told_anew = False
        self.due: float | None = float("-inf")  # when to look; None when nothing has changed since

    def read(self, entries: int) -> None:
        """The position moves on by entries that were read."""
        if not self._sure:  # nobody has looked before
            self.number, self._sure = None, True
        if self.number is not None:
            self.number += entries

    def began_anew(self, position: str, look: Look) -> bool:
        """Whether this is another stream by now, all of whose entries come before `position`. It is said once.

        Trimming removes the oldest entries first, and Redis remembers the greatest id that was deleted.
        """
        behind = order(max(look.last, look.deleted, key=order)) < order(position)
        if self._told_anew or not look.length or not behind:
            return False
        self._told_anew = True
        return True

    def compare(self, position: str, look: Look) -> Gap | None:
        """What is missing after `position`, as Redis says now. It is reported once."""
        if not self._sure:
            self._sure = True
            if order(look.deleted) > order(position):  # by the owner before, perhaps, which had read it
                self.number = None
        nothing_left = not look.length or order(look.last) <= order(position)
        if not nothing_left and order(look.first) <= order(position):
            return None  # nothing was trimmed; of what was deleted we hear at the end
        there = 0 if nothing_left else look.length
        passed = look.added - there  # entries up to the position, and those that are missing
        known, self.number = self.number, passed
        after, self._verified = self._verified, position
        if known is None or passed <= known:  # fewer: the key is another one by now
            return None
        return Gap(after, None if nothing_left else look.first, passed - known)
