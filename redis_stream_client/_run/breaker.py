"""The breaker: tells an outage of what handlers depend on from streams that nobody can process. Pure state.

One stream whose handler fails is at fault itself, as long as others progress. When handlers of several streams
fail and none progresses, something that they share is at fault. The breaker opens then: their failures do not
count, and the client starts one handler at a time, as a probe, until one of its streams progresses.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.notifier import Notifier

STREAMS = 3
"""Streams that must fail. One or two may be at fault themselves; they have the patience of `RetryPolicy`."""

WITHIN = 60.0
"""Seconds within which they must begin to fail; and after which an outage in which nothing fails is over."""

SURE = 1.0
"""Seconds that an outage lasts before the log tells of it. A busy process opens the breaker for an instant when
three streams fail between two checkpoints of others; that harms nothing, and nobody needs to read of it."""

FIRST_PROBE, LONGEST_PROBE = 0.25, 5.0
"""The first and the longest pause in seconds between two probes, which is how long everybody waits once the outage
is over. A probe that has not ended after the longest pause is not waited for."""

CHANCES = 3
"""How often others must progress between the failures of a stream until it is known to be at fault itself."""

FEW = 100
"""If only one in so many streams fails, or fewer, and no others join them for `WITHIN`, these are at fault
themselves: no other progresses since all others have nothing to do."""

REMEMBERED = 10_000
"""Streams that the breaker remembers."""

KINDS = 100
"""Kinds of errors that it tells apart."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An outage that was told of and is over.

    Attributes:
        lasted: seconds since the first failure.
        uncounted: failures that were not counted.
        progress: whether a stream has progressed; otherwise nothing fails any more, or the few that fail are at
            fault themselves.
    """

    lasted: float
    uncounted: int
    progress: bool


class Breaker:
    """What the handlers of one client have come to lately.

    Args:
        longest_pause: the most seconds between two probes.

    Attributes:
        changed: notified when it opens and when it closes.
    """

    def __init__(self, longest_pause: float = LONGEST_PROBE, now: Callable[[], float] = clock.now) -> None:
        self._now = now
        self._longest_probe = min(LONGEST_PROBE, longest_pause)
        self._pauses = Backoff(min(FIRST_PROBE, longest_pause), self._longest_probe)
        self._failing: OrderedDict[str, float] = OrderedDict()  # since others progressed: its first failure
        self._failed_last: OrderedDict[str, float] = OrderedDict()  # the newest failure of each, the oldest first
        self._chances: OrderedDict[str, int] = OrderedDict()  # how often others progressed after its failure
        self._errors: Counter[str] = Counter()
        self._texts: dict[str, str] = {}  # the newest one of each kind
        self._since: float | None = None
        self._open_until = float("-inf")
        self._joined_at = 0.0
        self._uncounted = 0
        self._told = False
        self._ended: Ended | None = None
        self._probe: str | None = None
        self._probe_at = 0.0
        self.changed = Notifier[[]]()

    # What handlers come to.

    def failed(self, stream: str, error: str) -> bool:
        """A handler has failed. Returns whether the log should show the error in full: not all of 10,000."""
        now = self._now()
        if stream == self._probe:
            self._next_probe_at(now + self._pauses.pause())
        if self._chances.get(stream, 0) >= CHANCES:
            return not self.open
        if not self.open:
            self._forget_until(now - WITHIN)
        if stream not in self._failing:
            self._failing[stream] = self._joined_at = now
            _bound(self._failing)
        self._failed_last[stream] = now
        self._failed_last.move_to_end(stream)
        _bound(self._failed_last)
        first_of_its_kind = self._note(error)
        if self.open:
            return first_of_its_kind
        if len(self._failing) >= STREAMS:
            self._open(now)
        return True

    def progressed(self, stream: str, began: float) -> None:
        """A checkpoint has advanced, or a handler has finished its stream.

        Args:
            began: when the work began that led to it. If that was before the others failed, they may have failed
                for what has happened since.
        """
        if not (self._failing or self._chances or self.open):
            return  # called for every checkpoint
        self._failing.pop(stream, None)
        self._failed_last.pop(stream, None)
        self._chances.pop(stream, None)
        first = self._since if self._since is not None else next(iter(self._failing.values()), None)
        if first is None or began < first:
            return
        for other in self._failing:
            self._blame(other, 1)
        self._close(progress=True)

    def counts(self, failed_at: float) -> bool:
        """Whether a failure counts, asked after the rest that follows it: there was no outage since."""
        if self.open or failed_at <= self._open_until:
            self._uncounted += 1
            return False
        return True

    # The outage.

    @property
    def open(self) -> bool:
        """Whether there is an outage."""
        return self._since is not None

    @property
    def since(self) -> float | None:
        """When the first of its streams failed; None: there is no outage."""
        return self._since

    @property
    def streams(self) -> int:
        """How many streams have failed since others progressed."""
        return len(self._failing)

    @property
    def error(self) -> str:
        """The newest error of the commonest kind."""
        return self._texts[max(self._errors, key=lambda kind: self._errors[kind])] if self._errors else ""

    @property
    def sure(self) -> bool:
        """Whether the outage has lasted so long that it is no coincidence."""
        return self._since is not None and self._now() - self._since >= SURE

    def look(self, held: int) -> None:
        """Time passes: see whether the outage is over although nothing progressed.

        Args:
            held: streams that have a handler here.
        """
        now = self._now()
        if not self.open or now - self._joined_at < WITHIN:
            return
        if len(self._failing) * FEW <= held:
            for stream in self._failing:
                self._blame(stream, CHANCES)
            self._close(progress=False)
        elif self._still_failing(now) < STREAMS:
            self._close(progress=False)

    def _still_failing(self, now: float) -> int:
        """How many streams have failed within `WITHIN`. The others are gone: to peers, or to the dead letters. One
        or two that are left are no outage, and their failures count, or they would go round for ever."""
        while self._failed_last and next(iter(self._failed_last.values())) <= now - WITHIN:
            self._failed_last.popitem(last=False)
        return len(self._failed_last)

    def tell_of_outage(self) -> bool:
        """Whether the log has to tell of an outage now: once of each."""
        tell = self.sure and not self._told
        self._told = self._told or tell
        return tell

    def tell_of_end(self) -> Ended | None:
        """The end of an outage that the log has to tell of now: once of each that was told of."""
        ended, self._ended = self._ended, None
        return ended

    # Probes.

    @property
    def may_start(self) -> bool:
        """Whether a handler may start now: in an outage, one at a time."""
        return not self.open or self._now() >= self._probe_at

    def started(self, stream: str) -> None:
        """A handler starts. In an outage, it is the probe."""
        if self.open:
            self._next_probe_at(self._now() + self._longest_probe)
            self._probe = stream

    @property
    def probe(self) -> str | None:
        """The stream that is probed now."""
        return self._probe

    def probe_now(self) -> None:
        """There is hope: a peer's handlers progress again."""
        self._pauses.reset()
        if self._probe is None:
            self._next_probe_at(self._now())

    def tells_nothing(self, stream: str) -> None:
        """A stream has nothing to do, or is gone, and its handler has neither failed nor progressed: if it was the
        probe, the next one may start."""
        if stream == self._probe:
            self._next_probe_at(self._now())

    def _next_probe_at(self, at: float) -> None:
        self._probe, self._probe_at = None, at

    # Inside.

    def _open(self, now: float) -> None:
        self._since = next(iter(self._failing.values()))
        self._uncounted, self._told = 0, False
        self._pauses.reset()
        self._next_probe_at(now + self._pauses.pause())
        self.changed.notify()

    def _close(self, *, progress: bool) -> None:
        since, self._since = self._since, None
        self._failing.clear()
        self._failed_last.clear()
        self._errors.clear()
        self._texts.clear()
        self._probe = None
        if since is None:
            return
        now = self._now()
        self._open_until = now
        if self._told:
            self._ended = Ended(now - since, self._uncounted, progress)
        self.changed.notify()

    def _forget_until(self, end: float) -> None:
        while self._failing and next(iter(self._failing.values())) < end:
            self._failing.popitem(last=False)
        if not self._failing:
            self._errors.clear()
            self._texts.clear()

    def _blame(self, stream: str, chances: int) -> None:
        self._chances[stream] = self._chances.get(stream, 0) + chances
        self._chances.move_to_end(stream)
        _bound(self._chances)

    def _note(self, error: str) -> bool:
        """Note the error. Returns whether it is the first of its kind."""
        kind = error.partition(":")[0]
        first = kind not in self._errors
        if not first or len(self._errors) < KINDS:
            self._errors[kind] += 1
            self._texts[kind] = error
            return first
        return False


def _bound(remembered: "OrderedDict[str, float] | OrderedDict[str, int]") -> None:
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
