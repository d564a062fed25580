"""The fence: a number that grows with every change of owner, and that Redis itself keeps."""

from dataclasses import dataclass

_WIDTH = 20  # digits of the largest unsigned 64-bit integer


@dataclass(frozen=True, order=True, slots=True)
class Fence:
    """Orders the owners of a stream: of two leases the one with the greater fence is the newer.

    It is the pair of the announcement's entry id and its delivery count: ``XREADGROUP`` delivers with count
    1, and each ``XCLAIM`` adds one. Store it beside what you write, and refuse a write whose fence is
    smaller than the stored one. ``str()`` is fixed-width ASCII that sorts the same way; fences can be
    pickled.
    """

    milliseconds: int
    sequence: int
    deliveries: int

    @classmethod
    def of(cls, lbs_id: str, deliveries: int) -> "Fence":
        """The fence of an announcement's ``deliveries``-th delivery."""
        milliseconds, _, sequence = lbs_id.partition("-")
        return cls(int(milliseconds), int(sequence), deliveries)

    @classmethod
    def parse(cls, text: str) -> "Fence":
        """The fence that ``str()`` wrote. Raises ``ValueError`` for anything else."""
        milliseconds, sequence, deliveries = text.split("-")
        return cls(int(milliseconds), int(sequence), int(deliveries))

    @property
    def lbs_id(self) -> str:
        """Id of the announcement."""
        return f"{self.milliseconds}-{self.sequence}"

    def __str__(self) -> str:
        # zfill() takes about half of what format() does, and a fence is written for every checkpoint.
        milliseconds, sequence = str(self.milliseconds).zfill(_WIDTH), str(self.sequence).zfill(_WIDTH)
        return f"{milliseconds}-{sequence}-{str(self.deliveries).zfill(_WIDTH)}"
