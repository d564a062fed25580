"""The observer: how users see what happens to streams, one by one, for traces and metrics.

Values, and a class whose methods do nothing.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from redis_stream_client._model.entry import Entry
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.failures import describe
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.logs import Log
from redis_stream_client._model.orders import Pause
from redis_stream_client._model.statistics import Statistics

GainedBy = Literal["announced", "claimed", "rebalanced", "audit"]
"""How a client came by a stream.

- ``announced``: a producer announced it, and nobody had it before.
- ``claimed``: it had no live owner: its owner died or left, or had released it.
- ``rebalanced``: a peer gave it, because this client had asked for streams. In `run()` only: what the user of
  ``events()`` claims is ``claimed``.
- ``audit``: Redis had given it to this client, and the reply was lost.
"""

EndedBy = Literal["done", "slept", "released", "given", "buried"]
"""How a holder ended its lease.

- ``done``: the stream is finished.
- ``slept``: it is finished because there was nothing to read; the next entry wakes it.
- ``released``: a peer is to take it: it drains, or the handler failed, or the user called ``release()``.
- ``given``: released for a peer that had fewer streams.
- ``buried``: it went to the dead letters.
"""

BuriedFor = Literal["failures", "deaths", "poison", "malformed"]
"""Why an announcement went to the dead letters.

- ``failures``: its handlers failed too often.
- ``deaths``: its owners died too often.
- ``poison``: a handler raised what no further attempt can mend.
- ``malformed``: no consumer can read it.
"""


@dataclass(frozen=True, slots=True)
class Gain:
    """A client owns another stream.

    Attributes:
        consumer: id of the client.
        stream: name of the data stream.
        lbs_id: id of its announcement.
        fence: the fence of the new lease.
        how: see `GainedBy`.
        previous: id of the consumer from which it was taken; None if it was announced or released, or that is not
            known.
        silent_for: for how many seconds the stream had no live owner: since the last sign of life of its previous
            owner, or since it was released; None if it was announced just now, or that is not known. For an owner
            that left, that is since it left. For one that died with its connections (see `Presence`), it is right
            within about 0.1 s. For one whose lock expired, it counts from its last beat, by the lifetime of its
            lock. Where this client has not heard of the death, because it was before it joined, it counts from the
            owner's last request to the group, if Redis knows that (from 7.2 on), else by the lifetime of the lock.
        carrier: what the producer's `Observer.carrier` gave: ``traceparent``, and possibly ``tracestate``.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    how: GainedBy
    previous: str | None = None
    silent_for: float | None = None
    carrier: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Loss:
    """A client has lost a stream.

    Attributes:
        consumer, stream, lbs_id, fence: as in `Gain`.
        reason: see `LossReason`.
        to: id of the consumer that owns it now; None if there is none, or that is not known.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    reason: LossReason
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The holder of a stream has ended its lease.

    Attributes:
        consumer, stream, lbs_id, fence: as in `Gain`.
        how: see `EndedBy`.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    how: EndedBy


@dataclass(frozen=True, slots=True)
class HandlerStart:
    """`run()` calls the handler of a stream.

    Attributes:
        consumer, stream, lbs_id, fence: as in `Gain`.
        info: the ``Info`` of the announcement.
        attempts: see `Lease.attempts`.
        gain: how the client came by the stream; None in ``redis_stream_client.testing``.
        waited: seconds from the gain to this first step of the handler.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    info: Mapping[str, Any] | None = field(hash=False)
    attempts: int
    gain: Gain | None
    waited: float


