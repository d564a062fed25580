"""The spans of a handler: one for the time for which it has a stream, and on request one for each step.

Streams live for days, and a span is seen only when it has ended. So a handler's span ends after a while at a step
of its ``entries()`` or ``batches()``, and another one goes on, with a link to the one before.
"""

import time
from collections.abc import Mapping, Sequence
from contextvars import Token

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from redis_stream_client import Entry
from redis_stream_client.telemetry import trace_context
from redis_stream_client.telemetry.metrics import ERROR, OPERATION, OPERATION_TYPE, OUTCOME

MOST_LINKS = 100
"""Links of one span. SDKs keep 128, unless they are told otherwise."""

CONTINUED = "continued"
"""The outcome of a span that ended because it had become long, while its handler went on."""

Attributes = Mapping[str, str | int]


class HandlerSpans:
    """The spans of one handler. Each begins a trace of its own: the work goes on long after what caused it.

    Enter and leave it in the handler's task. A step may be taken in another task, where its span is current then.

    Args:
        tracer: makes the spans.
        name: what the handler works for, for the names of the spans.
        attributes: those of each span.
        announced: the span in which the stream was announced; None: not known.
        each_step: whether each step has a span of its own.
        longest: seconds after which the span of the handler ends at a step.
    """

    __slots__ = (
        "_announced",
        "_attributes",
        "_each_step",
        "_linked",
        "_longest",
        "_name",
        "_outside",
        "_since",
        "_span",
        "_step",
        "_token",
        "_tracer",
        "_waiting_since",
    )

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        attributes: Attributes,
        announced: SpanContext | None,
        *,
        each_step: bool,
        longest: float,
    ) -> None:
        self._tracer = tracer
        self._name = f" {name}" if name else ""
        self._attributes = attributes
        self._announced = announced
        self._each_step = each_step
        self._longest = longest
        self._outside = context.get_current()
        self._step: Span | None = None
        self._waiting_since: int | None = None
        self._start([])
        self._token: Token[Context] | None = None

    def enter(self) -> None:
        """Make the handler's span current, until `leave`."""
        self._token = self._make_current(self._span)

    # Its steps.

    def asked(self) -> None:
        """The handler asks for more: it has done with what it got."""
        self._end_step(None)
        self._waiting_since = time.time_ns()
        if time.monotonic() - self._since > self._longest:
            self._go_on()

    def received(self, entries: Sequence[Entry]) -> None:
        """The handler gets these."""
        if time.monotonic() - self._since > self._longest:
            self._go_on()
        self._waiting_since = None
        if self._each_step:
            self._end_step(None)
            self._start_step(entries)
        elif self._span.is_recording():
            for written in _written(entries, MOST_LINKS - self._linked):
                self._span.add_link(written)
                self._linked += 1

    # Its end.

    def leave(self, error: BaseException | None) -> None:
        """The handler has ended. `error`: what it has failed with; None: it has not."""
        self._end_step(error)
        if self._token is not None:
            context.detach(self._token)
            self._token = None

    def end(self, outcome: str, error: BaseException | None, at: int | None, *, failed: bool) -> None:
        """It is known what becomes of the stream.

        `error`: what the handler has failed with; it may have `failed` without any. `at`: when it ended, in Unix
        nanoseconds; None: now.
        """
        self._span.set_attribute(OUTCOME, outcome)
        if failed and error is None:
            self._span.set_attribute(ERROR, outcome)
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        end(self._span, error, at)

    # Inside.

    def _start(self, links: list[Link]) -> None:
        """Start a span for the handler."""
        if self._announced is not None:
            links.append(Link(self._announced))
        self._since = time.monotonic()
        self._linked = len(links)
        self._span = self._tracer.start_span(
            f"handle{self._name}", Context(), SpanKind.CONSUMER, {**self._attributes, OPERATION: "handle"}, links
        )

    def _go_on(self) -> None:
        """Start the handler's next span. The one before ends where the handler began to wait, if it did."""
        before = self._span
        before.set_attribute(OUTCOME, CONTINUED)
        before.end(self._waiting_since)
        self._start([Link(before.get_span_context())])
        self._make_current(self._span)

    def _start_step(self, entries: Sequence[Entry]) -> None:
        links = [Link(self._span.get_span_context())]
        links += [Link(written) for written in _written(entries, MOST_LINKS - 1)]
        attributes = {**self._attributes, OPERATION: "process", OPERATION_TYPE: "process"}
        if len(entries) == 1:
            attributes["messaging.message.id"] = entries[0].id
        else:
            attributes["messaging.batch.message_count"] = len(entries)
        self._step = self._tracer.start_span(
            f"process{self._name}", Context(), SpanKind.CONSUMER, attributes, links
        )
        self._make_current(self._step)

    def _end_step(self, error: BaseException | None) -> None:
        step, self._step = self._step, None
        if step is not None:
            end(step, error)
            self._make_current(self._span)

    def _make_current(self, span: Span) -> Token[Context]:
        return context.attach(trace.set_span_in_context(span, self._outside))


def _written(entries: Sequence[Entry], most: int) -> list[SpanContext]:
    """The spans in which these were written, each once, as far as their fields say so; at most so many."""
    found: dict[int, SpanContext] = {}
    for entry in entries:
        if len(found) >= most:
            break
        if (written := trace_context.of_entry(entry.fields)) is not None:
            found.setdefault(written.span_id, written)
    return list(found.values())


def end(span: Span, error: BaseException | None, at: int | None = None) -> None:
    """End a span, which has failed with this error, or has not. `at`: when, in Unix nanoseconds; default: now."""
    try:
        if error is not None:
            name = type(error).__name__
            span.set_attribute(ERROR, name)
            span.set_status(Status(StatusCode.ERROR, name))
            span.record_exception(error)  # which asks for its text
    finally:
        span.end(at)
