"""The observer in a fleet: each metric of what happens in a scenario that moves it, and the spans of all.

What members have, and what a fleet looks like from outside, is in `test_gauges.py` and `test_fleets.py`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from redis_stream_client import (
    AlreadyClaimed,
    Checkpoint,
    Entry,
    Fence,
    Gain,
    HandlerEnd,
    HandlerStart,
    LoadBalancerStream,
    PoisonError,
    Rebalance,
    RedisStreamClient,
    RedisUnavailable,
    RetryLater,
    RetryPolicy,
    StreamExpired,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client.telemetry import OpenTelemetry, metrics
from tests.harness.fleet import announce
from tests.harness.runs import Ledger, Running, idle
from tests.harness.telemetry import Collector
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

GHOST = "redis-consumer-ghost-00c0ffee"
END = {"end": ""}


async def orphan(redis: Connection, service: str, stream: str = "call-17") -> None:
    """Have a stream delivered to a consumer that lives, and does nothing more."""
    keys = Keys(service)
    await LoadBalancerStream(redis, service).add(stream)
    await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
    await redis.set(keys.lock(GHOST), '{"ttl": 60000}', px=60_000)
    await redis.xreadgroup(keys.group, GHOST, {keys.lbs: ">"})


async def test_a_stream_that_is_processed(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    value, ledger = collector.value, Ledger()
    producer = LoadBalancerStream(redis, service)
    async with Running(server.url, service, ledger.follow, observer=collector.telemetry) as running:
        await producer.write("call-17", {"text": "hello"})
        await ledger.reached({"call-17": 1})
        assert value(metrics.GAINED, how="announced") == 1
        assert value(metrics.CONSUMED, system="redis", group=service) == 1
        assert value(metrics.ENDED) == 0
        await producer.write("call-17", END)
        await wait_until(lambda: not running.client.leases, "it is done")
        await wait_until(lambda: value(metrics.HANDLER, outcome="done") == 1, "its handler has ended")
    assert value(metrics.ENDED, how="done") == 1
    assert value(metrics.CONSUMED) == value(metrics.CHECKPOINTS) == value(metrics.LAG) == 2
    assert value(metrics.PROCESS, operation_type="process") == 2
    assert (value(metrics.CLAIMS), value(metrics.RECOVERY), value(metrics.LOST, reason="claimed")) == (0, None, 0)


async def test_counters_begin_at_0(server: Server, service: str, collector: Collector) -> None:
    """Prometheus sees no increase in one that begins at 1."""
    async with Running(server.url, service, observer=collector.telemetry):
        reasons = {
            metrics.LETTERS: ("failures", "deaths", "poison", "malformed"),
            metrics.LAPSES: ("silent", "stalled", "missing"),
            metrics.LOST: ("expired", "claimed", "gone", "superseded", "closed"),
        }
        for metric, words in reasons.items():
            assert {word: collector.value(metric, reason=word) for word in words} == dict.fromkeys(words, 0)
        assert collector.value(metrics.LOST, reason="done") is None


async def test_batches_count_by_their_entries(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    ledger = Ledger()
    await LoadBalancerStream(redis, service).write_many([("call-17", {"n": str(n)}) for n in range(50)])
    async with Running(server.url, service, ledger.follow_in_batches, observer=collector.telemetry):
        await ledger.reached({"call-17": 50})
        assert collector.value(metrics.CONSUMED) == 50
        assert (collector.value(metrics.CHECKPOINTS) or 0) < 50


async def test_producers(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    producer = LoadBalancerStream(redis, service, observer=collector.telemetry)
    await producer.add_many(["call-1", "call-2", "call-3"])
    await producer.write("call-1", {"text": "hello"})
    value = collector.value
    assert (value(metrics.SENT, operation="add"), value(metrics.SENT, operation="write")) == (3, 1)
    assert (
        value(metrics.OPERATIONS, operation="add", operation_type="send")
        == value(metrics.OPERATIONS, operation="write")
        == 1
    )
    await redis.set("call-4", "no stream")
    with pytest.raises(Exception, match="call-4"):
        await producer.write("call-4", {"text": "hello"})
    [point] = [
        point
        for name, point in collector.points()
        if "error.type" in (point.attributes or {}) and name == metrics.SENT.name
    ]
    assert (point.attributes or {})["error.type"] == "RedisRejected"


async def test_a_take_over(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    await orphan(redis, service)
    async with Running(server.url, service, lock_ttl=0.5, observer=collector.telemetry) as running:
        assert collector.value(metrics.GAINED) == 0
        await redis.delete(Keys(service).lock(GHOST))
        await running.lease("call-17")
    value = collector.value
    assert value(metrics.GAINED, how="claimed") == value(metrics.CLAIMS, result="won") == 1
    assert value(metrics.RECOVERY, how="claimed") == 1
    assert value(metrics.LOST, reason="closed") == 1
    [span] = collector.spans("handle")
    assert span.attributes is not None
    assert span.attributes["redis_stream_client.previous_owner"] == GHOST


async def test_a_claim_that_is_lost(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    keys = Keys(service)
    await orphan(redis, service)
    await redis.delete(keys.lock(GHOST))
    async with RedisStreamClient.from_url(server.url, service, observer=collector.telemetry) as client:
        event = await anext(client.events())
        assert isinstance(event, StreamExpired)
        await redis.set(keys.lock(GHOST), '{"ttl": 60000}', px=60_000)
        with pytest.raises(AlreadyClaimed):
            await client.claim(event.payload)
    assert collector.value(metrics.CLAIMS, result="lost") == 1
    assert collector.value(metrics.CLAIMS, result="won") == 0


async def test_handlers_that_fail(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    async def fail(lease: Lease) -> None:
        if lease.stream == "poison":
            raise PoisonError("never")
        if lease.stream == "later" and lease.attempts < 2:
            raise RetryLater(0.05)
        raise LookupError(lease.stream)

    value = collector.value
    async with Running(server.url, service, fail, max_attempts=1, observer=collector.telemetry):
        await announce(server.url, service, "call-17", "poison", "later")
        await wait_until(
            lambda: value(metrics.LETTERS, reason="failures") == 1, "one has failed for the last time"
        )
        await wait_until(lambda: value(metrics.LETTERS, reason="poison") == 1, "one is poison")
        await wait_until(lambda: value(metrics.HANDLER, outcome="postponed"), "one is postponed")
    assert value(metrics.HANDLER, outcome="dead") == 2
    assert value(metrics.ENDED, how="buried") == 2
    assert (value(metrics.FAILURES, error="LookupError"), value(metrics.FAILURES, error="PoisonError")) == (1, 1)
    [failed] = [
        span
        for span in collector.spans("handle")
        if (span.attributes or {})["messaging.destination.name"] == "call-17"
    ]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "LookupError"
    assert [event.name for event in failed.events] == ["exception"]
    later = [
        span
        for span in collector.spans("handle")
        if (span.attributes or {})["messaging.destination.name"] == "later"
    ]
    assert {span.status.status_code for span in later} == {StatusCode.UNSET}


async def test_a_handler_that_stalls(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    async def stall(lease: Lease) -> None:
        await asyncio.sleep(60)

    rules: dict[str, Any] = {"progress_timeout": 0.1, "retry": RetryPolicy(first_pause=0.05)}
    async with Running(server.url, service, stall, observer=collector.telemetry, **rules):
        await announce(server.url, service, "call-17")
        await wait_until(lambda: collector.value(metrics.FAILURES, error="stalled"), "it has stalled")
        await wait_until(lambda: collector.value(metrics.HANDLER, outcome="stalled"), "it has ended")
    span = collector.spans("handle")[0]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "stalled")


async def test_a_lock_that_is_gone(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    async with Running(server.url, service, lock_ttl=0.5, presence=False, observer=collector.telemetry) as running:
        await announce(server.url, service, "call-17")
        await running.lease("call-17")
        await redis.delete(Keys(service).lock(running.client.id))
        await wait_until(lambda: collector.value(metrics.LAPSES, reason="missing") == 1, "it has lapsed")


async def test_streams_that_move_to_a_peer_with_fewer(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    options: dict[str, Any] = {
        "lock_ttl": 0.5,
        "rebalance": Rebalance(settle=0.1),
        "observer": collector.telemetry,
    }
    async with Running(server.url, service, **options) as old:
        await announce(server.url, service, *(f"call-{n}" for n in range(10)))
        await wait_until(lambda: len(old.working) == 10, "it has all")
        async with Running(server.url, service, **options) as new:
            await wait_until(lambda: len(new.working) == 5, "the load is even", timeout=20)
    value = collector.value
    assert value(metrics.ENDED, how="given") == value(metrics.GAINED, how="rebalanced") == 5
    assert value(metrics.RECOVERY, how="rebalanced") == 5


async def test_durations_are_those_that_the_observer_is_told(collector: Collector) -> None:
    fence, telemetry = Fence(1, 0, 1), collector.telemetry
    gain = Gain("a", "call-17", "1-0", fence, "claimed", GHOST, silent_for=0.25)
    start = HandlerStart("a", "call-17", "1-0", fence, None, 1, gain, waited=0.5)
    with telemetry.handling(start):
        telemetry.received("a", "call-17", [Entry("1-0", {})])
        began = time.perf_counter()
        await asyncio.sleep(0.02)
        worked = time.perf_counter() - began
        telemetry.asked("a", "call-17")
        await asyncio.sleep(0.02)  # which is not work on an entry
    telemetry.checkpoint(Checkpoint("a", "call-17", "1-0", fence, "1-0", 1, lag=3.0))
    telemetry.handler_ended(HandlerEnd(start, "done", 7.0, None))
    assert collector.seconds(metrics.RECOVERY) == 0.75
    assert collector.seconds(metrics.LAG) == 3.0
    assert collector.seconds(metrics.HANDLER) == 7.0
    assert worked <= collector.seconds(metrics.PROCESS) < time.perf_counter() - began - 0.02


async def test_the_last_step_of_a_handler_that_fails_is_one_that_failed(collector: Collector) -> None:
    def work(error: Exception) -> None:
        start = HandlerStart("a", "call-17", "1-0", Fence(1, 0, 1), None, 1, None, 0.0)
        with collector.telemetry.handling(start):
            collector.telemetry.received("a", "call-17", [Entry("1-0", {})])
            raise error

    for error in (LookupError("call-17"), RetryLater(1.0)):
        with pytest.raises(type(error)):
            work(error)
    assert collector.value(metrics.PROCESS, error="LookupError") == 1
    assert collector.value(metrics.PROCESS) == 2


async def test_a_task_that_a_handler_leaves_behind_begins_no_spans() -> None:
    async def work() -> None:
        await left.wait()
        telemetry.received("a", "call-17", [Entry("1-0", {})])
        telemetry.asked("a", "call-17")

    left = asyncio.Event()
    with Collector(process_entries=True, longest_span=1e-9) as collector:
        telemetry = collector.telemetry
        start = HandlerStart("a", "call-17", "1-0", Fence(1, 0, 1), None, 1, None, 0.0)
        with telemetry.handling(start):
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
        telemetry.handler_ended(HandlerEnd(start, "done", 0.0, None))
        left.set()
        await task
        assert [span.name for span in collector.spans("")] == ["handle"]
        assert collector.value(metrics.PROCESS) is None


# Spans.


def context_of(span: Any) -> tuple[int, int]:
    """What names a span, or a link."""
    context = span.context
    return context.trace_id, context.span_id


async def test_the_span_of_a_handler_is_current_and_leads_to_who_announced_its_stream(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    async def handle(lease: Lease) -> None:
        current.append(trace.get_current_span().get_span_context())

    current: list[Any] = []
    producer = LoadBalancerStream(redis, service, observer=collector.telemetry)
    tracer = collector.tracers.get_tracer("test")
    with tracer.start_as_current_span("request") as request:
        await producer.add("call-17")
    async with Running(server.url, service, handle, observer=collector.telemetry):
        await wait_until(lambda: collector.spans("handle"), "it is done")
    [add] = collector.spans(f"add {service}")
    [handled] = collector.spans(f"handle {service}")
    assert (add.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert add.parent is not None
    assert add.parent.span_id == request.get_span_context().span_id
    assert handled.parent is None
    assert [context_of(link) for link in handled.links] == [context_of(add)]
    assert [(each.trace_id, each.span_id) for each in current] == [context_of(handled)]
    attributes = handled.attributes or {}
    assert attributes["messaging.destination.name"] == "call-17"
    assert attributes["redis_stream_client.outcome"] == "done"


async def test_each_step_has_a_span_on_request(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            current.append(trace.get_current_span().get_span_context().span_id)
            await lease.checkpoint(entry.id)
            if b"end" in entry.fields:
                raise LookupError("the end")

    current: list[int] = []
    producer = LoadBalancerStream(redis, service)
    with Collector(process_entries=True) as collector:
        tracer = collector.tracers.get_tracer("test")
        with tracer.start_as_current_span("request") as request:
            await producer.write("call-17", {"text": "hello", **collector.telemetry.carrier()})
            await producer.write("call-17", END)
        async with Running(server.url, service, handle, max_attempts=1, observer=collector.telemetry):
            await wait_until(lambda: collector.spans("handle"), "it has failed")
        first, last = collector.spans(f"process {service}")
        [handled] = collector.spans("handle")
    assert current == [context_of(first)[1], context_of(last)[1]]
    assert [context_of(link)[1] for link in first.links] == [
        context_of(handled)[1],
        request.get_span_context().span_id,
    ]
    assert [context_of(link) for link in last.links] == [context_of(handled)]
    assert (first.status.status_code, last.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert not handled.links


async def test_who_drains_has_not_failed(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    async with Running(server.url, service, idle, observer=collector.telemetry) as running:
        await announce(server.url, service, "call-17")
        await running.lease("call-17")
        running.client.drain()
        await running.task
    [span] = collector.spans("handle")
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["redis_stream_client.outcome"] == "drained"
    assert collector.value(metrics.HANDLER, outcome="drained") == 1


async def test_a_call_that_gets_no_answer_is_a_failed_span(
    proxy: TcpProxy, service: str, collector: Collector
) -> None:
    from redis.asyncio import Redis

    await proxy.refuse()
    async with Redis.from_url(proxy.url) as redis:
        with pytest.raises(RedisUnavailable):
            await LoadBalancerStream(redis, service, observer=collector.telemetry).add("call-17")
    [span] = collector.spans("add")
    assert span.status.status_code is StatusCode.ERROR
    assert collector.value(metrics.OPERATIONS, error="RedisUnavailable") == 1


async def test_two_clients_share_an_observer(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    other = f"{service}-other"
    for name in (service, other):
        await announce(server.url, name, "call-17")
    async with (
        Running(server.url, service, observer=collector.telemetry) as one,
        Running(server.url, other, observer=collector.telemetry) as two,
    ):
        await one.lease("call-17")
        await two.lease("call-17")
        assert [collector.value(metrics.GAINED, service=name) for name in (service, other)] == [1, 1]


# What it costs whoever does not ask for it.


OTHERS = "redis_stream_client, redis_stream_client.testing, redis_stream_client.cli"


def test_nobody_imports_opentelemetry_who_does_not_ask_for_it() -> None:
    """Newer versions of redis-py do, where it is installed, so that is left out."""
    code = (
        "import sys, redis.asyncio, redis.asyncio.cluster, redis.asyncio.sentinel; there = set(sys.modules); "
        f"import {OTHERS}; "
        "sys.exit(any(name.startswith(('opentelemetry', 'redis_stream_client.telemetry')) "
        "for name in sys.modules.keys() - there))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nobody_needs_opentelemetry_who_does_not_ask_for_it() -> None:
    code = f"import sys; sys.modules['opentelemetry'] = None; import {OTHERS}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_needs_the_api_alone() -> None:
    """An application may use another SDK, or none."""
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = sys.modules['prometheus_client'] = None; "
        "from redis_stream_client.telemetry import OpenTelemetry; OpenTelemetry()"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_who_has_not_got_it_is_told_how_to_get_it() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import redis_stream_client.telemetry"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "pip install redis-stream-client[otel]" in run.stderr


def test_the_sdk_may_be_set_up_before_or_after() -> None:
    """Instruments of both times are the same ones, with the clients of both."""
    code = textwrap.dedent(
        """
        import asyncio
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from redis_stream_client import Entry, Gain, Fence, Membership
        from redis_stream_client._model.statistics import NOTHING
        from redis_stream_client.telemetry import OpenTelemetry

        async def main():
            before = OpenTelemetry()
            before.joined(Membership("a", "orders", lambda: NOTHING))
            reader = InMemoryMetricReader()
            metrics.set_meter_provider(MeterProvider([reader]))
            after = OpenTelemetry()
            after.joined(Membership("b", "orders", lambda: NOTHING))
            for consumer, telemetry in (("a", before), ("b", after)):
                telemetry.gained(Gain(consumer, "call-17", "1-0", Fence(1, 0, 1), "announced"))
                telemetry.received(consumer, "call-17", [Entry("1-0", {})])
            [resource] = reader.get_metrics_data().resource_metrics
            [scope] = resource.scope_metrics
            found = {metric.name: metric.data.data_points[0].value for metric in scope.metrics}
            print(found["redis_stream_client.leases.gained"], found["messaging.client.consumed.messages"])

        asyncio.run(main())
        """
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("2 2\n", "")


def test_without_a_provider_nothing_is_exported_and_nothing_fails() -> None:
    telemetry = OpenTelemetry()
    assert telemetry.carrier() == {}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: OpenTelemetry(process_entries=1), TypeError),  # type: ignore[arg-type]
        (lambda: OpenTelemetry(longest_span="long"), TypeError),  # type: ignore[arg-type]
        (lambda: OpenTelemetry(longest_span=True), TypeError),
        (lambda: OpenTelemetry(longest_span=0), ValueError),
        (lambda: OpenTelemetry(longest_span=float("nan")), ValueError),
    ],
)
def test_wrong_arguments_are_refused(wrong: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        wrong()
