"""What an observer costs: the entries of one stream, read and checkpointed by a `run()` that somebody observes.

OpenTelemetry has its SDK here, which collects and exports nothing: what exporters cost is theirs.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis

from benchmarks.apart import contender
from benchmarks.scenario import Scenario
from benchmarks.scenarios.entries import COUNT, SERVICE, write
from redis_stream_client import Lease, LoadBalancerStream, Observer, RedisStreamClient
from redis_stream_client.telemetry import OpenTelemetry
from tests.harness.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenario import Sample


def metrics_alone() -> OpenTelemetry:
    """Metrics, and spans that nobody wants."""
    return OpenTelemetry(meter_provider=MeterProvider([InMemoryMetricReader()]))


def all_spans() -> OpenTelemetry:
    """Metrics, and a span for each step."""
    meters = MeterProvider([InMemoryMetricReader()])
    return OpenTelemetry(meter_provider=meters, tracer_provider=TracerProvider(), process_entries=True)


OBSERVERS: dict[str, Callable[[], Observer | None]] = {
    "nobody": lambda: None,
    "nothing": Observer,
    "metrics": metrics_alone,
    "spans": all_spans,
}


async def process(observer: str, way: str, each: int) -> Sample:
    """Go through all entries of one stream."""
    done = asyncio.Event()
    observed = OBSERVERS[observer]()

    async def follow_entries(lease: Lease) -> None:
        got = 0
        async for entry in lease.entries():
            got += 1
            await lease.checkpoint(entry.id)
            if got == each:
                break
        done.set()

    async def follow_batches(lease: Lease) -> None:
        got = 0
        async for batch in lease.batches(max_entries=COUNT):
            got += len(batch)
            await lease.checkpoint(batch[-1].id)
            if got == each:
                break
        done.set()

    with Server() as server:
        async with Redis.from_url(server.url) as redis:
            await write(redis, ["call-0"], each)
            await LoadBalancerStream(redis, SERVICE).add("call-0")
        client = RedisStreamClient.from_url(server.url, SERVICE, observer=observed)
        cpu = time.process_time()
        async with client.running(follow_batches if way == "batches" else follow_entries):
            await done.wait()
            cpu = time.process_time() - cpu
    return {"client us/entry": 1e6 * cpu / each}


SCENARIO = Scenario(
    name="observe",
    title="entries of one stream, read and checkpointed while somebody observes",
    contenders={
        "nobody": contender(process, observer="nobody"),
        "Observer()": contender(process, observer="nothing"),
        "OpenTelemetry, metrics": contender(process, observer="metrics"),
        "OpenTelemetry, a span for each step": contender(process, observer="spans"),
    },
    cases=({"way": "entries", "each": 20_000}, {"way": "batches", "each": 100_000}),
    ratio="client us/entry",
    timeout=120,
)
