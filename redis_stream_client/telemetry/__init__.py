"""Metrics and traces by OpenTelemetry; needs ``pip install redis-stream-client[otel]``.

    from redis_stream_client.telemetry import OpenTelemetry

    client = RedisStreamClient(redis, "orders", observer=OpenTelemetry())

`OpenTelemetry` says what is exported. `METRICS` is the table of all metrics.
"""

try:
    from opentelemetry import metrics as _metrics  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as _missing:
    raise ImportError(
        "redis_stream_client.telemetry needs OpenTelemetry: pip install redis-stream-client[otel]"
    ) from _missing

from redis_stream_client.telemetry.metrics import ATTRIBUTES, METRICS, Metric
from redis_stream_client.telemetry.open_telemetry import OpenTelemetry

for _ours in (Metric, OpenTelemetry):
    _ours.__module__ = __name__  # where users import it from

__all__ = ["ATTRIBUTES", "METRICS", "Metric", "OpenTelemetry"]
