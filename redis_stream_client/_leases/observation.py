"""Observation: tells an observer of leases. Made only where there is an observer."""

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.lock_state import LapseCause
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.entry import Entry, order
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.failures import class_name
from redis_stream_client._model.observer import (
    Burial,
    BuriedFor,
    Checkpoint,
    ClaimLost,
    EndedBy,
    Ending,
    Failure,
    Gain,
    GainedBy,
    HandlerEnd,
    HandlerStart,
    Lapse,
    Loss,
    Observer,
    follows_steps,
)
from redis_stream_client._model.orders import Pause


@dataclass(slots=True)
class _Watched:
    """What is remembered of a lease.

    Attributes:
        gain: how it was gained, and when.
        handed_over: how many entries its user had at the last checkpoint.
        start: of its handler, and when.
        seconds: how long the handler ran.
    """

    gain: Gain | None = None
    gained_at: float = 0.0
    handed_over: int = 0
    start: HandlerStart | None = None
    seconds: float = 0.0


class Observation:
    """Tells the observer of one client's leases. It never raises.

    Args:
        observer: the observer.
        consumer: id of the client.
    """

    def __init__(self, observer: Observer, consumer: str) -> None:
        self._observer = observer
        self._consumer = consumer
        self._watched: dict[LeaseState, _Watched] = {}  # those that are held, or whose handler has not ended
        self._pause: Pause | None = None
        self.follows_steps: bool = follows_steps(observer)

    @property
    def watched(self) -> int:
        """Of how many leases something is remembered."""
        return len(self._watched)

    # Owners.

    def gained(
        self,
        lease: LeaseState,
        how: GainedBy,
        *,
        previous: str | None = None,
        silent_for: float | None = None,
        carrier: Mapping[str, str],
    ) -> None:
        """This client owns another stream."""
        gain = Gain(self._consumer, lease.stream, lease.lbs_id, lease.fence, how, previous, silent_for, carrier)
        self._watched[lease] = _Watched(gain, clock.now())
        self._observer.gained(gain)

    def lost(self, lease: LeaseState, reason: LossReason, to: str | None) -> None:
        """A lease is lost."""
        self._over(lease)
        self._observer.lost(Loss(self._consumer, lease.stream, lease.lbs_id, lease.fence, reason, to))

    def ended(self, lease: LeaseState, how: EndedBy) -> None:
        """A lease has ended because its holder said so."""
        self._over(lease)
        self._observer.ended(Ending(self._consumer, lease.stream, lease.lbs_id, lease.fence, how))

    def claim_lost(self, stream: str, lbs_id: str, owner: str | None) -> None:
        """A claim was refused."""
        self._observer.claim_lost(ClaimLost(self._consumer, stream, lbs_id, owner))

    def lapsed(self, cause: LapseCause) -> None:
        """The consumer lock has lapsed."""
        self._observer.lapsed(Lapse(self._consumer, cause))

    def pause_is(self, pause: Pause | None) -> None:
        """This is the pause that operators have ordered; None: there is none. Tells of what has changed."""
        before, self._pause = self._pause, pause
        if before is not None and (pause is None or pause.since != before.since):
            self._observer.resumed(self._consumer, before)
        if pause is not None and (before is None or pause.since != before.since):
            self._observer.paused(self._consumer, pause)

    # Handlers.

    @contextlib.contextmanager
    def handling(self, lease: LeaseState) -> Generator[None]:
        """Surround the handler of a lease."""
        watched = self._watched.setdefault(lease, _Watched())
        began = clock.now()
        start = watched.start = HandlerStart(
            self._consumer,
            lease.stream,
            lease.lbs_id,
            lease.fence,
            lease.info,
            lease.tries,
            watched.gain,
            began - watched.gained_at if watched.gain is not None else 0.0,
        )
        self._observer.handler_started(start)
        try:
            with self._observer.handling(start):
                yield
        finally:
            watched.seconds = clock.now() - began

    def handler_ended(self, lease: LeaseState, outcome: str, error: BaseException | None) -> None:
        """The work on a lease has ended. Does nothing the second time, or if its handler was not called."""
        watched = self._watched.get(lease)
        if watched is None or watched.start is None:
            return
        start, watched.start = watched.start, None
        if lease.lost is not None:
            del self._watched[lease]
        self._observer.handler_ended(HandlerEnd(start, outcome, watched.seconds, error))

    # Steps; only if `follows_steps`.

    def asked(self, lease: LeaseState) -> None:
        """A step of ``entries()`` or ``batches()`` begins."""
        self._observer.asked(self._consumer, lease.stream)

    def received(self, lease: LeaseState, entries: Sequence[Entry]) -> None:
        """It returns these."""
        self._observer.received(self._consumer, lease.stream, entries)

    def checkpointed(self, lease: LeaseState, id: str, handed_over: int) -> None:
        """The checkpoint of a lease has advanced. `handed_over`: entries that the user had when it was sent."""
        watched = self._watched.get(lease) or _Watched()
        entries, watched.handed_over = max(0, handed_over - watched.handed_over), handed_over
        lag = max(0.0, time.time() - order(id)[0] / 1000)
        self._observer.checkpoint(
            Checkpoint(self._consumer, lease.stream, lease.lbs_id, lease.fence, id, entries, lag)
        )

    def failed(self, lease: LeaseState, error: BaseException | None, *, stalled: bool) -> None:
        """The handler of a lease has failed."""
        name = class_name(error) if error is not None and not stalled else ""
        self._observer.failed(
            Failure(self._consumer, lease.stream, lease.lbs_id, lease.fence, stalled, name, lease.failures)
        )

    def buried(self, lbs_id: str, why: BuriedFor, stream: str | None = None, error: str | None = None) -> None:
        """An announcement went to the dead letters."""
        self._observer.buried(Burial(self._consumer, stream, lbs_id, why, error or ""))

    def _over(self, lease: LeaseState) -> None:
        """Forget a lease that has ended, unless its handler goes on."""
        watched = self._watched.get(lease)
        if watched is not None and watched.start is None:
            del self._watched[lease]
