"""`run()`, and `running()`, which does the same in the background of a block."""

import asyncio
import contextlib
import os
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import anyio

from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._consumer.lifecycle import Lifecycle
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model import leaving, options, retention, retry_policy
from redis_stream_client._model.errors import ClientClosed
from redis_stream_client._model.failures import is_a
from redis_stream_client._model.rebalance import Rebalance
from redis_stream_client._model.retention import OnDone
from redis_stream_client._model.retry_policy import NotGiven, RetryPolicy
from redis_stream_client._model.statistics import Outage
from redis_stream_client._run import signals
from redis_stream_client._run.dispatcher import Dispatcher
from redis_stream_client._run.handler import Handler, require_handler
from redis_stream_client._run.outcome import Rules
from redis_stream_client._run.probes import Probes

T = TypeVar("T")


class Run:
    """One call of `run()`."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        handler: Handler,
        *,
        drain_timeout: float,
        retry: RetryPolicy | None,
        max_attempts: int | NotGiven | None,
        progress_timeout: float | None,
        handle_signals: bool,
        on_done: OnDone,
        trim: bool,
        rebalance: Rebalance | None,
        health_file: str | os.PathLike[str] | None,
        health_port: int | None,
        health_host: str,
    ) -> None:
        self._lifecycle = lifecycle
        self._handler = require_handler(handler)
        self._drain_timeout = options.seconds(drain_timeout, "drain_timeout", at_least=0.0)
        if progress_timeout is not None:
            progress_timeout = options.seconds(progress_timeout, "progress_timeout", at_least=0.01)
        policy = retry_policy.policy(retry, max_attempts)
        retention.check(on_done, trim=trim)
        self._rules = Rules(policy, progress_timeout, lifecycle.options.pace, on_done=on_done, trim=trim)
        if not isinstance(handle_signals, bool):
            raise TypeError(f"handle_signals must be a bool, not {type(handle_signals).__name__}")
        if not isinstance(rebalance, Rebalance | None):
            raise TypeError(f"rebalance must be a Rebalance or None, not {type(rebalance).__name__}")
        self._rebalance = rebalance
        self._handle_signals = handle_signals
        self._signalled = False
        self._signals = contextlib.ExitStack()
        self._dispatcher: Dispatcher | None = None
        self._probes = Probes(
            lifecycle,
            lambda: self.draining,
            health_file=health_file,
            health_port=health_port,
            health_host=health_host,
        )

    async def run(self) -> None:
        """All of `run()`. A signal while it joins ends it, too."""
        try:
            await self.join()
        except ClientClosed:
            if self._signalled:
                return
            raise
        await self.until_closed()

    async def join(self) -> None:
        """Handle signals, answer probes, and join, if the client has not joined yet. A client that cannot join is
        closed."""
        if self._handle_signals:
            # Before joining, which may take long: process 1 of a container ignores signals that nobody handles.
            signals.require_main_thread()
            self._signals.enter_context(signals.caught(self._on_signal))
        try:
            await self._probes.open()
            await self._join()
        except BaseException:
            self._signals.close()
            await self._probes.close()
            raise

    async def _join(self) -> None:
        parts = await self._lifecycle.join_to_run(self)
        self._dispatcher = Dispatcher(
            self._handler,
            self._rules,
            self._drain_timeout,
            self._rebalance,
            log=parts.log,
            outages=parts.outages,
            options=parts.options,
            session=parts.session,
            tasks=parts.tasks,
            event_queue=parts.event_queue,
            table=parts.table,
            capacity=parts.capacity,
            sweeps=parts.sweeps,
            peers=parts.peers,
            balancer=parts.balancer,
            orders=parts.orders,
            backend=parts.backend,
            endings=parts.endings,
            progress=parts.progress,
            retention=parts.retention,
            hints=parts.hints,
            counters=parts.counters,
        )
        if self._lifecycle.drain_requested:
            self._dispatcher.drain()

    async def until_closed(self) -> None:
        """Call handlers until a drain or the end of the client, and close it. If cancelled, release at once."""
        assert self._dispatcher is not None, "join() comes first"
        try:
            self._probes.joined()
            with self._signals:
                await self._serve(self._dispatcher)
        finally:
            try:
                await self._lifecycle.close()
            finally:
                await self._probes.close()
        if self._lifecycle.failure is not None:
            raise self._lifecycle.failure

    async def _serve(self, dispatcher: Dispatcher) -> None:
        serving = dispatcher.start()
        try:
            await asyncio.wait((serving,))
        except asyncio.CancelledError:
            dispatcher.cut_short()
            with anyio.move_on_after(leaving.GRACE, shield=True):
                await asyncio.wait((serving,))
            if not serving.done():
                dispatcher.say_what_goes_on()
            raise
        serving.result()

    def drain(self) -> None:
        """See `RedisStreamClient.drain`."""
        if self._dispatcher is not None:
            self._dispatcher.drain()
        self._probes.look()

    @property
    def draining(self) -> bool:
        """Whether it drains, or releases everything."""
        return self._lifecycle.drain_requested or (self._dispatcher is not None and self._dispatcher.draining)

    @property
    def health_port(self) -> int | None:
        """The port that answers probes now."""
        return self._probes.port

    @property
    def handled(self) -> set[LeaseState]:
        """The leases whose handler was called."""
        return self._dispatcher.handled if self._dispatcher is not None else set()

    @property
    def outage(self) -> Outage | None:
        """What looks like an outage of something that the handlers depend on."""
        return self._dispatcher.outage if self._dispatcher is not None else None

    def _on_signal(self) -> None:
        if self._signalled and self._dispatcher is not None:
            self._dispatcher.cut_short()
        self._signalled = True
        self._lifecycle.drain()
        self._lifecycle.give_up_joining()


class Background(Protocol):
    """What runs in the background of a block: a `Run`."""

    async def join(self) -> None:
        """Begin."""
        ...

    async def until_closed(self) -> None:
        """Work to the end. If cancelled, end at once."""
        ...

    def drain(self) -> None:
        """Ask for the end."""
        ...


class Running(Generic[T]):
    """The block of ``async with client.running(handler):``.

    Entering the block joins. Leaving it drains, and waits for the drain; leaving it by a cancellation releases all
    streams at once. If `run()` fails, the block is cancelled, and leaving it raises the failure.

    Args:
        run: what runs in the background.
        client: what entering the block returns.
    """

    def __init__(self, run: Background, client: T) -> None:
        self._run = run
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._cancel_scope: CancelScope | None = None

    async def __aenter__(self) -> T:
        if self._task is not None:
            raise RuntimeError("enter it once; call running() again for another")
        await self._run.join()
        self._cancel_scope = CancelScope()
        self._task = start_task(self._run.until_closed(), "redis_stream_client running")
        self._task.add_done_callback(self._ended)
        return self._client

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None and self._cancel_scope is not None:
            self._cancel_scope.fire("run() failed")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        assert self._cancel_scope is not None
        cancelled = is_a(error, asyncio.CancelledError)
        _, cancelled_by_others = await self._cancel_scope.leave(cancelled)
        if cancelled_by_others:
            self._cancel(self._task)
        else:
            self._run.drain()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._cancel(self._task)
            raise
        if cancelled_by_others:
            raise asyncio.CancelledError
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None and (error is None or cancelled):
            raise failure

    @staticmethod
    def _cancel(task: "asyncio.Task[None]") -> None:
        """Cancel the task after its first step: one that is cancelled before never begins, and closes nothing."""
        asyncio.get_running_loop().call_soon(task.cancel)
