"""Tasks of the client's own, for I/O that a user waits for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.tasks import start_task

Closed = TypeVar("Closed", bound=Exception)


class OwnedTasks(Generic[Closed]):
    """The tasks of one client. If a user who waits is cancelled, the work goes on.

    Args:
        home: the process and event loop in which tasks may start.
        closed: makes the error of every call after the end.
        expected: whether an error of a task concerns only those who wait for it. Any other error ends everything.

    Attributes:
        ending: set once the end has begun; no task starts after that.
        failure: the failure that has begun the end; None if somebody asked for it.
    """

    def __init__(
        self, home: Home, *, closed: Callable[[], Closed], expected: Callable[[BaseException], bool]
    ) -> None:
        self._home = home
        self._closed = closed
        self._expected = expected
        self._running: set[asyncio.Task[Any]] = set()
        self.ending = asyncio.Event()
        self.failure: BaseException | None = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in a task. Raises the error of `gone` after the end has begun, and ``RuntimeError`` in
        another process or on another event loop."""
        try:
            if self.ended:
                raise self.gone()
            self._home.require_here()
        except BaseException:
            work.close()
            raise
        task = start_task(work, "redis_stream_client operation")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._expected(error):
            self.fail(error)

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return list(self._running)

    @property
    def ended(self) -> bool:
        """Whether the end has begun."""
        return self.ending.is_set()

    def end(self) -> None:
        """Start no more tasks. Those that run go on."""
        self.ending.set()

    def fail(self, error: BaseException) -> None:
        """End because of a failure that cannot be retried."""
        if self.failure is None:
            self.failure = error
        self.end()

    def gone(self) -> Closed:
        """The error of every call after the end, with the failure as its cause."""
        error = self._closed()
        error.__cause__ = self.failure
        return error
