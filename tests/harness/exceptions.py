"""Exceptions as users' code may raise them: they raise when they are looked at, lie, or are endless."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis_stream_client import RedisRejected

if TYPE_CHECKING:
    from collections.abc import Callable


class Ours(BaseException):
    """A program's own, outside of `Exception`."""


class Raises(Exception):
    """Its text cannot be had."""

    def __init__(self, what: BaseException) -> None:
        self.what = what

    def __str__(self) -> str:
        raise self.what

    __repr__ = __str__


class NoText(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 17  # type: ignore[return-value]


class Untrue(Exception):
    """It can be neither compared nor asked whether it is true."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class Liar(Exception):
    """It does not tell its class, nor anything else."""

    def __getattribute__(self, name: str) -> Any:
        raise Ours


class Nameless(type):
    """The class of classes without a name."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise Ours
        return super().__getattribute__(name)


class Anonymous(Exception, metaclass=Nameless):
    """Its class has no name that could be asked for."""


def noted() -> BaseException:
    """An exception whose notes are none."""
    error = ValueError("noted")
    error.__notes__ = 17  # type: ignore[assignment]
    return error


def endless() -> BaseException:
    """An exception that is its own cause, by a way around."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def nested(inner: BaseException, depth: int = 50) -> BaseException:
    """Groups of groups."""
    for _ in range(depth):
        inner = BaseExceptionGroup("group", [inner])
    return inner


ERRORS: dict[str, Callable[[], BaseException]] = {
    "str-raises": lambda: Raises(AttributeError("response")),
    "str-raises-base": lambda: Raises(Ours()),
    "str-exits": lambda: Raises(SystemExit(3)),
    "str-cancels": lambda: Raises(asyncio.CancelledError()),
    "str-raises-itself": lambda: Raises(Raises(Ours())),
    "no-text": NoText,
    "huge": lambda: ValueError("x" * 30_000_000),
    "surrogates": lambda: ValueError("\udcff\x00\r\n" * 2000),
    "untrue": Untrue,
    "liar": Liar,
    "anonymous": Anonymous,
    "notes": noted,
    "endless": endless,
    "base": lambda: Ours("no exception"),
    "exit": lambda: SystemExit(3),
    "generator": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "group": lambda: ExceptionGroup("group", [Raises(Ours()), ValueError()]),
    "nested": lambda: nested(Raises(Ours())),
    "group-cancelled": lambda: nested(asyncio.CancelledError()),
    "group-interrupted": lambda: nested(KeyboardInterrupt()),
    "stop": StopIteration,
    "stop-async": StopAsyncIteration,
    "recursion": RecursionError,
    "memory": MemoryError,
    "rejected": lambda: RedisRejected("another client's"),
    "rejected-same-name": lambda: RedisRejected("another client's", stream="rejected-same-name"),
}
