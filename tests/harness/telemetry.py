"""What OpenTelemetry's SDK has collected: metrics by name and attributes, and spans that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from redis_stream_client.telemetry import OpenTelemetry, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self

    from opentelemetry.sdk.trace import ReadableSpan

    from redis_stream_client.telemetry import Metric

Point = NumberDataPoint | HistogramDataPoint


class Collector:
    """Collects in memory what the observer `telemetry` exports."""

    def __init__(self, **options: Any) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = OpenTelemetry(meter_provider=self.meters, tracer_provider=self.tracers, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.meters.shutdown()
        self.tracers.shutdown()

    def points(self) -> Iterator[tuple[str, Point]]:
        """Everything that the metrics say now, each with the name of its metric."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        assert isinstance(point, Point)
                        yield metric.name, point

    def value(self, metric: Metric, **attributes: str) -> float | None:
        """The value of a metric, or how many values a histogram has; None: there is none.

        Name attributes as they are named in `redis_stream_client.telemetry.metrics`: `how`, `reason`, `error` …
        """
        wanted = {getattr(metrics, name.upper()): value for name, value in attributes.items()}
        found = [
            point.count if isinstance(point, HistogramDataPoint) else point.value
            for name, point in self.points()
            if name == metric.name and wanted.items() <= (point.attributes or {}).items()
        ]
        return sum(found) if found else None

    def seconds(self, metric: Metric) -> float:
        """The sum of all that a histogram has."""
        points = [point for name, point in self.points() if name == metric.name]
        return sum(point.sum for point in points if isinstance(point, HistogramDataPoint))

    def spans(self, name: str) -> list[ReadableSpan]:
        """The spans that have ended whose names begin so, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]
