"""The handler that users pass to `run()`, and how it is checked."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any

from redis_stream_client._leases.lease import Lease

Handler = Callable[[Lease], Awaitable[object]]
"""Any async callable that takes a lease. Its result is ignored."""

LONGEST_SIGNATURE = 200
"""Characters of a signature that an error shows: it has the defaults, which may be anything."""


def require_handler(handler: Any) -> Handler:
    """Check that this is an async callable that takes a lease. A ``TypeError`` says what is wrong."""
    called = handler
    while isinstance(called, functools.partial):
        called = called.func
    if not (inspect.isfunction(called) or inspect.ismethod(called) or inspect.isbuiltin(called)):
        called = getattr(called, "__call__", called) if not inspect.isclass(called) else called  # noqa: B004
    while isinstance(called, functools.partial):
        called = called.func
    if inspect.iscoroutinefunction(called):
        _require_one_argument(handler)
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


def _require_one_argument(handler: Any) -> None:
    """Raise ``TypeError`` if a call with the lease alone is bound to fail. What cannot be known passes."""
    try:
        name, signature = _signature(handler)
    except Exception:  # noqa: BLE001 - whatever users' code raises
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"handler must take one argument, the lease; {name}{_shown(signature)} cannot be called so: {error}"
        ) from None


def _signature(handler: Any) -> tuple[str, inspect.Signature]:
    """Name and signature of the Python function that a call of the handler runs, without what is bound to it.

    That of the function's code: what a decorator says of it, by ``__wrapped__`` or ``__signature__``, is meant for
    readers. Raises anything where that is not known, such as for what is written in C.
    """
    called = handler
    bound: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while not isinstance(called, FunctionType):
        if isinstance(called, functools.partial):
            bound, keywords = called.args + bound, called.keywords | keywords
            called = called.func
        elif inspect.ismethod(called):
            bound = (called.__self__, *bound)
            called = called.__func__
        else:
            call = type(called).__call__
            if not isinstance(call, FunctionType):
                raise TypeError("not written in Python")
            bound = (called, *bound)
            called = call
    bare = FunctionType(called.__code__, {}, "handler", called.__defaults__, called.__closure__)
    bare.__kwdefaults__ = called.__kwdefaults__
    return called.__qualname__, inspect.signature(functools.partial(bare, *bound, **keywords))


def _shown(signature: inspect.Signature) -> str:
    try:
        return str(signature)[:LONGEST_SIGNATURE]
    except Exception:  # noqa: BLE001 - the representation of a default, which is the user's
        return "(…)"
