"""Cancelling an operation at each of its suspensions, one after the other, and looking for what that leaves.

The I/O of an operation belongs to tasks of the client, so the suspensions of the tasks that it starts count, too:
before the request was written, while it is under way, and with its reply.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest

from redis_stream_client._concurrency import tasks
from redis_stream_client._model.keys import Keys
from tests.harness.runs import connections
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator

    from redis_stream_client import RedisStreamClient
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

How = Literal["native", "twice", "anyio"]
"""By `task.cancel()`; by that again at the next suspension of the task itself; by anyio's cancel scope, which
cancels every further suspension as well."""

When = Literal["suspended", "executed", "woken"]
"""At once; when the server has executed what was written so far, and nobody has looked at its replies; when the
suspension is over, and its task about to go on."""

HOWS: tuple[How, ...] = ("native", "twice", "anyio")
WHENS: tuple[When, ...] = ("suspended", "executed", "woken")

EVERY_HOW = pytest.mark.parametrize("how", HOWS)
EVERY_WHEN = pytest.mark.parametrize("when", WHENS)

_strike: contextvars.ContextVar[Strike | None] = contextvars.ContextVar("strike", default=None)
"""The strike that the current task is under: tasks inherit it from who starts them."""


class Strike:
    """One cancellation, at one suspension of one operation.

    Attributes:
        at: the number of the suspension, from 0.
        reached: whether the operation came so far.
        cancelled: whether it ended by the cancellation.
        result: what it returned, if it was not cancelled.
        took: seconds from the cancellation to its end.
    """

    def __init__(self, at: int, how: How, when: When, server: Server) -> None:
        self.at = at
        self.reached = False
        self.cancelled = False
        self.result: Any = None
        self.took = 0.0
        self._struck_at = float("inf")
        self._how = how
        self._when = when
        self._server = server
        self._suspensions = 0
        self._again = how == "twice"
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[Any] | None = None
        self._started: set[asyncio.Task[Any]] = set()

    @property
    def used(self) -> bool:
        """Whether it was used."""
        return self._task is not None

    def __repr__(self) -> str:
        return f"<{self._how} cancellation at suspension {self.at}, {self._when}>"

    async def on(self, operation: Coroutine[Any, Any, Any], *, timeout: float = 20.0) -> Strike:
        """Run the operation in a task of its own, and cancel it. Raises what it raises itself."""
        asyncio.get_running_loop().set_task_factory(_task_factory)
        tasks.make_task = _own_task  # type: ignore[assignment]
        context = contextvars.copy_context()
        context.run(_strike.set, self)
        self._task = asyncio.create_task(self._run(operation), context=context)
        await asyncio.wait((self._task,), timeout=timeout)
        assert self._task.done(), f"{self!r}: it does not end"
        self.took = max(0.0, time.monotonic() - self._struck_at)
        self.cancelled = self._task.cancelled() or self._scope.cancelled_caught
        self.result = None if self._task.cancelled() else self._task.result()
        return self

    async def _run(self, operation: Awaitable[Any]) -> Any:
        if self._how == "anyio":
            with self._scope:
                return await operation
            return None
        return await operation

    async def settled(self) -> None:
        """Wait until all tasks that the operation started have ended, and those that came of their end.

        A connection that it opened may stay.
        """
        for _ in range(2):
            await wait_until(lambda: not self._at_work, f"{self!r} has settled: {self._at_work}")
            await asyncio.sleep(0)

    @property
    def _at_work(self) -> list[asyncio.Task[Any]]:
        return [
            task for task in self._started if not task.done() and task.get_name() != "redis_stream_client replies"
        ]

    # What the tasks report.

    def started(self, task: asyncio.Task[Any]) -> None:
        """A task was started under this strike."""
        self._started.add(task)

    def suspended(self, on: asyncio.Future[Any] | None) -> None:
        """The current task is about to wait for `on`, or, if that is None, for its next turn."""
        assert self._task is not None
        if self._task.done():
            return
        if self.reached:
            if self._again and asyncio.current_task() is self._task:
                self._again = False
                self._task.cancel()
            return
        if self._suspensions == self.at:
            self.reached = True
            self._arrive(on)
        self._suspensions += 1

    def _arrive(self, on: asyncio.Future[Any] | None) -> None:
        match self._when:
            case "suspended":
                self._cancel()
            case "executed":  # requests that came before a connection's first one are executed before it
                self._server.command("PING")
                self._cancel()
            case "woken":
                if on is None:
                    asyncio.get_running_loop().call_soon(self._cancel)
                else:
                    on.add_done_callback(lambda _: self._cancel())

    def _cancel(self) -> None:
        self._struck_at = time.monotonic()
        assert self._task is not None
        if self._how == "anyio":
            self._scope.cancel()
        else:
            self._task.cancel()


class Strikes:
    """A strike for each suspension, one after the other, until one finds that the operation ends before it.

    Args:
        server: the server that the operation asks.
        how, when: of the cancellations.
        first, step: the numbers of the suspensions; default: all.
    """

    def __init__(self, server: Server, how: How, when: When, *, first: int = 0, step: int = 1) -> None:
        self.points = 0
        """How many suspensions were struck so far."""
        self._make = functools.partial(Strike, how=how, when=when, server=server)
        self._numbers = itertools.count(first, step)

    def __iter__(self) -> Iterator[Strike]:
        for at in self._numbers:
            strike = self._make(at)
            yield strike
            assert strike.used, "nothing was struck"
            if not strike.reached:
                return
            self.points += 1


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells a strike whenever it is suspended."""

    def __init__(self, inner: Coroutine[Any, Any, Any], strike: Strike) -> None:
        self._inner = inner
        self._strike = strike

    def send(self, value: Any) -> Any:
        return self._told(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # what the repr of a task looks at

    def __repr__(self) -> str:
        return repr(self._inner)

    def _told(self, on: Any) -> Any:
        self._strike.suspended(on)
        return on


def _task_factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    strike = options["context"].get(_strike) if options.get("context") else _strike.get()
    if strike is None:
        return asyncio.Task(work, loop=loop, **options)
    task = asyncio.Task(_Watched(work, strike), loop=loop, **options)
    strike.started(task)
    return task


def _own_task(work: Any, *, loop: asyncio.AbstractEventLoop, name: str) -> asyncio.Task[Any]:
    """A task of the package's own, which passes by the loop's factory."""
    return _task_factory(loop, work, name=name)


# What is left.


async def agree(client: RedisStreamClient, redis: Connection, service: str) -> dict[str, str]:
    """Assert that the client and Redis agree on what is the client's, under which counts.

    Returns who owns which announcement, by Redis.
    """
    keys = Keys(service)
    pending = await redis.xpending_range(keys.lbs, keys.group, "-", "+", 10_000)
    theirs = {
        entry["message_id"].decode(): (entry["consumer"].decode(), entry["times_delivered"]) for entry in pending
    }
    mine = {lbs_id: (client.id, lease.deliveries) for lbs_id, lease in client.leases.items()}
    assert mine == {lbs_id: owner for lbs_id, owner in theirs.items() if owner[0] == client.id}
    return {lbs_id: owner for lbs_id, (owner, _) in theirs.items()}


class Traces:
    """What there was before, to find what is left."""

    def __init__(self, redis: Connection, service: str, before: int, tasks: set[asyncio.Task[Any]]) -> None:
        self._redis = redis
        self._locks = f"{{{service}-input}}:lock:*"
        self._locks_before: set[bytes] = set()
        self._connections = before
        self._tasks = tasks

    @classmethod
    async def look(cls, redis: Connection, service: str) -> Traces:
        """Look what there is now."""
        traces = cls(redis, service, await connections(redis), asyncio.all_tasks())
        traces._locks_before = set(await redis.keys(traces._locks))
        return traces

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks that were not there before."""
        fresh = asyncio.all_tasks() - self._tasks
        return {task for task in fresh if "_Link." not in str(task.get_coro())}  # the proxy's own

    async def none_left(self, *, timeout: float = 1.0) -> None:
        """Wait until no task, no lock and no connection is left."""
        await wait_until(lambda: not self.tasks, f"no task is left of {self.tasks}", timeout)

        async def gone() -> bool:
            locks = set(await self._redis.keys(self._locks)) - self._locks_before
            return not locks and await connections(self._redis) <= self._connections

        await wait_until(gone, "no lock and no connection is left", timeout)
