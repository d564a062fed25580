"""The spans of a handler, without Redis: long ones, links, steps, and which span is current where."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from redis_stream_client import Entry
from redis_stream_client.telemetry import spans as spans_module
from redis_stream_client.telemetry.spans import CONTINUED, MOST_LINKS, HandlerSpans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

OUTCOME = "redis_stream_client.outcome"


class Scene:
    """Spans of handlers, and what has ended of them."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = provider or TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def handler(self, *, each_step: bool = False, longest: float = 600.0, announced: Any = None) -> HandlerSpans:
        tracer = self._provider.get_tracer("test")
        spans = HandlerSpans(tracer, "orders", {"a": 1}, announced, each_step=each_step, longest=longest)
        spans.enter()
        return spans

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def outcomes(self) -> list[object]:
        return [(span.attributes or {}).get(OUTCOME) for span in self.ended]


def entry(number: int, *, traced: bool = True) -> Entry:
    """An entry that was written in a span of its own."""
    fields = {b"text": b"hello"}
    if traced:
        fields[b"traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-01".encode()
    return Entry(f"{number}-1", fields)


def current() -> int:
    return trace.get_current_span().get_span_context().span_id


def ids(links: Any) -> list[int]:
    return [link.context.span_id for link in links]


def test_entries_are_linked_up_to_a_bound() -> None:
    scene = Scene()
    spans = scene.handler()
    for number in range(2 * MOST_LINKS):
        spans.asked()
        spans.received([entry(number), entry(number, traced=False)])
    spans.leave(None)
    spans.end("done", None, None, failed=False)
    [span] = scene.ended
    assert ids(span.links) == list(range(1, MOST_LINKS + 1))


def test_a_batch_that_was_written_in_one_span_has_one_link() -> None:
    scene = Scene()
    spans = scene.handler(each_step=True)
    spans.received([entry(7), entry(7), entry(8)])
    spans.leave(None)
    spans.end("done", None, None, failed=False)
    [step, handler] = scene.ended
    assert ids(step.links)[1:] == [8, 9]
    assert (step.attributes or {})["messaging.batch.message_count"] == 3
    assert not handler.links


def test_a_long_span_goes_on_as_another_one_at_a_step() -> None:
    scene = Scene()
    announced = trace.SpanContext(1, 2, is_remote=True)
    spans = scene.handler(longest=0.0, announced=announced)
    first = current()
    spans.received([entry(0, traced=False)])
    second = current()
    assert second != first
    spans.leave(None)
    spans.end("done", None, None, failed=False)
    assert scene.outcomes == [CONTINUED, "done"]
    before, after = scene.ended
    assert ids(before.links) == [2]
    assert ids(after.links) == [first, 2]
    assert before.context is not None
    assert after.context is not None
    assert before.context.trace_id != after.context.trace_id


class Clock:
    """A clock that stands still, in seconds."""

    def __init__(self) -> None:
        self.now = 1000

    def monotonic(self) -> float:
        return float(self.now)

    def time_ns(self) -> int:
        return self.now * 10**9


def test_what_was_waited_at_its_end_is_not_part_of_a_long_span(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(spans_module, "time", clock)
    scene = Scene()
    spans = scene.handler(longest=600.0)
    clock.now = 1010
    spans.asked()
    clock.now = 9000
    spans.received([entry(0, traced=False)])
    [span] = scene.ended
    assert span.end_time == 1010 * 10**9
    assert scene.outcomes == [CONTINUED]
    clock.now = 9700
    spans.asked()
    assert scene.ended[1].end_time == 9700 * 10**9
    spans.leave(None)


async def test_steps_that_are_taken_in_another_task_have_their_spans_there() -> None:
    async def work() -> list[int]:
        spans.asked()
        spans.received([entry(0)])
        inside = current()
        spans.asked()
        return [inside, current()]

    scene = Scene()
    spans = scene.handler(each_step=True)
    own = current()
    inside, after = await asyncio.create_task(work())
    assert inside != own
    assert after == own
    assert current() == own
    spans.leave(None)
    spans.end("done", None, None, failed=False)
    assert current() == 0
    assert [span.name for span in scene.ended] == ["process orders", "handle orders"]


def test_the_span_outside_is_current_again_afterwards() -> None:
    scene = Scene()
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("outside") as outside:
        spans = scene.handler(each_step=True, longest=0.0)
        spans.received([entry(0)])
        spans.leave(None)
        assert current() == outside.get_span_context().span_id
        spans.end("done", None, None, failed=False)


def test_an_error_whose_text_cannot_be_had_ends_its_span_all_the_same() -> None:
    class Evil(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    scene = Scene()
    spans = scene.handler()
    with pytest.raises(RuntimeError):
        spans.end("failed", Evil(), None, failed=True)
    spans.leave(None)
    [span] = scene.ended
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "Evil"


def test_what_is_not_sampled_costs_no_links() -> None:
    scene = Scene(TracerProvider(ALWAYS_OFF, shutdown_on_exit=False))
    spans = scene.handler()
    spans.received([entry(0)])
    spans.leave(None)
    spans.end("done", None, None, failed=False)
    assert scene.ended == []
