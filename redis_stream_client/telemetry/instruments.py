"""Counters and histograms of what happens, made from the table of metrics."""

import functools
from typing import get_args, get_type_hints

from opentelemetry.metrics import Counter, Histogram, Meter

from redis_stream_client import Burial, Ending, Gain, Lapse, Loss
from redis_stream_client.telemetry import metrics
from redis_stream_client.telemetry.metrics import HOW, REASON, RESULT, SERVICE, Metric

ENDINGS = ("done", "released", "dead")
"""The reasons of leases that their holders ended: these are not lost."""


class Instruments:
    """The counters and histograms of one meter."""

    def __init__(self, meter: Meter) -> None:
        def counter(metric: Metric) -> Counter:
            return meter.create_counter(metric.name, metric.unit, metric.meaning)

        def histogram(metric: Metric) -> Histogram:
            return meter.create_histogram(
                metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.boundaries
            )

        self.gained: Counter = counter(metrics.GAINED)
        self.lost: Counter = counter(metrics.LOST)
        self.ended: Counter = counter(metrics.ENDED)
        self.claims: Counter = counter(metrics.CLAIMS)
        self.lapses: Counter = counter(metrics.LAPSES)
        self.failures: Counter = counter(metrics.FAILURES)
        self.letters: Counter = counter(metrics.LETTERS)
        self.sent: Counter = counter(metrics.SENT)
        self.recovery: Histogram = histogram(metrics.RECOVERY)
        self.handler: Histogram = histogram(metrics.HANDLER)
        self.lag: Histogram = histogram(metrics.LAG)
        self.process: Histogram = histogram(metrics.PROCESS)
        self.operations: Histogram = histogram(metrics.OPERATIONS)

    def begin(self, service: str) -> None:
        """Begin all counters of a service at 0, as far as their attributes are known.

        Prometheus sees no increase in a counter that begins at 1: the first dead letter would raise no alert.
        """
        for counter, attribute, words in (
            (self.gained, HOW, _words(Gain, "how")),
            (self.ended, HOW, _words(Ending, "how")),
            (self.lost, REASON, [word for word in _words(Loss, "reason") if word not in ENDINGS]),
            (self.lapses, REASON, _words(Lapse, "cause")),
            (self.letters, REASON, _words(Burial, "why")),
            (self.claims, RESULT, ("won", "lost")),
        ):
            for word in words:
                counter.add(0, {SERVICE: service, attribute: word})


@functools.cache
def _words(kind: type, attribute: str) -> tuple[str, ...]:
    """The words that an attribute of a value may have."""
    return get_args(get_type_hints(kind)[attribute])
