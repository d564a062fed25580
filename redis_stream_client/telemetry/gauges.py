"""What the clients say of themselves, as observable instruments."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from opentelemetry.metrics import CallbackOptions, CallbackT, Meter, Observation

from redis_stream_client import Statistics
from redis_stream_client.telemetry import metrics
from redis_stream_client.telemetry.clients import Clients
from redis_stream_client.telemetry.metrics import SERVICE, Metric

Number = int | float


class Reading(NamedTuple):
    """A metric, how to read it off the statistics of one client, and what several clients of a service make."""

    metric: Metric
    read: Callable[[Statistics], Number | None]
    of_many: Callable[[Sequence[Number]], Number] = sum


READINGS = (
    Reading(metrics.LEASES, lambda said: said.leases),
    Reading(metrics.HANDLERS, lambda said: said.handlers),
    Reading(metrics.SUSPECTS, lambda said: said.suspects),
    Reading(metrics.UNREAD_EVENTS, lambda said: said.unread_events),
    Reading(metrics.FAILING, lambda said: len(said.failing)),
    Reading(metrics.GOING, lambda said: said.streams_going),
    Reading(metrics.UNSETTLED, lambda said: said.records_unsettled),
    Reading(metrics.MEMBERS, lambda said: said.live_members, max),
    Reading(metrics.OUTAGE, lambda said: int(said.outage is not None), max),
    Reading(metrics.PAUSED, lambda said: int(said.paused is not None)),
    Reading(metrics.PRESENT, lambda said: int(said.presence.state == "declared")),
    Reading(metrics.SINCE_BEAT, lambda said: said.last_beat_age, max),
    Reading(metrics.OLDEST_ANNOUNCEMENT, lambda said: said.oldest_announcement or 0.0, max),
    Reading(metrics.OLDEST_UNHANDLED, lambda said: said.oldest_unhandled or 0.0, max),
    Reading(metrics.OLDEST_WAKEUP, lambda said: said.oldest_wakeup or 0.0, max),
)


def create(meter: Meter) -> Clients:
    """Have these metrics exported with whatever `meter` exports. Returns those whose metrics they are."""
    clients = Clients()
    for reading in READINGS:
        metric, callbacks = reading.metric, [_callback(reading, clients)]
        if metric.kind == "gauge":
            meter.create_observable_gauge(metric.name, callbacks, metric.unit, metric.meaning)
        else:
            meter.create_observable_up_down_counter(metric.name, callbacks, metric.unit, metric.meaning)
    return clients


def _callback(reading: Reading, clients: Clients) -> CallbackT:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        values = defaultdict[str, list[Number]](list)
        for service, statistics in clients.snapshots():
            if (value := reading.read(statistics)) is not None:
                values[service].append(value)
        return [Observation(reading.of_many(each), {SERVICE: service}) for service, each in values.items()]

    return observe
