"""I/O that a user waits for, in tasks that are not the user's."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.tasks import start_task

Closed = TypeVar("Closed", bound=Exception)


class OwnedTasks(Generic[Closed]):
    """The tasks of one owner: a user who is cancelled only stops waiting, and the work goes on.

    Args:
        home: where tasks may be started.
        closed: makes the error of every call after the end.
        expected: whether a task's error is for those alone who wait for it. Any other one ends everything.

    Attributes:
        ending: set once the end has begun. From then on no task starts.
        failure: why the end has begun, if nobody asked for it.
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
        """Run `work`. Raises what `gone` returns once the end has begun, and ``RuntimeError`` elsewhere."""
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
        """Start nothing from now on. What runs already goes on."""
        self.ending.set()

    def fail(self, error: BaseException) -> None:
        """End, for a reason that cannot be retried."""
        if self.failure is None:
            self.failure = error
        self.end()

    def gone(self) -> Closed:
        """The error of every call after the end, with the reason as its cause."""
        error = self._closed()
        error.__cause__ = self.failure
        return error
