"""The fleet seen from outside, as observable instruments: what no member can say, such as that there is none."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from opentelemetry.metrics import CallbackOptions, CallbackT, Meter, Observation

from redis_stream_client import Fleet, FleetMember, FleetStatus, Lag, RedisRejected, RedisUnavailable
from redis_stream_client.telemetry import metrics
from redis_stream_client.telemetry.metrics import SERVICE, STATE, Metric

Seen = Iterator[tuple[str | None, float]]
"""Values, each with its state; None: the metric has none."""


@dataclass(slots=True)
class Look:
    """What was seen of one service last; None: Redis did not answer."""

    status: FleetStatus | None = None
    lag: Lag | None = None


def _up(look: Look) -> Seen:
    yield None, int(look.status is not None)


def _members(look: Look) -> Seen:
    if look.status is not None:
        found = Counter(_state(member) for member in look.status.members)
        for state in ("alive", "draining", "dead"):
            yield state, found[state]


def _state(member: FleetMember) -> str:
    if not member.alive:
        return "dead"
    return "draining" if member.draining else "alive"


def _announcements(look: Look) -> Seen:
    if look.status is not None:
        yield "waiting", look.status.waiting
        yield "owned", look.status.owned
        yield "orphaned", look.status.orphaned


def _waiting(look: Look) -> Seen:
    if look.status is not None:
        yield None, look.status.oldest_waiting or 0.0


def _orphaned(look: Look) -> Seen:
    if look.status is not None:
        yield None, look.status.orphaned_for or 0.0


def _paused(look: Look) -> Seen:
    if look.status is not None:
        paused = look.status.paused
        yield None, max(0.0, look.status.time - paused.since) if paused is not None else 0.0


def _letters(look: Look) -> Seen:
    if look.status is not None and look.status.dead_letters is not None:
        yield None, look.status.dead_letters


def _lag(look: Look) -> Seen:
    if look.lag is not None:
        yield None, look.lag.behind


def _entries(look: Look) -> Seen:
    if look.lag is not None:
        yield None, look.lag.entries


READINGS: tuple[tuple[Metric, Callable[[Look], Seen]], ...] = (
    (metrics.FLEET_UP, _up),
    (metrics.FLEET_MEMBERS, _members),
    (metrics.FLEET_ANNOUNCEMENTS, _announcements),
    (metrics.FLEET_WAITING, _waiting),
    (metrics.FLEET_ORPHANED, _orphaned),
    (metrics.FLEET_PAUSED, _paused),
    (metrics.FLEET_LETTERS, _letters),
    (metrics.FLEET_LAG, _lag),
    (metrics.FLEET_BEHIND, _entries),
)


class Fleets:
    """The fleets that are watched, by the names of their services."""

    def __init__(self, meter: Meter) -> None:
        self._looks: dict[str, Look] = {}
        for metric, read in READINGS:
            meter.create_observable_gauge(metric.name, [self._callback(read)], metric.unit, metric.meaning)

    async def watch(self, fleet: Fleet, *, every: float, lag: bool) -> NoReturn:
        """Look again and again, until it is cancelled."""
        try:
            while True:
                began = time.monotonic()
                self._looks[fleet.service] = await _look(fleet, lag=lag)
                await asyncio.sleep(max(0.0, began + every - time.monotonic()))
        finally:
            self._looks.pop(fleet.service, None)

    def _callback(self, read: Callable[[Look], Seen]) -> CallbackT:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, {SERVICE: service} if state is None else {SERVICE: service, STATE: state})
                for service, look in self._looks.copy().items()
                for state, value in read(look)
            ]

        return observe


async def _look(fleet: Fleet, *, lag: bool) -> Look:
    try:
        return Look(await fleet.status(), await fleet.lag() if lag else None)
    except (RedisUnavailable, RedisRejected):
        return Look()
