"""The lifecycle of one client: it joins once, closes once, and has one user.

The client, its event iterator and `run()` hold the same `Lifecycle`. Its errors for misuse say what to do instead.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Protocol

import anyio

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._consumer.parts import Parts
from redis_stream_client._leases.events import Event
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model import leaving
from redis_stream_client._model.errors import ClientClosed, NotJoined, NotOwner
from redis_stream_client._model.health import Health, judge
from redis_stream_client._model.options import Options
from redis_stream_client._model.rebalance import Rebalance
from redis_stream_client._model.statistics import NOTHING, Outage, Statistics
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.placement import Placement


class Runner(Protocol):
    """A `run()` that uses the client."""

    def drain(self) -> None:
        """Take no new streams, let the handlers reach a checkpoint, and release their streams."""
        ...

    @property
    def handled(self) -> Collection[LeaseState]:
        """The leases whose handler was called."""
        ...

    @property
    def outage(self) -> Outage | None:
        """What looks like an outage of something that the handlers depend on."""
        ...

    @property
    def health_port(self) -> int | None:
        """The port that answers probes now."""
        ...


class Lifecycle:
    """Joins and closes one client, and allows it one user.

    Args:
        options: the options of the client.
        where: the endpoint of the load balancer stream.
        where_streams_are: the placement of the data streams.

    Attributes:
        parts: the parts of the client, once joining has begun; None before.
        reading: whether a task waits for the next event.
        drain_requested: whether `drain` was called.
        closed: whether `close` was called.
    """

    def __init__(self, options: Options, where: Endpoint, where_streams_are: Placement) -> None:
        self._options = options
        self._where = where
        self._where_streams_are = where_streams_are
        self._named_in = forks.here()
        self._ready: asyncio.Future[None] | None = None  # resolved when the session has joined; fails if it cannot
        self._runner: Runner | None = None
        self._rebalance: Rebalance | None = None  # what a reader of events has asked for, until it reads
        self.parts: Parts | None = None
        self.reading = False
        self.drain_requested = False
        self.closed = False

    # Joining.

    @property
    def options(self) -> Options:
        """The options of the client, with its consumer id in this process.

        Each process that joins is a consumer of its own. So a forked child that has not joined gets a new id.
        """
        if self.parts is None and self._named_in != (here := forks.here()):
            self._named_in = here
            self._options = self._options.renamed()
        return self._options

    async def enter(self) -> None:
        """Join, for ``async with``. Raises ``RuntimeError`` if the client has joined before."""
        if self.parts is not None and not self.closed:
            self.parts.home.require_here()
            raise RuntimeError("this client has joined already; enter it once")
        await self.join_or_close()

    async def join_or_close(self) -> Parts:
        """Join, or wait until the client has joined. A client that cannot join is closed."""
        try:
            return await self.join()
        except BaseException:
            await self.close()
            raise

    async def join(self) -> Parts:
        """Begin to join, unless that has begun, and wait until the session is ready.

        Raises:
            ClientClosed: the client was closed.
            RuntimeError: in a forked child, on another event loop, or without one.
            RedisUnavailable, RedisRejected: the client cannot join.
        """
        if self.closed:
            raise self.gone()
        if self.parts is None:
            _require_asyncio()
            self.parts = Parts(self.options, self._where, self._where_streams_are, self.statistics)
            self.parts.capacity.draining = self.drain_requested
            self.parts.orders.drain.add(self.drain)
            self._ready = self.parts.session.start()
        assert self._ready is not None
        self.parts.home.require_here()
        await asyncio.wait((self._ready,))
        self._ready.result()
        return self.parts

    def joined(self) -> Parts:
        """The parts, for an operation of the user.

        Raises:
            NotJoined: the client has not joined yet.
            ClientClosed: the client is closed or closing.
            RuntimeError: in a forked child, or on another event loop.
        """
        if self.closed:
            raise self.gone()
        if self.parts is not None:
            self.parts.home.require_here()
        if self.parts is None or self._ready is None or not self._ready.done():
            raise NotJoined("this client has not joined yet", hint="use it in `async with client:`")
        if self.parts.tasks.ended:
            raise self.gone()
        return self.parts

    def gone(self) -> ClientClosed:
        """The error of every call after the end."""
        if self.parts is not None:
            return self.parts.tasks.gone()
        return ClientClosed("the client is closed")

    # One user.

    def rebalance_events(self, rebalance: Rebalance) -> None:
        """The user of events takes part in rebalancing, as soon as it reads."""
        self._rebalance = rebalance

    async def next_event(self) -> Event:
        """Wait for the next event. Only one task may do so. Joins, if the client has not joined yet.

        Raises:
            RuntimeError: the client has another user; or in a forked child, or on another event loop.
            StopAsyncIteration: the client has closed. If a failure closed it, that failure is raised instead.
        """
        self._require_here()
        if self.reading:
            raise RuntimeError("another task waits for this client's next event; a client has one reader")
        if self._runner is not None:
            raise RuntimeError("run() takes this client's events; use the one or the other")
        self.reading = True
        try:
            if self.parts is None or (self._ready is not None and not self._ready.done()):
                await self.join()
            assert self.parts is not None
            if self._rebalance is not None:
                self.parts.wanted_streams.start()
                self.parts.balancer.start(self._rebalance.settle, self.parts.wanted_streams)
                self._rebalance = None
            return await _next_event(self.parts)  # even after the end, which it raises
        finally:
            self.reading = False

    async def join_to_run(self, runner: Runner) -> Parts:
        """Join, if the client has not joined yet. From now on `runner` is its only user.

        A later `drain` goes to the runner. If `drain` was called before this returns, the runner must look at
        `drain_requested`.

        Raises:
            ClientClosed: the client was closed.
            RuntimeError: the client has another user; or in a forked child, or on another event loop.
            RedisUnavailable, RedisRejected: the client cannot join, and is closed now.
        """
        if self.closed:
            raise self.gone()
        self._require_here()
        if self._runner is not None:
            raise RuntimeError("run() runs already; a client runs one handler")
        if self.reading:
            raise RuntimeError("a task reads this client's events(); use the one or the other")
        self._runner = runner
        self._rebalance = None
        if self.parts is not None:
            self.parts.balancer.stop()
            self.parts.wanted_streams.stop()
        return await self.join_or_close()

    def _require_here(self) -> None:
        if self.parts is not None and not self.parts.session.closed.is_set():
            self.parts.home.require_here()

    # Closing.

    def drain(self) -> None:
        """See `RedisStreamClient.drain`."""
        self.drain_requested = True
        if self.parts is not None:
            self.parts.capacity.draining = True
            self.parts.orders.drains()
            self.parts.wanted_streams.stop()
        if self._runner is not None:
            self._runner.drain()

    def give_up_joining(self) -> None:
        """If the client is joining, close it: who waits for it gets a `ClientClosed`."""
        if self.parts is not None and self._ready is not None and not self._ready.done():
            self.parts.session.leave()

    async def finish(self) -> None:
        """Finish every stream that the user has received, and close. See `RedisStreamClient.done`."""
        parts = self.joined()
        if self._runner is not None:
            raise RuntimeError(
                "done() without a lease finishes all streams and closes the client, but run() has handlers at "
                "work on them; in a handler return, or call lease.done(); to end run(), call client.drain()"
            )
        finishing: list[asyncio.Future[None]] = []
        for leases in in_chunks([lease for lease in parts.table if lease.handed_out]):
            for lease in leases:
                with contextlib.suppress(NotOwner):
                    finishing.append(parts.endings.finish(lease))
            await asyncio.sleep(0)
        for outcome in finishing:
            outcome.add_done_callback(_seen)
        if finishing:
            await asyncio.wait(finishing)
        await self.close()
        for outcome in finishing:
            failure = self.gone() if outcome.cancelled() else outcome.exception()
            if failure is not None and not isinstance(failure, NotOwner):
                raise failure

    async def close(self) -> None:
        """See `RedisStreamClient.aclose`."""
        self.closed = True
        if not self._open:
            return
        assert self.parts is not None
        self.parts.home.require_here()
        session = self.parts.session
        session.leave()
        grace = min(leaving.GRACE, max(0.0, session.leave_by + leaving.GRACE - leaving.FAREWELL - clock.now()))
        with anyio.move_on_after(grace, shield=True):
            await session.closed.wait()

    @property
    def failure(self) -> BaseException | None:
        """The failure that has closed the client; None if there was none."""
        return self.parts.tasks.failure if self.parts is not None else None

    @property
    def unclosed(self) -> bool:
        """Whether the client has joined in this process, and was not closed."""
        return self._open and not self.closed

    @property
    def _open(self) -> bool:
        """Whether there is a session of this process that has not ended."""
        parts = self.parts
        return parts is not None and parts.home.in_this_process and not parts.session.closed.is_set()

    def abandon(self) -> None:
        """Nobody holds the client any more. Called by the garbage collector, so from any thread."""
        if self.parts is not None:
            self.parts.session.abandon()

    # What is seen from outside.

    @property
    def alive(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        return self.parts is not None and self.parts.lock_state.alive

    def health(self) -> Health:
        """See `RedisStreamClient.health`."""
        if self.parts is None:
            return judge(self._options, alive=False)
        return self.parts.report.health(None if self._runner is None else self._runner.handled, self._outage)

    def statistics(self) -> Statistics:
        """See `RedisStreamClient.statistics`."""
        if self.parts is None:
            return NOTHING
        return self.parts.report.statistics(self.health(), self._outage)

    @property
    def health_port(self) -> int | None:
        """See `RedisStreamClient.health_port`."""
        return None if self._runner is None else self._runner.health_port

    @property
    def _outage(self) -> Outage | None:
        return None if self._runner is None else self._runner.outage

    @property
    def state(self) -> str:
        """The state of the client, for its ``repr()``."""
        if self.closed:
            return "closed"
        if self.parts is None:
            return "not joined"
        return f"{len(self.parts.table)} leases, {self.parts.lock_state.state.value}"


async def _next_event(parts: Parts) -> Event:
    while not parts.tasks.ended:
        event = parts.event_queue.take(clock.now())
        if event is not None:
            parts.capacity.changed.notify()
            return event
        await parts.event_queue.wait()
    if parts.tasks.failure is not None:
        raise parts.tasks.failure
    await parts.session.closed.wait()
    raise StopAsyncIteration


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "redis_stream_client runs on asyncio (or uvloop), and no asyncio event loop is running here; "
            "trio is not supported"
        ) from None


def _seen(outcome: "asyncio.Future[None]") -> None:
    """Mark an outcome as retrieved, since nobody may wait for it."""
    if not outcome.cancelled():
        outcome.exception()
