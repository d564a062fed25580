"""Wait for a described condition: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

POLL = 0.005


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T | None]], description: str, timeout: float = 10.0
) -> T: ...


@overload
async def wait_until(condition: Callable[[], T | None], description: str, timeout: float = 10.0) -> T: ...


async def wait_until(condition: Callable[[], Any], description: str, timeout: float = 10.0) -> Any:
    """Return the condition's first truthy value, polling every few milliseconds.

    `condition` may be a plain function or one that returns an awaitable. It is looked at once more after
    `timeout` seconds; then an `AssertionError` gives the description and the last value seen.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        late = loop.time() >= deadline
        value = condition()
        result = await value if inspect.isawaitable(value) else value
        if result:
            return result
        if late:
            raise AssertionError(f"not within {timeout:g} s: {description} (last value: {result!r})")
        await asyncio.sleep(POLL)
