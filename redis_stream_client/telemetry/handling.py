"""What surrounds one handler: its spans, and the times of its steps."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType

from opentelemetry.metrics import Histogram

from redis_stream_client import Entry, NotOwner, RetryLater
from redis_stream_client.telemetry.metrics import ERROR
from redis_stream_client.telemetry.spans import HandlerSpans

NO_FAILURES = (asyncio.CancelledError, RetryLater, NotOwner)
"""What ends a handler, and is no failure of it."""


class Handling:
    """A handler at work. Enter and leave it in the handler's task.

    Args:
        spans: its spans.
        times: gets the duration of each step: from the return of its entries to the next step.
        attributes: of these durations.
    """

    __slots__ = ("_attributes", "_left_at", "_outer", "_received_at", "_spans", "_times")

    def __init__(self, spans: HandlerSpans, times: Histogram, attributes: Mapping[str, str]) -> None:
        self._spans = spans
        self._times = times
        self._attributes = attributes
        self._received_at: float | None = None
        self._left_at: int | None = None
        self._outer: Token[Handling | None] | None = None

    def __enter__(self) -> None:
        self._outer = _current.set(self)
        self._spans.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left_at = time.time_ns()
        failure = _failure(error)
        self._end_step(failure)
        self._spans.leave(failure)
        if self._outer is not None:
            _current.reset(self._outer)

    def asked(self) -> None:
        """A step begins. One that a task takes which the handler has left behind does not count."""
        if self._left_at is None:
            self._end_step(None)
            self._spans.asked()

    def received(self, entries: Sequence[Entry]) -> None:
        """A step returns these."""
        if self._left_at is None:
            self._received_at = time.perf_counter()
            self._spans.received(entries)

    def ended(self, outcome: str, error: BaseException | None, *, failed: bool) -> None:
        """It is known what becomes of the stream. See `HandlerSpans.end`."""
        self._spans.end(outcome, _failure(error) if failed else None, self._left_at, failed=failed)

    def _end_step(self, failure: BaseException | None) -> None:
        if self._received_at is None:
            return
        seconds, self._received_at = time.perf_counter() - self._received_at, None
        attributes = self._attributes
        if failure is not None:
            attributes = {**attributes, ERROR: type(failure).__name__}
        self._times.record(seconds, attributes)


def _failure(error: BaseException | None) -> BaseException | None:
    return None if error is None or issubclass(type(error), NO_FAILURES) else error


_current: ContextVar[Handling | None] = ContextVar("redis_stream_client.telemetry.handling", default=None)


def current() -> Handling | None:
    """The handler in whose context this runs; None: it does not run in one."""
    return _current.get()
