"""Starting tasks: the only place where this package does so."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

make_task = asyncio.Task
"""Makes the tasks of the package. The tests of cancellation replace it, to watch the tasks."""


def start_task(work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
    """Run `work` in a task that begins only after its creator has gone on, whatever the task factory of the loop
    is.

    With ``asyncio.eager_task_factory`` (Python 3.12) a task may end before ``create_task()`` returns, and what its
    creator sets after that line comes too late. So the package starts all its tasks here, even those of handlers.
    The task factory of the user is for the tasks that the user starts.
    """
    return make_task(work, loop=asyncio.get_running_loop(), name=name)


async def gather(*works: Coroutine[Any, Any, T], name: str) -> list[T]:
    """Like ``asyncio.gather()``, with tasks that `start_task` starts."""
    return await asyncio.gather(*(start_task(work, name) for work in works))
