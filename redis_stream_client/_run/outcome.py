"""What `run()` is told about handlers, and how the work on a lease can end. Values."""

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

Status = Literal["done", "released", "failed", "dead", "drained", "stalled", "lost"]
"""How the work on a lease ended.

- ``done``: the handler returned, or called ``lease.done()``;
- ``released``: the handler called ``lease.release()``;
- ``failed``: the handler raised; the stream was released after a pause;
- ``dead``: it went to the dead letters, since it failed too often;
- ``drained``: the handler was asked to stop; the stream was released, and the attempt does not count;
- ``stalled``: there was no progress for `progress_timeout`; the stream was released;
- ``lost``: the lease was lost.
"""

Stop = Literal["drained", "stalled"]
"""Why a handler was told to stop: the client drains, or the handler shows no progress."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds that a stream rests after its handler has failed: at first, and at most. With 16 attempts, the default,
it rests for at most 51 s in all before it goes to the dead letters."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What `run()` was told. Durations are seconds.

    Attributes:
        max_attempts: owners that may fail before a stream goes to the dead letters.
        progress_timeout: how long a handler may show no progress; None: for ever.
        patience: how long a handler may take to end when it was cancelled.
        first_pause, longest_pause: how long a stream rests after its handler failed; it doubles with each attempt.
    """

    max_attempts: int
    progress_timeout: float | None
    patience: float
    first_pause: float = FIRST_PAUSE
    longest_pause: float = LONGEST_PAUSE

    def pause(self, attempts: int) -> float:
        """Seconds to rest after so many failed attempts."""
        pause = min(self.longest_pause, self.first_pause * 2 ** min(30, max(0, attempts - 1)))
        return random.uniform(pause / 2, pause)


class Outcome(NamedTuple):
    """How the work on a lease ended.

    Attributes:
        status: see `Status`.
        error: what the handler raised, if it did.
        position: the last checkpoint.
        attempts: how many owners have tried since it last advanced.
    """

    status: Status
    error: BaseException | None
    position: str | None
    attempts: int

    @property
    def failed(self) -> bool:
        """Whether the handler was at fault."""
        return self.status in ("failed", "stalled") or (self.status == "dead" and self.error is not None)
