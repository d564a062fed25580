"""What surrounds one call of a producer: its span, its duration, and how much it sends."""

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Tracer

from redis_stream_client import Sending
from redis_stream_client.telemetry.instruments import Instruments
from redis_stream_client.telemetry.metrics import DESTINATION, ERROR, OPERATION, OPERATION_TYPE, SERVICE, SYSTEM
from redis_stream_client.telemetry.spans import end

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context


class Producing:
    """A call of a producer. Its span is current in it, so that announcements carry it.

    Args:
        tracer: makes the span.
        instruments: get the duration, and how many messages were sent.
        sending: what is called.
    """

    def __init__(self, tracer: Tracer, instruments: Instruments, sending: Sending) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._sending = sending
        self._attributes: Mapping[str, str] = {
            SERVICE: sending.service,
            SYSTEM: "redis",
            OPERATION: sending.operation,
            OPERATION_TYPE: "send",
            DESTINATION: sending.destination,
        }
        self._began = 0.0
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        sending = self._sending
        attributes: dict[str, str | int] = {**self._attributes, "messaging.batch.message_count": sending.messages}
        self._span = self._tracer.start_span(
            f"{sending.operation} {sending.service}", kind=SpanKind.PRODUCER, attributes=attributes
        )
        self._token = context.attach(trace.set_span_in_context(self._span))
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        if self._token is not None:
            context.detach(self._token)
        attributes = self._attributes
        if error is not None:
            attributes = {**attributes, ERROR: type(error).__name__}
        self._instruments.operations.record(seconds, attributes)
        self._instruments.sent.add(self._sending.messages, attributes)
        if self._span is not None:
            end(
                self._span,
                None if error is not None and issubclass(type(error), asyncio.CancelledError) else error,
            )
