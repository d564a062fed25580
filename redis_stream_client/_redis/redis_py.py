"""The private parts of redis-py: no other module of this package touches them.

Each function touches one thing that redis-py hides or changes between versions, and says why it must. All work
from redis-py 5.2.1 to 8.1; the tests of this module run on the oldest and on the newest.
"""

import asyncio
import contextlib
import copy
import weakref
from collections.abc import Callable, Generator
from inspect import Parameter, signature
from operator import attrgetter, methodcaller
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool
from redis.asyncio.cluster import NodesManager
from redis.asyncio.connection import AbstractConnection, DefaultParser

Wrapper = TypeVar("Wrapper")

parse_error: Callable[[str], Exception] = DefaultParser.parse_error
"""Turns an error reply into an exception, as redis-py does."""

_reader = attrgetter("_reader")
_writer = attrgetter("_writer")
_parser = attrgetter("_parser")
_close = methodcaller("_close")
_STREAM = "_stream"
_ARGUMENTS = "_connection_arguments"
_DYNAMIC = "_dynamic_startup_nodes"

# Before 5.3, redis-py wants the name of a command here, and does not use it.
_wanted = signature(ConnectionPool.get_connection).parameters.get("command_name")
_NAMED = ("XADD",) if _wanted is not None and _wanted.default is Parameter.empty else ()


def reader(connection: AbstractConnection) -> asyncio.StreamReader | None:
    """The stream that a connection reads from; None if it is closed.

    The public way goes through a parser, whose replies depend on the user's settings.
    """
    stream: asyncio.StreamReader | None = _reader(connection)
    return stream


def writer(connection: AbstractConnection) -> asyncio.StreamWriter | None:
    """The stream that a connection writes to; None if it is closed.

    The public `is_connected` does not notice that the peer, or this package, has closed the transport.
    """
    stream: asyncio.StreamWriter | None = _writer(connection)
    return stream


def close(connection: AbstractConnection) -> None:
    """Close a connection and release its streams. The public way is a coroutine."""
    _close(connection)


def wrap_stream(connection: AbstractConnection, wrap: Callable[[asyncio.StreamReader], Wrapper]) -> Wrapper:
    """Make the parser of an open connection read from `wrap` of its stream.

    redis-py does not tell when bytes arrive. Our own `parser_class` would not help, because the connections of a
    cluster and of a user's class choose theirs.
    """
    parser = _parser(connection)
    wrapper = wrap(getattr(parser, _STREAM))
    setattr(parser, _STREAM, wrapper)
    return wrapper


def has_address(connection_class: type[AbstractConnection]) -> bool:
    """Whether connections of this class go to a host and a port, and not to the path of a socket."""
    return hasattr(connection_class, _ARGUMENTS)


@contextlib.contextmanager
def aimed(connection: AbstractConnection, host: str, address: str) -> Generator[None]:
    """In this block, a connection to `host` opens to the given address of that name.

    TLS still verifies the name of the host. With the address in the `host` setting, it would verify the address.
    """
    arguments: Callable[[], dict[str, Any]] = getattr(connection, _ARGUMENTS)

    def changed() -> dict[str, Any]:
        given = dict(arguments())
        if given.get("host") == host and "sock" not in given:
            given["host"] = address
            if given.get("ssl"):
                given.setdefault("server_hostname", host)
        return given

    vars(connection)[_ARGUMENTS] = changed
    try:
        yield
    finally:
        vars(connection).pop(_ARGUMENTS, None)


async def borrow(pool: ConnectionPool) -> AbstractConnection:
    """Borrow a connection of a pool; release it afterwards.

    A pool that connects greets the server under ``asyncio.wait_for()``, which on Python 3.11 may swallow a
    cancellation: whoever was cancelled would go on with his work.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    connection: AbstractConnection = await pool.get_connection(*_NAMED)  # type: ignore[no-untyped-call]
    if task.cancelling() > cancelled:
        await pool.release(connection)
        raise asyncio.CancelledError
    return connection


def empty_copy(pool: Any, **changed: Any) -> Any:
    """A copy of a pool with all attributes of the user's class, some of them `changed`, and without any
    connection.

    We cannot call the constructor: a class of the user may have any parameters.
    """
    twin = copy.copy(pool)
    vars(twin).update(_available_connections=[], _in_use_connections=weakref.WeakSet(), **changed)
    return twin


def dynamic_startup_nodes(manager: NodesManager) -> bool | None:
    """The user's setting of this name; None in older versions of redis-py, which do not have it."""
    return bool(getattr(manager, _DYNAMIC)) if hasattr(manager, _DYNAMIC) else None
