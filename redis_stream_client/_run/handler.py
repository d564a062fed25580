"""The handler that users pass to `run()`, and how it is checked."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from redis_stream_client._leases.lease import Lease

Handler = Callable[[Lease], Awaitable[object]]
"""Any async callable that takes a lease. Its result is ignored."""


def require_handler(handler: Any) -> Handler:
    """Check that this is an async callable. A ``TypeError`` says what is wrong."""
    called = handler
    while isinstance(called, functools.partial):
        called = called.func
    if not (inspect.isfunction(called) or inspect.ismethod(called) or inspect.isbuiltin(called)):
        called = getattr(called, "__call__", called) if not inspect.isclass(called) else called  # noqa: B004
    while isinstance(called, functools.partial):
        called = called.func
    if inspect.iscoroutinefunction(called):
        return handler  # type: ignore[no-any-return]
    if inspect.iscoroutine(handler):
        handler.close()
        raise TypeError("handler must be the async function itself, not what calling it returns: leave out the ()")
    if inspect.isasyncgenfunction(called):
        raise TypeError("handler must be an async function without yield; this one is an async generator")
    raise TypeError(
        f"handler must be an async callable that takes a lease, not {handler!r}: "
        "write `async def handle(lease): …` (and asyncio.to_thread() for blocking work)"
    )
