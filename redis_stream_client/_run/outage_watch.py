"""What follows from the breaker: how many streams the client takes, what the log says, what counts."""

import time

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.log_fields import LogFields
from redis_stream_client._model.statistics import Outage
from redis_stream_client._redis.outage import REMIND, Outages
from redis_stream_client._redis.wordings import Wording
from redis_stream_client._run.breaker import FIRST_PROBE, WITHIN, Breaker
from redis_stream_client._run.handler_task import HandlerTask

ROUND = 0.25
"""Seconds without a stream to try after which all had their turn."""

TICK = 0.05
"""Seconds between two looks while there is an outage."""


HANDLERS = Wording(
    "handlers",
    "the handlers of %(streams)d streams fail and none progresses, as in an outage of what they depend on",
    "until one progresses, failures do not count, and one stream is tried at a time; look at what they depend on",
    "handlers progress again",
)
STUCK = Wording(
    "stuck handlers",
    "handlers go on though they were cancelled (%(streams)d)",
    "their streams go on without them, and they count for max_streams until they end; look for code in them that "
    "swallows CancelledError",
    "no handler goes on any more that was cancelled",
)


class OutageWatch:
    """A `Judge` of all handlers of one client: whether a failure is the stream's own, or one of many in an outage.

    In an outage the client takes no streams but one at a time, as a probe. What has failed is released, and
    what waits for its handler, too: peers may be better off. It does not depend on them: when its own probe
    progresses, or a stream that was at work before, everything goes on.

    Attributes:
        recovered: notified when handlers progress again after an outage that the log has told of.
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        outages: Outages,
        capacity: Capacity,
        event_queue: EventQueue,
        sweeps: SweepSchedule,
        peers: Peers,
    ) -> None:
        self._breaker = breaker
        self._stuck: dict[LeaseState, float] = {}
        self._stuck_handlers = outages.watch(STUCK, lambda: {"streams": len(self._stuck)}, least=REMIND)
        self._outage = outages.watch(HANDLERS, self._details)
        self._capacity = capacity
        self._event_queue = event_queue
        self._sweeps = sweeps
        self._probe: HandlerTask | None = None
        self._nobody_since: float | None = None  # since when a probe may start, and nobody is there
        self.recovered = Notifier[[]]()
        breaker.changed.add(self._changed)
        peers.recovered.add(breaker.probe_now)

    # What handlers come to.

    def failed(self, lease: LeaseState, error: str) -> bool:
        """The handler of a stream has failed. Returns whether the log should show the error in full."""
        return self._breaker.failed(lease.stream, error)

    def progressed(self, lease: LeaseState) -> None:
        """The handler of a stream has finished it, or its checkpoint has advanced."""
        self._breaker.progressed(lease.stream, lease.progress_at)

    def counts(self, failed_at: float) -> bool:
        """Whether a failure counts, asked after the rest that follows it."""
        return self._breaker.counts(failed_at)

    # The outage.

    @property
    def open(self) -> bool:
        """Whether there is one."""
        return self._breaker.open

    @property
    def outage(self) -> Outage | None:
        """The outage that the log has told of, as users see it."""
        since = self._breaker.since
        if since is None or not self._breaker.sure:
            return None
        return Outage(self._wall_clock(since), self._breaker.streams, self._breaker.error)

    @property
    def sure(self) -> bool:
        """Whether it has lasted so long that it is no coincidence."""
        return self._breaker.sure

    @property
    def may_start(self) -> bool:
        """Whether a handler may start now."""
        return self._breaker.may_start

    def started(self, handler_task: HandlerTask) -> None:
        """A handler is started."""
        if self._breaker.open:
            self._breaker.started(handler_task.lease.stream)
            self._probe = handler_task
            self._capacity.slow_down(0)

    def left_to_others(self, lease: LeaseState) -> float:
        """Seconds for which this client does not take a stream again whose failure did not count.

        In an outage, that is until all that wait had their turn. Otherwise one that always fails would be each
        probe, and the outage never over.
        """
        return WITHIN if self._breaker.open else 0.0

    def ended(self, lease: LeaseState) -> None:
        """The work on a stream has ended, or rests."""
        self._breaker.tells_nothing(lease.stream)

    def stuck(self, lease: LeaseState, *, since: float) -> None:
        """See `Judge`. The first one is what the log says if it lasts."""
        self._stuck[lease] = since
        self._tell_of_stuck()

    def unstuck(self, lease: LeaseState) -> None:
        """See `Judge`."""
        if self._stuck.pop(lease, None) is not None:
            self._tell_of_stuck()

    def _tell_of_stuck(self) -> None:
        if not self._stuck:
            self._stuck_handlers.ended()
            return
        lease, since = next(iter(self._stuck.items()))
        self._stuck_handlers.began(f"the first is that of {lease.stream}", since)

    def look(self, working: int) -> None:
        """Time passes.

        Args:
            working: handlers that have not ended.
        """
        breaker = self._breaker
        breaker.look(working)
        if not breaker.open:
            return
        if self._probe is not None and self._probe.idle_for(clock.now()) > FIRST_PROBE:
            breaker.tells_nothing(self._probe.lease.stream)
            self._probe = None
        if breaker.tell_of_outage():
            self._outage.began(breaker.error, breaker.since or 0.0)
        self._capacity.slow_down(1 if breaker.may_start else 0)
        self._next_round()

    def _next_round(self) -> None:
        """If a probe may start and nobody is left, all had their turn: begin anew."""
        now = clock.now()
        if not self._breaker.may_start or self._event_queue.unread_added:
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = now
        elif now - self._nobody_since >= ROUND:
            self._nobody_since = None
            self._share_all()

    def _share_all(self) -> None:
        self._event_queue.let_go(NOBODY, clock.now())
        self._sweeps.share(NOBODY)

    def _changed(self) -> None:
        """It has begun, or is over."""
        self._probe = None
        if self._breaker.open:
            self._capacity.slow_down(0)
            self._event_queue.wake()  # the main loop waits for a stream
            return
        self._capacity.slow_down(None)
        self._share_all()
        ended = self._breaker.tell_of_end()
        if ended is not None:
            if ended.progress:
                self.recovered.notify()
            over = "handlers progress again" if ended.progress else "handlers do not fail any more"
            self._outage.ended(
                over, also="; %(failures)d failures did not count", extra={"failures": ended.uncounted}
            )

    def _details(self) -> LogFields:
        return {"streams": self._breaker.streams, "error": self._breaker.error} if self._breaker.open else {}

    @staticmethod
    def _wall_clock(at: float) -> float:
        return time.time() - (clock.now() - at)
