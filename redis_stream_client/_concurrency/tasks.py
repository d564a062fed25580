"""Starting tasks of our own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

make_task = asyncio.Task
"""What makes the tasks of the package. The tests of cancellation put something in its place that watches them."""


def start_task(work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
    """Run `work` in a task that does not begin before its creator goes on, whatever the loop's task factory is.

    With ``asyncio.eager_task_factory`` (Python 3.12) a task may be over before ``create_task()`` returns; what its
    creator sets behind that line then comes too late. So the package starts its tasks here, and nowhere else,
    those of handlers too: a factory of the user's is for the tasks that the user starts.
    """
    return make_task(work, loop=asyncio.get_running_loop(), name=name)


async def gather(*works: Coroutine[Any, Any, T], name: str) -> list[T]:
    """Like ``asyncio.gather()``, in tasks that `start_task` starts."""
    return await asyncio.gather(*(start_task(work, name) for work in works))
