"""The context of a trace as it travels, and what is made of what is no such thing."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from redis_stream_client.telemetry import trace_context

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_current_span_travels_in_announcements_and_in_fields() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        carrier = trace_context.carrier()
    assert carrier.keys() == {"traceparent"}
    fields = {name.encode(): text.encode() for name, text in carrier.items()}
    for found in (trace_context.of_announcement(carrier), trace_context.of_entry({b"text": b"hello", **fields})):
        assert found is not None
        assert (found.trace_id, found.span_id) == (
            span.get_span_context().trace_id,
            span.get_span_context().span_id,
        )


def test_the_state_of_a_trace_comes_along() -> None:
    found = trace_context.of_entry({b"traceparent": TRACEPARENT.encode(), b"tracestate": b"vendor=1"})
    assert found is not None
    assert found.trace_state == {"vendor": "1"}


def test_without_a_span_nothing_travels() -> None:
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert trace_context.carrier() == {}
    assert trace_context.of_announcement({}) is None
    assert trace_context.of_entry({b"text": b"hello"}) is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        TRACEPARENT.encode() + b"-" + b"x" * 100_000,
        "é".encode(),
    ],
)
def test_garbage_is_no_span(garbage: bytes) -> None:
    assert trace_context.of_entry({b"traceparent": garbage}) is None
    assert trace_context.of_announcement({"traceparent": garbage.decode("utf-8", "replace")}) is None


def test_a_state_that_is_garbage_leaves_the_span() -> None:
    found = trace_context.of_entry({b"traceparent": TRACEPARENT.encode(), b"tracestate": b"\xff" * 10_000})
    assert found is not None
    assert trace_context.of_announcement({"traceparent": TRACEPARENT, "tracestate": 3}) is not None


def test_a_long_state_is_left_out() -> None:
    state = ",".join(f"vendor{number}={'x' * 60}" for number in range(20))
    found = trace_context.of_announcement({"traceparent": TRACEPARENT, "tracestate": state})
    assert found is not None
    assert not found.trace_state


def test_what_is_no_text_is_no_span() -> None:
    assert trace_context.of_announcement({"traceparent": 17}) is None
