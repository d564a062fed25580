"""Gaps: entries that were removed from a data stream before anybody read them.

Redis 7 and Valkey count the entries that were ever added to a stream. By counting the entries that were read as
well, the client can tell exactly how many are missing. It reports a gap only if nothing else explains the
difference: entries that a dead owner may have deleted after reading them are no gap, and neither is anything
before the checkpoint.

Redis 6.2 does not count, so the client finds no gaps there.
"""

from dataclasses import dataclass
from typing import NamedTuple

from redis_stream_client._model.entry import order

PAUSE = 1.0  # seconds between two looks at a stream that gets entries


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that were trimmed or deleted before they were read.

    Attributes:
        after: the missing entries came after the entry with this id.
        before: id of the oldest entry behind the gap that was still there; None if there was none.
        entries: how many entries are missing.
    """

    after: str
    before: str | None
    entries: int


class Added(NamedTuple):
    """How many entries were added to a stream up to a position (None: not known), and whether it is certain that
    nobody has read an entry behind the position."""

    number: int | None
    sure: bool

    @classmethod
    def parse(cls, text: bytes) -> "Added":
        """Read it from a progress record."""
        number = text.removesuffix(b"!")
        if not number.isdigit() or len(number) > 20:  # somebody else wrote it
            return UNKNOWN
        return cls(int(number), text in (b"0", number + b"!"))


UNKNOWN = Added(None, False)


class Look(NamedTuple):
    """What Redis says about a stream: the number of entries ever added, its length, the ids of its first and last
    entry, and the greatest id that ``XDEL`` removed."""

    added: int
    length: int
    first: str
    last: str
    deleted: str


class Count:
    """How many entries were added to a stream up to a position: to compare with what Redis counted.

    Args:
        added: the number up to the position. The owner before may have read and deleted entries behind it.
        position: id of the entry.
    """

    __slots__ = ("_sure", "_told_anew", "_verified", "due", "number")

    def __init__(self, added: Added, position: str) -> None:
        self.number, self._sure = added
        self._verified = position
        self._told_anew = False
        self.due: float | None = float("-inf")  # when to look; None when nothing has changed since

    def read(self, entries: int) -> None:
        """Count entries that were read; the position moves on by them."""
        if not self._sure:  # nobody has looked before
            self.number, self._sure = None, True
        if self.number is not None:
            self.number += entries

    def began_anew(self, position: str, look: Look) -> bool:
        """Whether the stream was deleted and written anew, with all ids before `position`. True only once.

        Trimming removes the oldest entries first, and Redis remembers the greatest id that was deleted.
        """
        behind = order(max(look.last, look.deleted, key=order)) < order(position)
        if self._told_anew or not look.length or not behind:
            return False
        self._told_anew = True
        return True

    def compare(self, position: str, look: Look) -> Gap | None:
        """The gap after `position`, by what Redis says now. Each gap is reported once."""
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
