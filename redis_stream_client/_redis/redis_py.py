"""The inside of redis-py: all that this package needs of it and that has no public way is in this module.

Each function touches one thing that redis-py keeps to itself, or does in another way from version to version, and
says why it must. All hold from redis-py 5.2.1 to 8.1; this module's tests run on the oldest and on the newest.
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
"""The exception that redis-py makes of an error reply."""

_reader = attrgetter("_reader")
_writer = attrgetter("_writer")
_parser = attrgetter("_parser")
_close = methodcaller("_close")
_STREAM = "_stream"
_ARGUMENTS = "_connection_arguments"
_DYNAMIC = "_dynamic_startup_nodes"

# Before 5.3, redis-py asks for a command's name, and does not use it.
_wanted = signature(ConnectionPool.get_connection).parameters.get("command_name")
_NAMED = ("XADD",) if _wanted is not None and _wanted.default is Parameter.empty else ()


def reader(connection: AbstractConnection) -> asyncio.StreamReader | None:
    """What a connection reads from; None when it is closed.

    redis-py reads replies through its parser alone, in a shape that depends on the user's settings.
    """
    stream: asyncio.StreamReader | None = _reader(connection)
    return stream


def writer(connection: AbstractConnection) -> asyncio.StreamWriter | None:
    """What a connection writes to; None when it is closed.

    redis-py's `is_connected` does not see that the transport was closed, by the peer or by us.
    """
    stream: asyncio.StreamWriter | None = _writer(connection)
    return stream


def close(connection: AbstractConnection) -> None:
    """Close a connection and let go of its streams. redis-py's public way is a coroutine."""
    _close(connection)


def wrap_stream(connection: AbstractConnection, wrap: Callable[[asyncio.StreamReader], Wrapper]) -> Wrapper:
    """Have the parser of an open connection read from `wrap` of its stream.

    redis-py does not tell when bytes arrive; a `parser_class` of our own would not do, since the connections of a
    cluster and of a user's own class bring theirs.
    """
    parser = _parser(connection)
    wrapper = wrap(getattr(parser, _STREAM))
    setattr(parser, _STREAM, wrapper)
    return wrapper


def has_address(connection_class: type[AbstractConnection]) -> bool:
    """Whether connections of this class go to a host and a port, and not to a socket's path."""
    return hasattr(connection_class, _ARGUMENTS)


@contextlib.contextmanager
def aimed(connection: AbstractConnection, host: str, address: str) -> Generator[None]:
    """In this block a connection to `host` is opened to one of the name's addresses.

    TLS goes on to verify the host's name, which with redis-py's own `host` setting would be the address.
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
    """A connection of a pool; to be released to it."""
    connection: AbstractConnection = await pool.get_connection(*_NAMED)  # type: ignore[no-untyped-call]
    return connection


def empty_copy(pool: Any, **changed: Any) -> Any:
    """A pool with all that the user's own class has set, some of it `changed`, and without any connection.

    Its constructor would not do: a class of the user's own may ask it for anything.
    """
    twin = copy.copy(pool)
    vars(twin).update(_available_connections=[], _in_use_connections=weakref.WeakSet(), **changed)
    return twin


def dynamic_startup_nodes(manager: NodesManager) -> bool | None:
    """The user's setting of this name; None in older versions of redis-py, which do not have it."""
    return getattr(manager, _DYNAMIC, None)
