"""`run()`, and `running()`, which is `run()` in the background of a block."""

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.lease import LEAVING_GRACE, Lease
from redis_stream_client._model import options
from redis_stream_client._model.failures import is_a
from redis_stream_client._model.logs import log
from redis_stream_client._run import signals
from redis_stream_client._run.dispatcher import Dispatcher
from redis_stream_client._run.handler import Handler, require_handler
from redis_stream_client._run.outcome import Rules

if TYPE_CHECKING:
    from redis_stream_client.client import RedisStreamClient


class Run:
    """One use of `run()`."""

    def __init__(
        self,
        client: "RedisStreamClient",
        handler: Handler,
        drain_timeout: float,
        max_attempts: int,
        progress_timeout: float | None,
        handle_signals: bool,
    ) -> None:
        self._client = client
        self._handler = require_handler(handler)
        self._drain_timeout = options.seconds(drain_timeout, "drain_timeout", at_least=0.0)
        if progress_timeout is not None:
            progress_timeout = options.seconds(progress_timeout, "progress_timeout", at_least=0.01)
        self._rules = Rules(
            options.count(max_attempts, "max_attempts"), progress_timeout, client._options.lock_ttl
        )
        if not isinstance(handle_signals, bool):
            raise TypeError(f"handle_signals must be a bool, not {type(handle_signals).__name__}")
        self._handle_signals = handle_signals
        self._signalled = False
        self._worker: Dispatcher | None = None

    async def join(self) -> None:
        """Join, if that was not done before, and begin. A client that is in use already goes on; one that cannot
        join is closed."""
        client = self._client
        if client._closed:
            raise client._gone()
        if client._session is not None and not client._session.closed.is_set():
            client._session.require_here()
        if client._run is not None:
            raise RuntimeError("run() runs already; a client runs one handler")
        if client._events.busy:
            raise RuntimeError("a task reads this client's events(); use the one or the other")
        if self._handle_signals:
            signals.require_main_thread()
        client._run = self
        try:
            session = await client._join()
        except BaseException:
            await client.aclose()
            raise
        self._worker = Dispatcher(session, self._handler, self._rules, self._drain_timeout)
        if client._drain_requested:
            self._worker.drain()

    async def until_closed(self) -> None:
        """Run. Cancelled, it releases at once."""
        assert self._worker is not None
        try:
            with signals.handled(self._on_signal) if self._handle_signals else contextlib.nullcontext():
                await self._serve(self._worker)
        finally:
            await self._client.aclose()
        assert self._client._session is not None
        if self._client._session.failure is not None:
            raise self._client._session.failure

    async def _serve(self, worker: Dispatcher) -> None:
        serving = worker.start()
        try:
            await asyncio.wait((serving,))
        except asyncio.CancelledError:
            worker.cut_short()
            with anyio.move_on_after(LEAVING_GRACE, shield=True):
                await asyncio.wait((serving,))
            if not serving.done():
                log.warning("run() was cancelled; %d handlers are still ending", worker.working)
            raise
        serving.result()

    def drain(self) -> None:
        """See `RedisStreamClient.drain`."""
        if self._worker is not None:
            self._worker.drain()

    @property
    def handled(self) -> set[Lease]:
        """The leases whose handler was called."""
        return self._worker.handled if self._worker is not None else set()

    def _on_signal(self) -> None:
        if self._signalled and self._worker is not None:
            self._worker.cut_short()
        self._signalled = True
        self._client.drain()


class Running:
    """The block of ``async with client.running(handler):``.

    Entering joins. Leaving drains, and waits for that; leaving by a cancellation releases at once. When `run()`
    fails, the block is cancelled, and leaving it raises the failure.
    """

    def __init__(self, client: "RedisStreamClient", run: Run) -> None:
        self._client = client
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self._cancel_scope: CancelScope | None = None

    async def __aenter__(self) -> "RedisStreamClient":
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
            self._task.cancel()
        else:
            self._run.drain()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if cancelled_by_others:
            raise asyncio.CancelledError
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None and (error is None or cancelled):
            raise failure
