"""Rebalancing, as users set it."""

from dataclasses import dataclass

from redis_stream_client._model import options


@dataclass(frozen=True, slots=True)
class Rebalance:
    """How `run()` evens out the load: a member that has clearly fewer streams than its share gets some from those
    that have more, as after a rolling restart, or when a new member joins.

    A stream moves as at a drain: its handler is cancelled at its first step of ``entries()`` or ``batches()``
    after a checkpoint, and the next owner goes on there. Nothing counts as an attempt. A member gives idle streams
    first, few at a time, and never so many that it would have too few itself. A stream that is pinned stays; see
    `Lease.pin`. A handler that reaches no checkpoint in 10 s keeps its stream, and is asked again after a minute
    at the earliest.

    Attributes:
        settle: seconds for which no member must have joined or died, and four times as many for which none must
            have drained, before streams move; default 10. A rolling restart whose steps follow each other faster
            moves no stream twice.

    Raises:
        TypeError, ValueError: `settle` is no number of seconds, or less than 0.1.
    """

    settle: float = 10.0

    def __post_init__(self) -> None:
        options.seconds(self.settle, "settle", at_least=0.1)
