"""What happens once for each entry, counted here: to add to a counter of an SDK takes longer than an entry may.

The sums are exported as observable instruments.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, CallbackT, Meter, Observation

from redis_stream_client.telemetry import metrics
from redis_stream_client.telemetry.metrics import SERVICE, processing


class Tally:
    """The counts of one client. Only its event loop changes them, so nothing is lost between threads."""

    __slots__ = ("checkpoints", "entries", "service")

    def __init__(self, service: str) -> None:
        self.service: str = service
        self.entries: int = 0
        self.checkpoints: int = 0


class Tallies:
    """The counts of all clients, also of those that have left."""

    def __init__(self, meter: Meter) -> None:
        self._members: list[Tally] = []
        self._left = (Counter[str](), Counter[str]())
        self._lock = threading.Lock()
        for metric, callback in (
            (metrics.CONSUMED, self._callback(0, processing)),
            (metrics.CHECKPOINTS, self._callback(1, lambda service: {SERVICE: service})),
        ):
            meter.create_observable_counter(metric.name, [callback], metric.unit, metric.meaning)

    def add(self, service: str) -> Tally:
        """Begin to count for another client."""
        tally = Tally(service)
        with self._lock:
            self._members.append(tally)
        return tally

    def remove(self, tally: Tally) -> None:
        """A client has left: its counts stay in the sums."""
        with self._lock:
            if tally in self._members:
                self._members.remove(tally)
                for sums, count in zip(self._left, (tally.entries, tally.checkpoints), strict=True):
                    sums[tally.service] += count

    def _callback(self, which: int, attributes: Callable[[str], dict[str, str]]) -> CallbackT:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                sums = self._left[which].copy()
                for tally in self._members:
                    sums[tally.service] += (tally.entries, tally.checkpoints)[which]
            return [Observation(count, attributes(service)) for service, count in sums.items()]

        return observe
