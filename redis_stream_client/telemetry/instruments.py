"""Counters and histograms of what happens, made from the table of metrics."""

from opentelemetry.metrics import Counter, Histogram, Meter

from redis_stream_client.telemetry import metrics
from redis_stream_client.telemetry.metrics import Metric


class Instruments:
    """The counters and histograms of one meter."""

    def __init__(self, meter: Meter) -> None:
        def counter(metric: Metric) -> Counter:
            return meter.create_counter(metric.name, metric.unit, metric.meaning)

        def histogram(metric: Metric) -> Histogram:
            return meter.create_histogram(
                metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.boundaries
            )

        self.gained = counter(metrics.GAINED)
        self.lost = counter(metrics.LOST)
        self.ended = counter(metrics.ENDED)
        self.claims = counter(metrics.CLAIMS)
        self.lapses = counter(metrics.LAPSES)
        self.failures = counter(metrics.FAILURES)
        self.letters = counter(metrics.LETTERS)
        self.sent = counter(metrics.SENT)
        self.recovery = histogram(metrics.RECOVERY)
        self.handler = histogram(metrics.HANDLER)
        self.lag = histogram(metrics.LAG)
        self.process = histogram(metrics.PROCESS)
        self.operations = histogram(metrics.OPERATIONS)
