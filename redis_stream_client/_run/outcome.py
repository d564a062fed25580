"""The rules of `run()` for handlers, and the outcomes of their work. Values only."""

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

Status = Literal["done", "released", "failed", "dead", "drained", "stalled", "lost"]
"""How the work on a lease ended.

- ``done``: the handler returned, or called ``lease.done()``;
- ``released``: the handler called ``lease.release()``;
- ``failed``: the handler raised; the stream was released after a pause;
- ``dead``: the stream failed too often and went to the dead letters;
- ``drained``: the client drained; the stream was released, and the attempt does not count;
- ``stalled``: the handler made no progress for `progress_timeout`; the stream was released;
- ``lost``: the lease was lost.
"""

Stop = Literal["drained", "stalled"]
"""Why a handler was told to stop: the client drains, or the handler shows no progress."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""The first and the longest pause after a failed handler, in seconds. With 16 attempts, the default, a stream
rests for at most 51 s in all before it goes to the dead letters."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments of `run()`. Durations are in seconds.

    Attributes:
        max_attempts: owners that may fail before a stream goes to the dead letters.
        progress_timeout: how long a handler may make no progress; None: no limit.
        patience: how long a cancelled handler may take to end before the client goes on without it.
        first_pause, longest_pause: how long a stream rests after its handler failed. The pause doubles with each
            attempt.
    """

    max_attempts: int
    progress_timeout: float | None
    patience: float
    first_pause: float = FIRST_PAUSE
    longest_pause: float = LONGEST_PAUSE

    def pause(self, attempts: int) -> float:
        """The pause in seconds after the given number of failed attempts."""
        pause = min(self.longest_pause, self.first_pause * 2 ** min(30, max(0, attempts - 1)))
        return random.uniform(pause / 2, pause)


class Outcome(NamedTuple):
    """How the work on a lease ended.

    Attributes:
        status: see `Status`.
        error: what the handler raised; None if it raised nothing.
        position: the last checkpoint.
        attempts: how many owners have begun since the checkpoint last advanced.
    """

    status: Status
    error: BaseException | None
    position: str | None
    attempts: int

    @property
    def failed(self) -> bool:
        """Whether the handler was at fault."""
        return self.status in ("failed", "stalled") or (self.status == "dead" and self.error is not None)
