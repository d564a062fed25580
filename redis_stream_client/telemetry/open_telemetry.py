"""The observer that exports metrics and traces by OpenTelemetry."""

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, NoReturn

from opentelemetry import metrics as metrics_api
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from redis_stream_client import (
    Burial,
    Checkpoint,
    ClaimLost,
    Ending,
    Entry,
    Failure,
    Fleet,
    Gain,
    HandlerEnd,
    HandlerStart,
    Lapse,
    Loss,
    Membership,
    Observer,
    Sending,
    __version__,
)
from redis_stream_client.telemetry import gauges, metrics, trace_context
from redis_stream_client.telemetry.clients import Clients
from redis_stream_client.telemetry.fleets import Fleets
from redis_stream_client.telemetry.handling import Handling, current
from redis_stream_client.telemetry.instruments import Instruments
from redis_stream_client.telemetry.metrics import (
    DESTINATION,
    ERROR,
    GROUP,
    HOW,
    OUTCOME,
    REASON,
    RESULT,
    SERVICE,
    SYSTEM,
)
from redis_stream_client.telemetry.producing import Producing
from redis_stream_client.telemetry.spans import HandlerSpans
from redis_stream_client.telemetry.tallies import Tallies, Tally

FAILED = ("failed", "stalled", "dead")
"""The outcomes that are failures of a handler."""

SCHEMA = f"https://opentelemetry.io/schemas/{metrics.SEMANTIC_CONVENTIONS}"

CLAIMED = ("claimed", "rebalanced")
"""How a member came by what had an owner before."""

MOST_CONSUMERS = 10_000
"""Clients that are remembered. What becomes of the work of a client may be said after it has left."""


