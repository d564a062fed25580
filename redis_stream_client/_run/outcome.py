"""The rules of `run()` for handlers, and the outcomes of their work. Values only."""

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

from redis_stream_client._model.failures import class_is_a, leaves
from redis_stream_client._model.poison import PoisonError
from redis_stream_client._model.retention import OnDone
from redis_stream_client._model.retry_policy import RetryPolicy

Status = Literal["done", "released", "failed", "postponed", "dead", "drained", "stalled", "lost"]
"""How the work on a lease ended.

- ``done``: the handler returned, or called ``lease.done()``;
- ``released``: the handler called ``lease.release()``;
- ``failed``: the handler raised; the stream was released after a pause;
- ``postponed``: the handler raised `RetryLater`; the stream was released after a rest, and the attempt does not
  count;
- ``dead``: the stream failed too often, or raised what no further attempt can mend, and went to the dead letters;
- ``drained``: the client drained; the stream was released, and the attempt does not count;
- ``stalled``: the handler made no progress for `progress_timeout`; the stream was released;
- ``lost``: the lease was lost.
"""

Stop = Literal["drained", "stalled"]
"""Why a handler was told to stop: the client drains, or the handler shows no progress."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments of `run()`. Durations are in seconds.

    Attributes:
        retry: when a stream whose handler failed is tried again, and when it goes to the dead letters.
        progress_timeout: how long a handler may make no progress; None: no limit.
        patience: how long a cancelled handler may take to end before the client goes on without it.
        rests: whether streams rest at all; in the tests of users they do not.
        on_done: what becomes of a data stream when it is done.
        trim: whether it is also trimmed while a handler reads it.
    """

    retry: RetryPolicy
    progress_timeout: float | None
    patience: float
    rests: bool = True
    on_done: OnDone = "keep"
    trim: bool = False

    def pause(self, failures: int) -> float:
        """The pause in seconds after the given number of failures."""
        longest, first = self.retry.longest_pause, self.retry.first_pause
        pause = min(longest, first * 2 ** min(30, max(0, failures - 1)))
        return self.rest(random.uniform(pause / 2, pause))

    def rest(self, seconds: float) -> float:
        """The pause in seconds that a `RetryLater` asks for."""
        return seconds if self.rests else 0.0

    @property
    def spared(self) -> int:
        """Deaths of owners that make no suspect. Most processes that die were killed by none of their streams, and
        what they leave must go on at once: thousands of streams begin together then."""
        most = self.retry.max_attempts
        return 1 if most is None or most > 1 else 0

    def is_last(self, failures: int, failing_for: float) -> bool:
        """Whether a stream goes to the dead letters after so many failures, or deaths, over this time."""
        most = self.retry.max_attempts
        return most is not None and failures >= most and failing_for >= self.retry.patience

    def poison_in(self, error: BaseException | None) -> BaseException | None:
        """The exception, in what a handler raised, that makes another attempt useless; None if there is none."""
        if error is None:
            return None
        kinds: tuple[type[BaseException], ...] = (PoisonError, *self.retry.bury_on)
        found = (each for each in (error, *leaves(error)) if any(class_is_a(each, kind) for kind in kinds))
        return next(found, None)


class Outcome(NamedTuple):
    """How the work on a lease ended.

    Attributes:
        status: see `Status`.
        error: what the handler raised; None if it raised nothing.
        position: the last checkpoint.
        attempts: how many owners have tried since it last advanced, this one included: see `Lease.attempts`.
    """

    status: Status
    error: BaseException | None
    position: str | None
    attempts: int

    @property
    def failed(self) -> bool:
        """Whether the handler was at fault."""
        return self.status in ("failed", "stalled") or (self.status == "dead" and self.error is not None)
