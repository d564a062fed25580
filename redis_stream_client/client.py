"""The client: what users hold."""

import warnings
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, NoReturn, Protocol, Unpack, overload

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._consumer.lifecycle import Lifecycle
from redis_stream_client._leases.events import Event, ExpiredStream, StreamAdded, StreamDisowned, StreamExpired
from redis_stream_client._leases.lease import Lease
from redis_stream_client._model import options
from redis_stream_client._model.fence import is_held_by
from redis_stream_client._model.health import Health
from redis_stream_client._model.statistics import Statistics
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._run.handler import Handler
from redis_stream_client._run.run import Run, Running

_NOT_GIVEN: Final = object()


class RedisStreamClient:
    """A member of a fleet that shares data streams, each owned by exactly one live member.

    Args:
        redis: a ``redis.asyncio.Redis`` (also one made by ``Sentinel.master_for``) or ``RedisCluster``. Only
            a source of settings: it is never used itself, and never closed. The client opens three
            connections for commands and one for pub/sub.
        service: name of the service; all members and producers of one fleet use the same.
        consumer_name: middle part of this client's id; default: ``POD_NAME``, else ``POD_IP``, else the host
            name. Two clients with one name are two consumers.
        lock_ttl: seconds after its last sign of life that a consumer is taken for dead; default 2. Keep the
            event loop from blocking longer than this. Members may differ.
        heartbeat_interval: seconds between two renewals of the lock; default ``lock_ttl / 4``, at most
            ``lock_ttl / 2``.
        max_streams: reading stops at this many owned streams; default: no limit. ``claim()`` may exceed it.
        prefetch: reading stops at this many unread ``StreamAdded`` events; default 32.
        connect_timeout: seconds that joining keeps trying to reach Redis; default 5.

    Raises:
        TypeError, ValueError: an argument is not allowed; the message names it.

    Constructing does no I/O and needs no event loop. A client joins once; afterwards `ClientClosed`.
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
    ) -> None:
        checked = options.check(
            service,
            consumer_name=consumer_name,
            lock_ttl=lock_ttl,
            heartbeat_interval=heartbeat_interval,
            max_streams=max_streams,
            prefetch=prefetch,
            connect_timeout=connect_timeout,
        )
        endpoint = endpoint_for(redis, checked.keys.lbs)
        self._lifecycle = Lifecycle(checked, endpoint, placement_for(redis, endpoint))
        self._events = EventIterator(self, self._lifecycle)

    @classmethod
    def from_url(cls, url: str, service: str, **parameters: Unpack[options.Parameters]) -> "RedisStreamClient":
        """A client of the Redis at ``redis://``, ``rediss://`` or ``unix://``.

        Args:
            url: as for ``redis.asyncio.Redis.from_url``.
            service: name of the service.
            parameters: the constructor's keyword parameters.
        """
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        return cls(Redis.from_url(url), service, **parameters)

    # Membership.

    async def __aenter__(self) -> "RedisStreamClient":
        """Join: connect, create the group, take the lock, start the tasks; returns when ready.

        Raises:
            RedisUnavailable: no answer within `connect_timeout`.
            RedisRejected: password, permission, type of a key, version, or not a Redis.
            ClientClosed: this client has joined before, and was closed.

        A cancelled join is given up, and leaves no lock behind.
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
        """Leave: hand everything still held to the peers at once, acknowledging nothing.

        Idempotent; concurrent callers wait for the same close. Takes at most 0.5 s when Redis does not
        answer; the lock then expires by itself. If the wait is cancelled, closing goes on in the background.
        In a child that was forked after joining it does nothing.
        """
        await self._lifecycle.close()

    # Events.

    def events(self) -> "EventIterator":
        """The client's one iterator of events; calling again continues it.

        ``break`` loses nothing, and cancelling ``anext()`` loses no event. Used without ``async with`` it
        joins at the first ``anext()``; then ``done()`` or ``aclose()`` ends it.

        Raises (from ``anext()``):
            RuntimeError: another task waits for the next event.
            ClientClosed: the client was closed before; and whatever joining raises.
        """
        return self._events

    # Running.

    async def run(
        self,
        handler: Handler,
        *,
        drain_timeout: float = 10.0,
        max_attempts: int = 16,
        progress_timeout: float | None = None,
        handle_signals: bool = False,
    ) -> None:
        """Call `handler` for every stream that this client owns, each in a task of its own; take over what dead
        peers leave. Joins if needed; returns after a drain, or when the client was closed.

        - The handler returns: the stream is `done`.
        - It raises, whatever it is, `SystemExit` too: the failure is logged, the stream rests for a moment, and is
          released; this client leaves it to its peers for as long again. After `max_attempts` owners it goes to
          the dead letters. Only a `KeyboardInterrupt` passes. To end the program from a handler, call ``drain()``.
        - The lease is lost: the handler is cancelled, and what it does then counts no more.
        - It ignores its cancellation for `lock_ttl`: the stream goes on without it, its place stays taken.

        Args:
            handler: any async callable that takes a `Lease`, which is entered already: no ``async with`` in it.
            drain_timeout: seconds that draining gives the handlers to reach a checkpoint.
            max_attempts: owners that may fail or die, without a checkpoint that advances, before the stream goes
                to the dead letters. Owners that were drained do not count.
            progress_timeout: a handler that has neither read nor checkpointed nor called ``lease.progress()`` for
                so many seconds loses its stream. One that waits for an entry, or for Redis, is not meant, and time
                in which this process or its event loop stood still does not count. Default: for ever.
            handle_signals: drain at SIGTERM or SIGINT; a second one releases at once. In the main thread only.

        Raises:
            TypeError, ValueError: an argument is not allowed.
            RuntimeError: `events()` is being read, or `run()` runs already.
            ClientClosed: the client was closed before.
            RedisUnavailable, RedisRejected: it could not join, or Redis refuses for good.

        Cancelling it releases everything at once, in 0.5 s at the most, and closes the client; handlers are
        cancelled. In any case the client is closed at the end.
        """
        run = Run(
            self._lifecycle,
            handler,
            drain_timeout=drain_timeout,
            max_attempts=max_attempts,
            progress_timeout=progress_timeout,
            handle_signals=handle_signals,
        )
        await run.join()
        await run.until_closed()

    def running(
        self,
        handler: Handler,
        *,
        drain_timeout: float = 10.0,
        max_attempts: int = 16,
        progress_timeout: float | None = None,
        handle_signals: bool = False,
    ) -> "Running[RedisStreamClient]":
        """`run()` in the background of an ``async with`` block, such as a web application's lifespan.

        Entering returns when the client has joined. Leaving drains. If `run()` fails, the block is cancelled, and
        leaving it raises the failure. Arguments and errors are those of `run()`.
        """
        run = Run(
            self._lifecycle,
            handler,
            drain_timeout=drain_timeout,
            max_attempts=max_attempts,
            progress_timeout=progress_timeout,
            handle_signals=handle_signals,
        )
        return Running(run, self)

    def drain(self) -> None:
        """Take nothing new, let the handlers reach a checkpoint, release, and return from `run()`.

        Handlers are cancelled at their first step of ``entries()`` after a checkpoint, or when `drain_timeout` is
        over. Returns at once, and may be called repeatedly, and from a signal handler of the event loop. Before
        `run()`, it makes that return as soon as it has joined.
        """
        self._lifecycle.drain()

    # Ownership.

    async def claim(self, payload: ExpiredStream) -> Lease:
        """Take over a stream that was offered by a `StreamExpired`.

        A lost reply is repeated until the lock's deadline. If the wait is cancelled, a stream that is won
        all the same is released, and so offered again. `max_streams` is not regarded.

        Args:
            payload: the event's payload.

        Raises:
            AlreadyClaimed: a peer has it, or its owner is back; ``.owner`` says who.
            StreamGone: it was finished, trimmed or deleted.
            NotJoined: our own lock is not held at the moment.
            RedisUnavailable: no answer until the lock lapsed. Claiming again is safe.
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
        """Finish one stream, or, without an argument, all of them and the client.

        With a lease: its announcement is acknowledged and deleted, as by ``lease.done()``.

        Without: every lease that was handed out is finished; what was never handed out goes to the peers;
        then the client closes and its iterator ends.

        Raises:
            NotOwner: the lease is no longer ours; nothing was changed. (Not raised by ``done()`` without an
                argument: a stream that was lost is a peer's to finish.)
            RedisUnavailable: no answer until the lock lapsed; the outcome is unknown.
            RuntimeError: without a lease, while `run()` works: that would take the streams from its handlers.
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
        """This client's consumer id: ``redis-consumer-<name>-<8 hex>``. It belongs to the process that joins:
        in a forked child, a client that has not joined yet has another one."""
        return self._lifecycle.options.consumer

    @property
    def leases(self) -> Mapping[str, Lease]:
        """The leases that are held now, by LBS id: a live, read-only view. Includes what was not handed out
        yet. Empty while the lock is not held by the local clock."""
        parts = self._lifecycle.parts
        if parts is None or not parts.lock_state.held:
            return MappingProxyType({})
        return parts.table.view

    @property
    def alive(self) -> bool:
        """Whether the consumer lock is held, by the local clock. Good as a readiness probe, not as a liveness
        probe: an outage of Redis must not restart the fleet."""
        return self._lifecycle.alive

    def statistics(self) -> Statistics:
        """A snapshot of what this client counts."""
        return self._lifecycle.statistics()

    def health(self) -> Health:
        """Whether anything is stuck, and what: announcements that nobody reads, streams that this client owns and
        nobody works on, entries that were announced and are not read.

        `alive` alone does not say that. Looks only at what this client knows, and asks nobody; with 10,000 leases
        it takes some milliseconds. A handler that waits for entries is not stuck; one that works for ever is
        `progress_timeout`'s business.
        """
        return self._lifecycle.health()

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
    """What has the events of one client."""

    @property
    def reading(self) -> bool:
        """Whether a task waits for the next event."""
        ...

    async def next_event(self) -> Event:
        """Wait for the next event. Raises ``StopAsyncIteration`` when the client has closed."""
        ...


class EventIterator:
    """The events of one client. Not a generator: it can be left and taken up again at any time."""

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
    elif isinstance(payload, StreamAdded | StreamDisowned):
        hint = "; pass event.payload"
    return f"done() takes a lease, not {type(payload).__name__}{hint}"
