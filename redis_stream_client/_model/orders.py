"""What an operator has ordered, and what came of it: values only."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Pause:
    """Nobody takes new streams: announcements that no member has been given yet wait.

    Attributes:
        reason: why, as whoever paused the fleet has said.
        since: since when, in seconds of Unix time by the server's clock.
    """

    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Release:
    """What came of `Fleet.release`.

    Attributes:
        stream: name of the data stream.
        lbs_id: id of its announcement.
        outcome: ``given``: its owner has given it back, or has died meanwhile, and a peer has it. ``forced``: it
            was taken from its owner. ``ended``: its owner has finished it meanwhile, or it went to the dead
            letters. ``unowned``: no living member had it, so there was nothing to do.
        previous: id of the consumer that had it; None if none had.
        owner: id of the consumer that has it now; None: it waits for one, or is over. A lone member takes back
            what it has given.
    """

    stream: str
    lbs_id: str
    outcome: Literal["given", "forced", "ended", "unowned"]
    previous: str | None
    owner: str | None
