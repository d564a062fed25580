"""A worker whose metrics Prometheus can scrape, and whose spans are printed on request.

    pip install redis-stream-client[otel] opentelemetry-sdk opentelemetry-exporter-prometheus
    REDIS_URL=redis://localhost SERVICE=orders python examples/observability/worker.py

See http://localhost:9464/metrics (METRICS_PORT says another one). SPANS=1 prints the spans; in production, put an
OTLPSpanExporter in the place of the ConsoleSpanExporter, or leave the set-up to `opentelemetry-instrument`.
"""

import asyncio
import logging
import os
import socket

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from prometheus_client import start_http_server

from redis_stream_client import Lease, RedisStreamClient
from redis_stream_client.telemetry import OpenTelemetry

log = logging.getLogger("worker")


def set_up() -> None:
    """Say where metrics and spans go. The library only uses what is set up here."""
    who = Resource.create(
        {"service.name": "worker", "service.instance.id": f"{socket.gethostname()}-{os.getpid()}"}
    )
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], who))
    server, _ = start_http_server(int(os.environ.get("METRICS_PORT", "9464")))
    log.info("metrics at http://localhost:%d/metrics", server.server_port)
    if os.environ.get("SPANS"):
        spans = TracerProvider(resource=who)
        spans.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
        trace.set_tracer_provider(spans)


async def handle(lease: Lease) -> None:
    """Process one data stream. The handler's span is current here: other instrumentations make its children."""
    async for entry in lease.entries():
        log.info("%s: %s", lease.stream, entry.text())
        await lease.checkpoint(entry.id)
        if entry.fields.get(b"type") == b"end":
            return


def main() -> None:
    """Work until a signal comes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    set_up()
    client = RedisStreamClient.from_url(
        os.environ.get("REDIS_URL", "redis://localhost"),
        os.environ.get("SERVICE", "orders"),
        observer=OpenTelemetry(process_entries=True),
    )
    asyncio.run(client.run(handle, handle_signals=True))


if __name__ == "__main__":
    main()