@dataclass(frozen=True, slots=True)
class HandlerEnd:
    """The work on a stream in `run()` has ended.

    Attributes:
        start: how it had started.
        outcome: one of `redis_stream_client.testing.Status`.
        seconds: how long the handler ran, without the rest that follows a failure.
        error: what the handler raised, or None. Keep nothing of it: its traceback holds the handler's variables.
    """

    start: HandlerStart
    outcome: str
    seconds: float
    error: BaseException | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Redis has accepted a checkpoint that is further than the last one.

    Attributes:
        consumer, stream, lbs_id, fence: as in `Gain`.
        id: id of the last entry that was processed.
        entries: how many entries ``lease.entries()`` or ``batches()`` have handed out since the last checkpoint of
            this lease; 0 if the handler reads in another way.
        lag: age of that entry in seconds, as its id says. Ids that are not times make no sense here.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    id: str
    entries: int
    lag: float


@dataclass(frozen=True, slots=True)
class ClaimLost:
    """Redis refused a `claim()` of an offered stream.

    Attributes:
        consumer: id of the client.
        stream, lbs_id: of the offer.
        owner: id of the consumer that has it; None: it is gone.
    """

    consumer: str
    stream: str
    lbs_id: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Lapse:
    """A client has lost its consumer lock, or must assume so.

    Attributes:
        consumer: id of the client.
        cause: ``silent``: Redis did not answer for a lifetime of the lock. ``stalled``: the event loop, or the
            process, stood still for so long. ``missing``: the lock was gone.
    """

    consumer: str
    cause: Literal["silent", "stalled", "missing"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The handler of a stream has failed.

    Attributes:
        consumer, stream, lbs_id, fence: as in `Gain`.
        stalled: whether it made no progress in time; otherwise it raised something.
        error: name of the class of what it raised; "" if it raised nothing.
        failures: how often handlers of the stream have failed since the checkpoint last advanced, this one
            included if it counts.
    """

    consumer: str
    stream: str
    lbs_id: str
    fence: Fence
    stalled: bool
    error: str
    failures: int


@dataclass(frozen=True, slots=True)
class Burial:
    """An announcement went to the dead letters.

    Attributes:
        consumer: id of the client.
        stream: name of the data stream; None if the announcement is malformed.
        lbs_id: id of the announcement.
        why: see `BuriedFor`.
        error: name of the class of the last failure; "" if there was none.
    """

    consumer: str
    stream: str | None
    lbs_id: str
    why: BuriedFor
    error: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """A client that has joined.

    Attributes:
        consumer: id of the client.
        service: name of the service.
        statistics: see `RedisStreamClient.statistics`. Call it on the event loop of the client.
    """

    consumer: str
    service: str
    statistics: Callable[[], Statistics]


@dataclass(frozen=True, slots=True)
class Sending:
    """A call of a producer.

    Attributes:
        service: name of the service.
        operation: ``add``: of `LoadBalancerStream.add` or ``add_many``. ``write``: of ``write`` or ``write_many``.
        destination: name of the load balancer stream.
        messages: how many streams to announce, or entries to write.
    """

    service: str
    operation: Literal["add", "write"]
    destination: str
    messages: int


@dataclass(frozen=True, slots=True)
class RedisOutage:
    """Redis does not answer this client.

    Attributes:
        address: what does not answer.
        error: what happened instead.
        seconds: how long it has lasted.
        kind: what is not answered: the field `outage` of the log.
    """

    address: str
    error: str
    seconds: float
    kind: str = "redis"


class Observer:
    """Is told what happens to the streams of a client. Subclass it, and override what you need.

    The client calls the methods on its event loop, in the middle of its work, so keep them short: while one runs,
    nothing else does, not even the heartbeat. They are plain functions, never ``async``. If one raises, the first
    time is an ERROR in the log with a traceback, and further ones of the same method are only DEBUG; the client
    goes on as if it had returned.

    One observer may serve several clients, also of several event loops if its methods are thread-safe; each value
    but `RedisOutage` names its client as ``consumer``. Without an observer nothing is measured. With one, the
    client keeps the `Gain` of each stream that it owns.
    """

    # Clients.

    def joined(self, membership: Membership) -> None:
        """The client has joined; everything else about it comes later. Keep nothing of this beyond `left`."""

    def left(self, membership: Membership) -> None:
        """The client has left, or failed. Only what becomes of handlers that were at work may come later."""

    # Owners.

    def gained(self, gain: Gain) -> None:
        """The client owns another stream. Each claim that was won is one of these."""

    def lost(self, loss: Loss) -> None:
        """The client has lost a stream. Its handler is cancelled next."""

    def ended(self, ending: Ending) -> None:
        """A lease has ended because its holder said so. Streams that went to peers with fewer are ``given`` here
        and ``rebalanced`` there."""

    def claim_lost(self, claim: ClaimLost) -> None:
        """A `claim()` of the user was refused: a peer was first, or the stream was gone."""

    def lapsed(self, lapse: Lapse) -> None:
        """The client has lost its consumer lock."""

    def paused(self, consumer: str, pause: Pause) -> None:
        """An operator has paused the fleet, and this client takes no new streams any more."""

    def resumed(self, consumer: str, pause: Pause) -> None:
        """That pause is over."""

    # Handlers of `run()`.

    def handler_started(self, start: HandlerStart) -> None:
        """The handler of a stream is called now."""

    def handling(self, start: HandlerStart) -> AbstractContextManager[object]:
        """What surrounds the handler: a context manager, entered and left in the handler's own task. So what it
        sets in ``contextvars``, such as the current span, is set in the handler. `handler_started` comes before.

        Leaving it gets the exception of the handler, also ``CancelledError``, and cannot suppress it.
        """
        return nullcontext()

    def handler_ended(self, end: HandlerEnd) -> None:
        """The work on a stream has ended: the handler has, and it is known what becomes of the stream. After a
        failure that is after the rest."""

    def asked(self, consumer: str, stream: str) -> None:
        """A step of ``entries()`` or ``batches()`` begins: its caller has done with what it got before.

        It is called in the task that takes the step, so that it can change the task's ``contextvars``. A client
        whose observer overrides neither this nor `received` spends no time on them.
        """

    def received(self, consumer: str, stream: str, entries: Sequence[Entry]) -> None:
        """The step returns these entries, one or more; in the same task."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """The checkpoint of a stream has advanced, in `run()` or with ``events()``."""

    def failed(self, failure: Failure) -> None:
        """A handler has failed."""

    def buried(self, burial: Burial) -> None:
        """An announcement went to the dead letters."""

    # Redis.

    def outage_began(self, outage: RedisOutage) -> None:
        """Redis does not answer any more: two attempts in a row have failed."""

    def outage_ended(self, outage: RedisOutage) -> None:
        """It answers again."""

    # Producers.

    def sending(self, sending: Sending) -> AbstractContextManager[object]:
        """What surrounds a call of `LoadBalancerStream`: a context manager, entered and left in the task of the
        caller. `carrier` is called in it. Leaving it gets the exception of the call, and cannot suppress it."""
        return nullcontext()

    def carrier(self) -> Mapping[str, str]:
        """What a producer's announcement carries to the consumer that gains the stream, as `Gain.carrier`: the W3C
        trace context, ``traceparent`` and possibly ``tracestate``. Other items are ignored, and so are values that
        are not valid. `LoadBalancerStream` calls it once in each call of its methods that announce."""
        return {}


def check(observer: Any) -> Observer | None:
    """Check the parameter ``observer``. A ``TypeError`` says what is wrong."""
    if observer is None:
        return None
    if not isinstance(observer, Observer):
        raise TypeError(f"observer must be an Observer or None, not {type(observer).__name__}")
    for name in _METHODS:
        if inspect.iscoroutinefunction(getattr(observer, name)):
            raise TypeError(f"{type(observer).__name__}.{name} must be a plain function, not async")
    return observer


def follows_steps(observer: Observer) -> bool:
    """Whether this observer wants to know of each step of ``entries()``."""
    if isinstance(observer, SafeObserver):
        return observer.follows_steps
    kind = type(observer)
    return kind.asked is not Observer.asked or kind.received is not Observer.received


_METHODS = [name for name in vars(Observer) if not name.startswith("_")]


class SafeObserver(Observer):
    """Passes everything on to an observer of the user, whose errors it logs."""

    def __init__(self, observer: Observer, log: Log) -> None:
        self._observer = observer
        self._log = log
        self._failed: dict[str, int] = {}  # method: how often

    @property
    def follows_steps(self) -> bool:
        """See the function."""
        return follows_steps(self._observer)

    def joined(self, membership: Membership) -> None:
        self._tell("joined", membership)

    def left(self, membership: Membership) -> None:
        self._tell("left", membership)

    def gained(self, gain: Gain) -> None:
        self._tell("gained", gain)

    def lost(self, loss: Loss) -> None:
        self._tell("lost", loss)

    def ended(self, ending: Ending) -> None:
        self._tell("ended", ending)

    def claim_lost(self, claim: ClaimLost) -> None:
        self._tell("claim_lost", claim)

    def lapsed(self, lapse: Lapse) -> None:
        self._tell("lapsed", lapse)

    def paused(self, consumer: str, pause: Pause) -> None:
        self._tell("paused", consumer, pause)

    def resumed(self, consumer: str, pause: Pause) -> None:
        self._tell("resumed", consumer, pause)

    def handler_started(self, start: HandlerStart) -> None:
        self._tell("handler_started", start)

    def handling(self, start: HandlerStart) -> AbstractContextManager[object]:
        return _SafeBlock(self._tell("handling", start), "handling", self.failed_in)

    def sending(self, sending: Sending) -> AbstractContextManager[object]:
        return _SafeBlock(self._tell("sending", sending), "sending", self.failed_in)

    def handler_ended(self, end: HandlerEnd) -> None:
        self._tell("handler_ended", end)

    def asked(self, consumer: str, stream: str) -> None:
        self._tell("asked", consumer, stream)

    def received(self, consumer: str, stream: str, entries: Sequence[Entry]) -> None:
        self._tell("received", consumer, stream, entries)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self._tell("checkpoint", checkpoint)

    def failed(self, failure: Failure) -> None:
        self._tell("failed", failure)

    def buried(self, burial: Burial) -> None:
        self._tell("buried", burial)

    def outage_began(self, outage: RedisOutage) -> None:
        self._tell("outage_began", outage)

    def outage_ended(self, outage: RedisOutage) -> None:
        self._tell("outage_ended", outage)

    def carrier(self) -> Mapping[str, str]:
        try:
            return dict(self._observer.carrier())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises
            self.failed_in("carrier", error)
            return {}

    def _tell(self, method: str, *what: object) -> Any:
        try:
            return getattr(self._observer, method)(*what)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises
            self.failed_in(method, error)
            return None

    def failed_in(self, method: str, error: BaseException) -> None:
        """Log that a method of the user's observer has failed: in full once, since it may fail for each stream."""
        times = self._failed[method] = self._failed.get(method, 0) + 1
        name = f"{type(self._observer).__name__}.{method}"
        if times == 1:
            self._log.error("%s() failed; the next time, this will be said at DEBUG only", name, error=error)
        else:
            self._log.debug("%s() has failed %d times: %s", name, times, describe(error))


class _SafeBlock:
    """Surrounds a handler or a call with the context manager of the user, whose errors are logged."""

    def __init__(self, block: Any, method: str, failed: Any) -> None:
        self._block = block
        self._method = method
        self._failed = failed

    def __enter__(self) -> None:
        if self._block is None:  # the method that makes it has failed
            return
        try:
            type(self._block).__enter__(self._block)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises
            self._block = None
            self._failed(self._method, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._block is None:
            return
        try:
            type(self._block).__exit__(self._block, kind, error, traceback)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # noqa: BLE001
            if failure is not error:
                self._failed(self._method, failure)
