"""Watches a fleet from outside, for the alerts that must come when no worker is left to say anything.

    REDIS_URL=redis://localhost SERVICES=orders,chats python examples/observability/watch.py

It is no member, and only reads. One of them is enough; two do no harm. See http://localhost:9465/metrics
(METRICS_PORT says another one).
"""

import asyncio
import logging
import os

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from redis.asyncio import Redis

from redis_stream_client import Fleet
from redis_stream_client.telemetry import OpenTelemetry

log = logging.getLogger("watch")


async def watch(url: str, services: list[str]) -> None:
    """Look at the fleets again and again."""
    telemetry = OpenTelemetry()
    async with Redis.from_url(url) as redis, asyncio.TaskGroup() as tasks:
        for service in services:
            tasks.create_task(telemetry.watch(Fleet(redis, service), every=15.0, lag=True))


def main() -> None:
    """Watch until somebody interrupts it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    server, _ = start_http_server(int(os.environ.get("METRICS_PORT", "9465")))
    log.info("metrics at http://localhost:%d/metrics", server.server_port)
    url = os.environ.get("REDIS_URL", "redis://localhost")
    asyncio.run(watch(url, os.environ.get("SERVICES", "orders").split(",")))


if __name__ == "__main__":
    main()
