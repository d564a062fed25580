"""Starting tasks of our own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
    """Run `work` in a task that does not begin before its creator goes on, whatever the loop's task factory is.

    With ``asyncio.eager_task_factory`` (Python 3.12) a task may be over before ``create_task()`` returns; what its
    creator sets behind that line then comes too late. So the package starts its tasks here, and nowhere else.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
