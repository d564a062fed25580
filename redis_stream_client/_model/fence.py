"""The fence: it orders the owners of a stream, and lets others refuse the writes of an old owner."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

from redis_stream_client._model.entry import order

_WIDTH = 20  # digits of the largest unsigned 64-bit integer
_MICROSECONDS = 16  # digits of a time, until the year 2286
_LARGEST = 2**64 - 1
_TEXT = re.compile(r"(\d{20})-(\d{20})-(\d{20})(?:-(\d{16}-[0-9a-f]{8}))?", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Fence:
    """Orders the owners of a stream: the newer of two leases has the greater fence.

    Store the fence beside what you write, and refuse a write whose fence is smaller than the stored one. ``str()``
    gives fixed-width ASCII that sorts the same way. Fences can be pickled.

    The fence starts with the id of the announcement and its delivery count: ``XREADGROUP`` delivers with count 1,
    and each ``XCLAIM`` adds one. A failover can make Redis forget a claim and give its count to the next owner, so
    the fence ends with the holder: when the lease was made, and by which consumer. Two owners never have the same
    fence. Of two owners with the same count, the later one has the greater fence, as far as their clocks agree.

    Attributes:
        milliseconds, sequence: the id of the announcement.
        deliveries: the delivery count of the announcement.
        holder: ``<microseconds since 1970>-<last 8 characters of the consumer id>``; empty if the holder is not
            known, as in fences that version 0.1 wrote. An empty holder sorts first.
    """

    milliseconds: int
    sequence: int
    deliveries: int
    holder: str = ""

    @classmethod
    def of(cls, lbs_id: str, deliveries: int, holder: str = "") -> "Fence":
        """The fence of an announcement's ``deliveries``-th delivery."""
        return cls(*order(lbs_id), deliveries, holder)

    @classmethod
    def parse(cls, text: str) -> "Fence":
        """Read a fence that ``str()`` wrote. Raises ``ValueError`` for anything else."""
        found = _TEXT.fullmatch(text)
        if not found or max(int(found[1]), int(found[2]), int(found[3])) > _LARGEST:
            raise ValueError(f"not a fence: {text[:100]!r}")
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4] or "")

    @property
    def lbs_id(self) -> str:
        """The id of the announcement."""
        return f"{self.milliseconds}-{self.sequence}"

    def __setstate__(self, state: Sequence[int | str]) -> None:
        """Read a pickle, even one of version 0.1, whose fences had no holder."""
        for field, value in zip(fields(self), (*state, "")[:4], strict=True):
            object.__setattr__(self, field.name, value)

    def __str__(self) -> str:
        # zfill() takes about half of what format() does, and a fence is written for every checkpoint.
        milliseconds, sequence = str(self.milliseconds).zfill(_WIDTH), str(self.sequence).zfill(_WIDTH)
        numbers = f"{milliseconds}-{sequence}-{str(self.deliveries).zfill(_WIDTH)}"
        return f"{numbers}-{self.holder}" if self.holder else numbers


def announcement_of(lbs_id: str) -> str:
    """What the texts of all fences of an announcement begin with. Its width is fixed, so it sorts as they do."""
    return str(Fence.of(lbs_id, 0)).rpartition("-")[0]


def holder_of(consumer: str) -> str:
    """Who holds a lease that is made now, for its fence."""
    token = consumer[-8:]
    if not re.fullmatch("[0-9a-f]{8}", token):  # no consumer of ours
        token = "0" * 8
    return f"{str(time.time_ns() // 1000).zfill(_MICROSECONDS)}-{token}"


def is_held_by(fence: Fence, consumer: str) -> bool:
    """Whether this consumer held the lease of this fence."""
    return fence.holder.rpartition("-")[2] == consumer[-8:]
