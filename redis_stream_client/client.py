"""The client: joins a fleet, and gives its user streams, either as events or to a handler."""

import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, NoReturn, Protocol, Unpack, overload

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._consumer.lifecycle import Lifecycle
from redis_stream_client._leases.events import (
    Event,
    ExpiredStream,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamWanted,
)
from redis_stream_client._leases.lease import Lease
from redis_stream_client._model import options
from redis_stream_client._model.fence import is_held_by
from redis_stream_client._model.health import Health
from redis_stream_client._model.observer import Observer
from redis_stream_client._model.rebalance import Rebalance
from redis_stream_client._model.retention import OnDone, OnForgotten
from redis_stream_client._model.retry_policy import NOT_GIVEN, NotGiven, RetryPolicy
from redis_stream_client._model.statistics import Statistics
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._run.handler import Handler
from redis_stream_client._run.run import Run, Running

_NOT_GIVEN: Final = object()
_REBALANCE: Final = Rebalance()


class RedisStreamClient:
    """A member of a fleet that shares data streams, each owned by exactly one live member.

    Args:
        redis: a ``redis.asyncio.Redis`` (also one made by ``Sentinel.master_for``) or ``RedisCluster``. The client
            only reads its settings: it never uses or closes it. The client opens its own connections, three for
            commands and one for pub/sub, and more to the servers whose data streams it reads.
        service: name of the service; all members and producers of one fleet use the same.
        consumer_name: middle part of this client's id; default: ``POD_NAME``, else ``POD_IP``, else the host
            name. Two clients with the same name are two consumers.
        lock_ttl: lifetime of the consumer lock in seconds; default 2. Peers treat a consumer as dead that has not
            renewed its lock for so long, so never block the event loop for longer. All else goes at the pace of
            ``min(lock_ttl, 2)`` seconds, so that a longer one only delays the replacement of a consumer that
            Redis has not seen die: one that froze, or whose host is gone. Members may use different values.
        heartbeat_interval: seconds between two renewals of the lock; default ``lock_ttl / 4``, at most
            ``lock_ttl / 2``.
        max_streams: the client stops reading announcements while it owns this many streams; default: no limit.
            ``claim()`` may exceed it.
        prefetch: the client stops reading announcements while this many ``StreamAdded`` events are unread;
            default 32.
        connect_timeout: seconds for which joining tries to reach Redis; default 5.
        progress_ttl: seconds that the progress record of a finished stream stays; default 7 days. 0: the record is
            deleted when the stream is done. As long as the record stays, a stream that is announced again goes on
            after its last checkpoint; later it begins at its start.
        presence: whether peers notice a crash of this client within about a third of a second, whatever the
            `lock_ttl`, because Redis sees its connections end. Default: True. Use False where a network is known
            to cut the connections of processes that live.
        weight: how many streams this client gets, in proportion to other members, from 0.001 to 1000; default 1.
            One of weight 2 gets twice as many as one of weight 1: of new streams, and of those of dead members.
        on_forgotten: where a stream starts that has slept for longer than `progress_ttl`, so that its checkpoint
            is gone, when ``LoadBalancerStream.write()`` wakes it. ``"from_start"``, the default: at the start of
            the stream, so that its entries come again. ``"from_now"``: with the entry that woke it, so that older
            entries without a checkpoint never come; that is only for streams that are written by ``write()``,
            since a new entry of another producer is taken for an old one. Either is a warning in the log.
        observer: is told what happens to the streams of this client, for traces and metrics; default: nobody.

    Raises:
        TypeError, ValueError: an argument is not allowed; the message names it.

    The constructor does no I/O and needs no event loop. A client can join only once; after it has left, its
    methods raise `ClientClosed`.
    """

    def __init__(
        self,
        redis: "Redis | RedisCluster",
        service: str,
        *,
        consumer_name: str | None = None,
        lock_ttl: float = 2.0,
        heartbeat_interval: float | None = None,
        max_streams: int | None = None,
        prefetch: int = 32,
        connect_timeout: float = 5.0,
        progress_ttl: float = options.PROGRESS_TTL,
        presence: bool = True,
        weight: float = 1.0,
        on_forgotten: OnForgotten = "from_start",
        observer: Observer | None = None,
    ) -> None:
        checked = options.check(
            service,
            consumer_name=consumer_name,
            lock_ttl=lock_ttl,
            heartbeat_interval=heartbeat_interval,
            max_streams=max_streams,
            prefetch=prefetch,
            connect_timeout=connect_timeout,
            progress_ttl=progress_ttl,
            presence=presence,
            weight=weight,
            on_forgotten=on_forgotten,
            observer=observer,
        )
        endpoint = endpoint_for(redis, checked.keys.lbs)
        self._lifecycle = Lifecycle(checked, endpoint, placement_for(redis, endpoint))
        self._events = EventIterator(self, self._lifecycle)

    @classmethod
    def from_url(cls, url: str, service: str, **parameters: Unpack[options.Parameters]) -> "RedisStreamClient":
        """Make a client from a ``redis://``, ``rediss://`` or ``unix://`` URL.

        Args:
            url: as for ``redis.asyncio.Redis.from_url``.
            service: name of the service.
            parameters: the keyword parameters of the constructor.
        """
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        return cls(Redis.from_url(url), service, **parameters)

    # Membership.

    async def __aenter__(self) -> "RedisStreamClient":
        """Join the fleet: connect, create the group, take the lock, start the tasks. Returns when the client is
        ready.

        If the wait is cancelled, the client gives up joining, closes, and leaves no lock behind.

        Raises:
            RedisUnavailable: no answer within `connect_timeout`.
            RedisRejected: wrong password, missing permission, key of another type, old version, or not a Redis.
            ClientClosed: this client has joined before, and was closed.
        """
        await self._lifecycle.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._lifecycle.close()
        if self._lifecycle.failure is not None and error is None:
            raise self._lifecycle.failure

    async def aclose(self) -> None:
        """Leave the fleet: hand all streams that are still held to the peers at once. Acknowledges nothing.

        You may call it repeatedly; concurrent callers wait for the same close. If Redis does not answer, it
        returns after 0.5 s, and the lock expires by itself. If the wait is cancelled, closing goes on in the
        background. In a child that was forked after joining, it does nothing.
        """
        await self._lifecycle.close()

    # Events.

    def events(self, *, rebalance: bool | Rebalance = False) -> "EventIterator":
        """The iterator of this client's events. There is one; every call returns it.

        You lose no event by leaving the loop with ``break``, or by cancelling ``anext()``. Without ``async with``
        the client joins at the first ``anext()``; end it with ``done()`` or ``aclose()``.

        Args:
            rebalance: take part in evening out the load, from the first ``anext()`` on; default: no. If a peer has
                clearly fewer streams than its share, and this client more, you are asked to release some: see
                `StreamWanted`. If this client has clearly fewer, it asks its peers; what they release comes as
                `StreamExpired`, so claim that. True: with the ``settle`` of ``Rebalance()``.

        Raises:
            RuntimeError: at ``anext()``: another task waits for the next event, or `run()` takes the events.
            ClientClosed: at ``anext()``: the client was closed before. The first one may also raise what joining
                raises.
        """
        if not isinstance(rebalance, bool | Rebalance):
            raise TypeError(f"rebalance must be a bool or a Rebalance, not {type(rebalance).__name__}")
        if rebalance:
            self._lifecycle.rebalance_events(rebalance if isinstance(rebalance, Rebalance) else _REBALANCE)
        return self._events

    # Running.

    async def run(
        self,
        handler: Handler,
        *,
        retry: RetryPolicy | None = None,
        max_attempts: int | NotGiven | None = NOT_GIVEN,
        drain_timeout: float = 10.0,
        progress_timeout: float | None = None,
        handle_signals: bool = False,
        on_done: OnDone = "keep",
        trim: bool = False,
        rebalance: Rebalance | None = _REBALANCE,
        health_file: str | os.PathLike[str] | None = None,
        health_port: int | None = None,
        health_host: str = "127.0.0.1",
    ) -> None:
        """Call `handler` for every stream that this client owns, each in a task of its own, and take over the
        streams of dead peers.

        Joins if needed. Returns after a drain, or when the client was closed. The client is closed at the end.

        - A handler is called only while the consumer lock is held by the local clock, without a doubt.
        - When the handler returns, the stream is done.
        - When the handler raises anything, even `SystemExit`, the failure is logged. After a pause the stream is
          released, and this client leaves it to its peers for as long again, at most `lock_ttl` or 2 s. It goes to
          the dead letters as `retry` says, by default after 16 failures and 10 minutes without progress. Only a
          `KeyboardInterrupt` ends `run()`. To end the program from a handler, call ``drain()``.
        - Streams that two dead owners left without progress start one by one, after the others. A stream
          that kills its owners rests for longer each time, and goes to the dead letters after about 6 of them. A
          bad deploy, whose processes die whatever they do, sends nothing there.
        - When the handlers of three streams fail within a minute and no stream progresses, that counts as an
          outage of what they depend on. No failure counts, and streams are tried one at a time, until one
          progresses. `statistics` shows it as `outage`.
        - When the handler raises `RetryLater`, the stream rests for so long and is released; nothing is counted.
        - When the lease is lost, the handler is cancelled. Whatever it asks of the lease from then on raises
          `NotOwner`.
        - When the handler ignores its cancellation for `lock_ttl`, at most 2 s, the stream goes on to its next
          owner without it. The handler counts towards `max_streams` until it ends.

        The page reference/failures in the documentation has all cases, with their times.

        If the call is cancelled, the handlers are cancelled, all streams are released, and the client closes,
        within 0.5 s.

        Args:
            handler: any async callable that takes a `Lease`. The lease is entered already: do not use
                ``async with`` in the handler.
            retry: when failed streams are tried again, and when they go to the dead letters; default
                ``RetryPolicy()``.
            max_attempts: short for ``RetryPolicy(max_attempts=…, patience=0)``: the stream goes to the dead
                letters at the failure with this number, however soon. None: it never goes there. Owners that were
                drained do not count.
            drain_timeout: seconds that draining gives the handlers to reach a checkpoint; default 10.
            progress_timeout: seconds after which a handler loses its stream if it has neither read an entry, nor
                made a checkpoint, nor called ``lease.progress()``; default: never. Time in which the handler waits
                for an entry or for Redis does not count, nor does time in which the process or its event loop
                stood still.
            handle_signals: drain at SIGTERM or SIGINT, and release everything at the second one; while the client
                joins, give up joining. Only in the main thread.
            on_done: what becomes of the data stream itself when it is done. ``"keep"``, the default: nothing.
                ``"trim"``: Redis removes its entries up to the checkpoint. ``"delete"``: Redis deletes the stream
                and its progress record in one step. A stream that got entries after the last one that the handler
                has received is not deleted but trimmed up to that one, and a warning says so. A stream that was
                announced again and has a newer owner is left alone. All this happens in the background, just after
                Redis has accepted `done`. If the process dies in between, the stream stays.
            trim: with ``"trim"`` or ``"delete"``: trim the stream up to its checkpoint while the handler reads it,
                too, every 1,000 entries or 10 s. Default False.
            rebalance: how streams move to a member that has clearly fewer than its share, as after a rolling
                restart; default ``Rebalance()``. None: this client neither asks for streams nor gives any.
            health_file: a file for probes without a port; default: none. It appears when the client has joined,
                and is removed at the end. Its time is renewed twice in `lock_ttl`, at least once a second, as long
                as the client is live; a probe for liveness looks at its age. Its first line is ``ready``, or
                ``not ready: …`` with the reason. One file for each process. If it cannot be written, a warning
                says so, and ``run()`` goes on.
            health_port: a port for probes over HTTP, from before joining to the end; default: none; 0: the system
                chooses one, see `health_port`. ``GET /livez`` answers 200 as long as the event loop turns and the
                client has not ended for good, whether or not Redis is there: a restart would not bring it back.
                ``GET /readyz`` answers 200 if `health` is ok, the client does not drain and the fleet is not
                paused, else 503 and why; that a client with `max_streams` is full does not make it unready.
                Anybody who reaches the port may ask; the answers name no streams.
            health_host: the IP address of that port; default ``"127.0.0.1"``. Kubernetes asks from outside:
                ``"0.0.0.0"``, or ``"::"``.

        Raises:
            TypeError, ValueError: an argument is not allowed, or both `retry` and `max_attempts` are given.
            OSError: `health_port` is in use, or something that is no health file lies at `health_file`. The client
                has not joined then, and stays usable.
            RuntimeError: a task reads `events()`, or `run()` runs already; or with `handle_signals` outside of the
                main thread, or on an event loop without signal handlers (Windows).
            ClientClosed: the client was closed before.
            RedisUnavailable, RedisRejected: the client could not join, or Redis rejected a command for good.
        """
        run = Run(
            self._lifecycle,
            handler,
            retry=retry,
            max_attempts=max_attempts,
            drain_timeout=drain_timeout,
            progress_timeout=progress_timeout,
            handle_signals=handle_signals,
            on_done=on_done,
            trim=trim,
            rebalance=rebalance,
            health_file=health_file,
            health_port=health_port,
            health_host=health_host,
        )
        await run.run()

    def running(
        self,
        handler: Handler,
        *,
        retry: RetryPolicy | None = None,
        max_attempts: int | NotGiven | None = NOT_GIVEN,
        drain_timeout: float = 10.0,
        progress_timeout: float | None = None,
        handle_signals: bool = False,
        on_done: OnDone = "keep",
        trim: bool = False,
        rebalance: Rebalance | None = _REBALANCE,
        health_file: str | os.PathLike[str] | None = None,
        health_port: int | None = None,
        health_host: str = "127.0.0.1",
    ) -> "Running[RedisStreamClient]":
        """Do what `run()` does in the background of an ``async with`` block, such as the lifespan of a web
        application.

        Entering the block returns when the client has joined. Leaving it drains. If `run()` fails, the block is
        cancelled, and leaving it raises the failure. For arguments and errors see `run()`.
        """
        run = Run(
            self._lifecycle,
            handler,
            retry=retry,
            max_attempts=max_attempts,
            drain_timeout=drain_timeout,
            progress_timeout=progress_timeout,
            handle_signals=handle_signals,
            on_done=on_done,
            trim=trim,
            rebalance=rebalance,
            health_file=health_file,
            health_port=health_port,
            health_host=health_host,
        )
        return Running(run, self)

    def drain(self) -> None:
        """Ask `run()` to end: take no new streams, let the handlers reach a checkpoint, release the streams,
        return.

        Each handler is cancelled at its first step of ``entries()`` or ``batches()`` after a checkpoint, or when
        `drain_timeout` is over. Returns at once. You may call it repeatedly, and from a signal handler of the
        event loop. If you call it before `run()`, then `run()` returns as soon as it has joined.
        """
        self._lifecycle.drain()

    # Ownership.

    async def claim(self, payload: ExpiredStream) -> Lease:
        """Take over a stream that a `StreamExpired` offers. Does not look at `max_streams`.

        If a reply is lost, the client repeats the request until its lock lapses. If the wait is cancelled and the
        claim wins all the same, the client releases the stream, so that it is offered again.

        Args:
            payload: the payload of the event.

        Raises:
            AlreadyClaimed: a peer owns the stream, or its owner is alive again; ``.owner`` says who.
            StreamGone: the announcement was finished, trimmed or deleted.
            NotJoined: this client does not hold its lock at the moment.
            RedisUnavailable: no answer until the lock lapsed. You can safely claim again.
            ClientClosed: the client is closed.
        """
        if not isinstance(payload, ExpiredStream):
            hint = "; pass event.payload" if isinstance(payload, StreamExpired) else ""
            raise TypeError(f"claim() takes the payload of a StreamExpired, not {type(payload).__name__}{hint}")
        return await self._lifecycle.joined().claims.claim(payload)

    @overload
    async def done(self) -> None: ...

    @overload
    async def done(self, payload: Lease) -> None: ...

    async def done(self, payload: Any = _NOT_GIVEN) -> None:
        """Finish one stream; or, without an argument, finish all streams and close the client.

        With a lease: acknowledge its announcement and delete it, as ``lease.done()`` does.

        Without: finish every lease that you have received, hand the other streams to the peers, and close the
        client. Its iterator then ends.

        Raises:
            NotOwner: the lease was lost, and nothing was changed. ``done()`` without an argument never raises it:
                a lost stream is for a peer to finish.
            RedisUnavailable: no answer until the lock lapsed; the outcome is unknown.
            RuntimeError: without a lease, while `run()` runs: that would take the streams from its handlers.
            ClientClosed: the client is closed.
        """
        if payload is _NOT_GIVEN:
            await self._lifecycle.finish()
            return
        if not isinstance(payload, Lease):
            raise TypeError(_not_a_lease(payload))
        parts = self._lifecycle.joined()
        if not is_held_by(payload.fence, parts.options.consumer):
            raise ValueError("this lease belongs to another client")
        await payload.done()

    # State.

    @property
    def id(self) -> str:
        """The consumer id of this client: ``redis-consumer-<name>-<8 hex>``. It belongs to one process: in a
        forked child, a client that has not joined yet gets a new id."""
        return self._lifecycle.options.consumer

    @property
    def leases(self) -> Mapping[str, Lease]:
        """The leases that the client holds now, by LBS id: a live, read-only view. It includes leases whose event
        nobody has read yet. Empty while the lock is not held, or in doubt, by the local clock."""
        parts = self._lifecycle.parts
        if parts is None or not parts.lock_state.held:
            return MappingProxyType({})
        return parts.table.view

    @property
    def alive(self) -> bool:
        """Whether the client holds its consumer lock, perhaps in doubt, by the local clock. Use it as a readiness
        probe, and not as a liveness probe: an outage of Redis must not restart the fleet."""
        return self._lifecycle.alive

    def statistics(self) -> Statistics:
        """A snapshot of the counts and ages of this client."""
        return self._lifecycle.statistics()

    def health(self) -> Health:
        """Whether anything is stuck, and what: announcements that nobody reads, owned streams that nobody works
        on, and entries that are there and that the client has not read. `alive` does not say that.

        Does no I/O. With 10,000 leases it takes some milliseconds. A handler that waits for entries is not stuck.
        A handler that never comes to an end is not found here; use `progress_timeout` for that.
        """
        return self._lifecycle.health()

    @property
    def health_port(self) -> int | None:
        """The port on which `run()` answers probes now; None: on none."""
        return self._lifecycle.health_port

    def __repr__(self) -> str:
        keys = self._lifecycle.options.keys
        return f"<RedisStreamClient {keys.service!r} {self.id} {self._lifecycle.state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client belongs to its process, and cannot be copied or pickled; make another one")

    def __del__(self) -> None:
        lifecycle: Lifecycle | None = getattr(self, "_lifecycle", None)
        if lifecycle is not None and lifecycle.unclosed:
            message = f"unclosed {self!r}: use `async with`, or aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            lifecycle.abandon()


class EventSource(Protocol):
    """Where an `EventIterator` gets its events from."""

    @property
    def reading(self) -> bool:
        """Whether a task waits for the next event."""
        ...

    async def next_event(self) -> Event:
        """Wait for the next event. Raises ``StopAsyncIteration`` when the client has closed."""
        ...


class EventIterator:
    """The events of one client. It is not a generator: you can leave the loop, and start another one later."""

    def __init__(self, client: RedisStreamClient, source: EventSource) -> None:
        self._client = client  # which is taken for unclosed when nobody holds it: whoever reads its events does
        self._source = source

    def __aiter__(self) -> "EventIterator":
        return self

    @property
    def busy(self) -> bool:
        """Whether a task waits for the next event."""
        return self._source.reading

    async def __anext__(self) -> Event:
        return await self._source.next_event()


def _not_a_lease(payload: object) -> str:
    hint = ""
    if payload is None:
        hint = "; to finish everything, call done() without an argument"
    elif isinstance(payload, ExpiredStream | StreamExpired):
        hint = "; claim the stream first"
    elif isinstance(payload, StreamAdded | StreamDisowned | StreamWanted):
        hint = "; pass event.payload"
    return f"done() takes a lease, not {type(payload).__name__}{hint}"
