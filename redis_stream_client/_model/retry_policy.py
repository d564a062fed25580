"""The retry policy: when to try a failed stream again, and when it goes to the dead letters. Values only."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from redis_stream_client._model import options
from redis_stream_client._model.failures import class_is_a, leaves


class NotGiven(Enum):
    """Stands for an argument that was left out, because None has a meaning of its own."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What `run()` does with a stream whose handler raises. Durations are in seconds.

    A failed stream rests, and is tried again. It goes to the dead letters when it has failed `max_attempts` times
    **and** has been failing for `patience` since its checkpoint last advanced. Redis keeps both, so they count
    across owners. The page reference/failures in the documentation has all cases.

    Attributes:
        max_attempts: failures before a stream may go to the dead letters; default 16. None: it never does, however
            often its handlers fail or its owners die; only `bury_on` and `PoisonError` can put it there.
        patience: how long a stream must have been failing before it goes to the dead letters; default 600, at most
            86,400. Choose it longer than the outages of what your handlers depend on.
        first_pause: how long a stream rests after its first failure; default 0.1. It doubles with each failure.
        longest_pause: how long a stream rests at the most; default 30.
        bury_on: exceptions for which another attempt is useless, besides `PoisonError`. If a handler raises one of
            them, alone or in an exception group, the stream goes to the dead letters at once.

    Raises:
        TypeError, ValueError: an attribute is not allowed; the message names it.
    """

    max_attempts: int | None = 16
    patience: float = 600.0
    first_pause: float = 0.1
    longest_pause: float = 30.0
    bury_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            options.count(self.max_attempts, "max_attempts")
        options.seconds(self.patience, "patience", at_least=0.0)
        options.seconds(self.first_pause, "first_pause", at_least=0.0)
        options.seconds(self.longest_pause, "longest_pause", at_least=0.0)
        if self.longest_pause < self.first_pause:
            raise ValueError(
                f"longest_pause must be at least first_pause = {self.first_pause:g} s, "
                f"not {self.longest_pause:g} s"
            )
        if not isinstance(self.bury_on, tuple):
            raise TypeError(f"bury_on must be a tuple of exception classes, not {type(self.bury_on).__name__}")
        for kind in self.bury_on:
            if not is_exception_class(kind):
                raise TypeError(f"bury_on must be a tuple of exception classes; {kind!r} is none")


class RetryLater(Exception):
    """Raise it in a handler of `run()` to try the stream again later.

    It does not count as a failure, and is not logged as one. The stream rests for `after` seconds. Meanwhile this
    client owns it, no handler works on it, and it counts towards `max_streams`. Then it is released, and this
    client or a peer takes it over. A drain ends the rest early.

    Args:
        after: seconds, at most 86,400.

    Raises:
        TypeError, ValueError: `after` is not allowed.
    """

    __slots__ = ("_after",)

    def __init__(self, after: float) -> None:
        self._after = options.seconds(after, "after", at_least=0.0)
        super().__init__(f"after {self._after:g} s")

    @property
    def after(self) -> float:
        """Seconds for which the stream rests."""
        return self._after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._after,)


def is_exception_class(value: object) -> bool:
    """Whether this is a class that ``except`` accepts."""
    return isinstance(value, type) and issubclass(value, BaseException)


def later(error: BaseException | None) -> float | None:
    """The seconds of a `RetryLater`; None for any other exception, or none."""
    rests: list[float] = []
    for leaf in leaves(error):
        after = _after_of(leaf)
        if after is None:
            return None
        rests.append(after)
    return max(rests, default=None)


def _after_of(error: BaseException) -> float | None:
    if not class_is_a(error, RetryLater):
        return None
    try:
        after: float = _AFTER(error)
    except AttributeError:  # a subclass that never called our constructor
        return None
    return after


_AFTER = RetryLater.__dict__["_after"].__get__
"""Taken from the class, so that a subclass cannot lie."""


def policy(retry: RetryPolicy | None, max_attempts: int | NotGiven | None) -> RetryPolicy:
    """The policy from the arguments of `run()`: a policy, or its short form `max_attempts`, or neither.

    Raises ``TypeError`` or ``ValueError``.
    """
    if retry is not None:
        if not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy, not {type(retry).__name__}")
        if max_attempts is not NOT_GIVEN:
            raise ValueError("give retry or max_attempts, not both: RetryPolicy(max_attempts=…) says it too")
        return retry
    if isinstance(max_attempts, NotGiven):
        return RetryPolicy()
    return RetryPolicy(max_attempts=max_attempts, patience=0.0)