class OpenTelemetry(Observer):
    """Exports metrics and traces of clients and producers by OpenTelemetry.

    One serves them all::

        telemetry = OpenTelemetry()
        client = RedisStreamClient(redis, "orders", observer=telemetry)
        producer = LoadBalancerStream(redis, "orders", observer=telemetry)

    Set up the SDK and its exporters in your application, before or after you make this; without them nothing is
    exported. One instance may serve all clients and producers of a process.

    **Metrics.** ``redis_stream_client.telemetry.METRICS`` is the table of them. All have the name of the service
    as an attribute. None has the name of a stream, the id of an entry, or the id of a consumer, which is a new one
    in each process. Members are told apart by what your exporter says of the process, such as
    ``service.instance.id``, or ``instance`` in Prometheus. Several clients of one service in a process are added
    up, or the worst one counts. Whoever collects asks each client on its event loop, which takes some milliseconds
    with 10,000 leases. If a loop does not answer within half a second, the last answer stands.

    **Traces.** A handler of `run()` has a span, ``handle orders``, which is current while it runs. It begins a
    trace of its own, with a link to the span in which the stream was announced, if the producer had an
    `OpenTelemetry`, too. Its attribute ``redis_stream_client.outcome`` says how it ended, in the words of
    `HandlerEnd.outcome`. If it failed, its status is an error, with the exception. A handler may live for days,
    and a span is only seen when it ends. So at the first step of ``entries()`` or ``batches()`` after
    `longest_span` seconds, the span ends as ``continued``, and the next one begins, with a link to it. The time
    for which the handler waited at the end of such a span is not part of it.

    An entry whose field ``traceparent`` names a span gets a link from the handler's span, up to 100 of them. The
    fields are yours, so nothing adds that field by itself: use
    ``producer.write("call-17", {**fields, **telemetry.carrier()})``.

    With `process_entries`, each step has a span, ``process orders``: from the return of an entry, or batch, to the
    next step. It is current meanwhile, begins a trace of its own, so that it is sampled by itself, and has links
    to the handler's span and to those that wrote its entries.

    Calls of ``LoadBalancerStream.add`` and ``write`` have spans, too, and so do ``add_many`` and ``write_many``.

    Args:
        meter_provider: makes the metrics; default: the global one.
        tracer_provider: makes the spans; default: the global one.
        process_entries: whether each entry, or batch, has a span.
        longest_span: seconds after which the span of a handler ends at a step; default 600.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        process_entries: bool = False,
        longest_span: float = 600.0,
    ) -> None:
        if not isinstance(process_entries, bool):
            raise TypeError(f"process_entries must be a bool, not {type(process_entries).__name__}")
        if isinstance(longest_span, bool) or not isinstance(longest_span, int | float):
            raise TypeError(f"longest_span must be a number of seconds, not {type(longest_span).__name__}")
        if not longest_span > 0:
            raise ValueError(f"longest_span must be greater than 0, not {longest_span}")
        meter = metrics_api.get_meter(metrics.OURS, __version__, meter_provider, SCHEMA)
        self._instruments = Instruments(meter)
        key = _GLOBAL if meter_provider in (None, metrics_api.get_meter_provider()) else meter_provider
        if (observed := _observed.get(key)) is None:
            observed = _observed[key] = _Observed(gauges.create(meter), Fleets(meter), Tallies(meter))
        self._clients, self._fleets, self._tallies = observed
        self._tracer = trace.get_tracer(metrics.OURS, __version__, tracer_provider, SCHEMA)
        self._process_entries = process_entries
        self._longest_span = float(longest_span)
        self._consumers: dict[str, _Consumer] = {}
        self._at_work: dict[HandlerStart, Handling] = {}

    # The clients.

    def joined(self, membership: Membership) -> None:
        """The client is there: its statistics are exported from now on."""
        self._known(membership.consumer, membership.service)
        self._instruments.begin(membership.service)
        self._clients.add(membership)

    def left(self, membership: Membership) -> None:
        """It is gone."""
        self._clients.remove(membership)
        if (known := self._consumers.get(membership.consumer)) is not None:
            self._tallies.remove(known.tally)

    # The fleet from outside.

    async def watch(self, fleet: Fleet, *, every: float = 15.0, lag: bool = False) -> NoReturn:
        """Look at a fleet again and again, and export what is seen, until you cancel it.

        Do this in one process, best in another one than the members, so that somebody says it if there are none.
        While Redis does not answer, or refuses, ``redis_stream_client.fleet.up`` is 0, and the rest is missing.

        Args:
            fleet: what to look at; see `Fleet` for what it costs and which permissions it needs.
            every: seconds between two looks; default 15.
            lag: whether to look at how far all announced streams are behind, too, which costs much more:
                `Fleet.lag`. Default False.
        """
        if not every > 0:
            raise ValueError(f"every must be greater than 0, not {every}")
        await self._fleets.watch(fleet, every=every, lag=lag)

    # Owners.

    def gained(self, gain: Gain) -> None:
        """Count it; one that was taken over is a claim that was won."""
        ours = self._ours(gain.consumer)
        self._instruments.gained.add(1, {**ours, HOW: gain.how})
        if gain.how in CLAIMED:
            self._instruments.claims.add(1, {**ours, RESULT: "won"})

    def claim_lost(self, claim: ClaimLost) -> None:
        """Count it."""
        self._instruments.claims.add(1, {**self._ours(claim.consumer), RESULT: "lost"})

    def lost(self, loss: Loss) -> None:
        """Count it."""
        self._instruments.lost.add(1, {**self._ours(loss.consumer), REASON: loss.reason})

    def ended(self, ending: Ending) -> None:
        """Count it."""
        self._instruments.ended.add(1, {**self._ours(ending.consumer), HOW: ending.how})

    def lapsed(self, lapse: Lapse) -> None:
        """Count it."""
        self._instruments.lapses.add(1, {**self._ours(lapse.consumer), REASON: lapse.cause})

    # Handlers.

    def handling(self, start: HandlerStart) -> AbstractContextManager[None]:
        """Begin the spans of a handler. If its stream was taken over, the recovery is over."""
        gain = start.gain
        ours = self._ours(start.consumer)
        if gain is not None and gain.silent_for is not None:
            self._instruments.recovery.record(gain.silent_for + start.waited, {**ours, HOW: gain.how})
        spans = HandlerSpans(
            self._tracer,
            ours[SERVICE],
            self._of_span(start),
            trace_context.of_announcement(gain.carrier) if gain is not None else None,
            each_step=self._process_entries,
            longest=self._longest_span,
        )
        handling = Handling(spans, self._instruments.process, self._of(start.consumer).processing)
        self._at_work[start] = handling
        return handling

    def asked(self, consumer: str, stream: str) -> None:
        """The handler has done with an entry, or a batch."""
        if (handling := current()) is not None:
            handling.asked()

    def received(self, consumer: str, stream: str, entries: Sequence[Entry]) -> None:
        """Somebody has an entry, or a batch."""
        self._of(consumer).tally.entries += len(entries)
        if (handling := current()) is not None:
            handling.received(entries)

    def handler_ended(self, end: HandlerEnd) -> None:
        """End the span of the handler."""
        failed = end.outcome in FAILED
        self._instruments.handler.record(end.seconds, {**self._ours(end.start.consumer), OUTCOME: end.outcome})
        if (handling := self._at_work.pop(end.start, None)) is not None:
            handling.ended(end.outcome, end.error, failed=failed)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Count it, and how late it is."""
        known = self._of(checkpoint.consumer)
        known.tally.checkpoints += 1
        self._instruments.lag.record(checkpoint.lag, known.ours)

    def failed(self, failure: Failure) -> None:
        """Count it."""
        error = "stalled" if failure.stalled else failure.error
        self._instruments.failures.add(1, {**self._ours(failure.consumer), ERROR: error})

    def buried(self, burial: Burial) -> None:
        """Count it."""
        self._instruments.letters.add(1, {**self._ours(burial.consumer), REASON: burial.why})

    # Producers.

    def sending(self, sending: Sending) -> AbstractContextManager[None]:
        """A span around a call of a producer."""
        return Producing(self._tracer, self._instruments, sending)

    def carrier(self) -> dict[str, str]:
        """The current span, in the words of the W3C: ``traceparent``, and ``tracestate`` if there is any.

        Add it to the fields of an entry, to have a link to that span where the entry is processed.
        """
        return trace_context.carrier()

    # Inside.

    def _ours(self, consumer: str) -> dict[str, str]:
        return self._of(consumer).ours

    def _of(self, consumer: str) -> "_Consumer":
        """What is known of a client. Of those in ``redis_stream_client.testing`` the service is not known."""
        return self._consumers.get(consumer) or self._known(consumer, "")

    def _known(self, consumer: str, service: str) -> "_Consumer":
        known = self._consumers[consumer] = _Consumer(
            {SERVICE: service}, metrics.processing(service), self._tallies.add(service)
        )
        if len(self._consumers) > MOST_CONSUMERS:
            self._tallies.remove(self._consumers.pop(next(iter(self._consumers))).tally)
        return known

    def _of_span(self, start: HandlerStart) -> dict[str, str | int]:
        """The attributes of spans, which may have many values, unlike those of metrics."""
        service = self._ours(start.consumer)[SERVICE]
        attributes: dict[str, str | int] = {
            SERVICE: service,
            SYSTEM: "redis",
            GROUP: service,
            DESTINATION: start.stream,
            "messaging.client.id": start.consumer,
            f"{metrics.OURS}.lbs_id": start.lbs_id,
            f"{metrics.OURS}.fence": str(start.fence),
            f"{metrics.OURS}.attempts": start.attempts,
        }
        if start.gain is not None:
            attributes[HOW] = start.gain.how
            if start.gain.previous is not None:
                attributes[f"{metrics.OURS}.previous_owner"] = start.gain.previous
        return attributes


class _Observed(NamedTuple):
    """What the observable instruments of a provider look at."""

    clients: Clients
    fleets: Fleets
    tallies: Tallies


class _Consumer(NamedTuple):
    """What is remembered of one client.

    Attributes:
        ours: the attributes of metrics of our own.
        processing: those of metrics by the semantic conventions.
        tally: what is counted here.
    """

    ours: dict[str, str]
    processing: dict[str, str]
    tally: Tally


class _Global:
    """Stands for the global provider, which is another object before it is set."""


_GLOBAL = _Global()
_observed: weakref.WeakKeyDictionary[MeterProvider | _Global, _Observed] = weakref.WeakKeyDictionary()
"""A provider makes an instrument once, with the callbacks of that time, whoever else asks for it later."""
