"""The package's logger. Each line says whose it is, and a broken handler of the user's cannot break the package.

Filters, handlers and formatters are code of the user, called in the middle of ours. If one raises, a line on
stderr says so, as `logging` itself does, and our code goes on.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from redis_stream_client._model.failures import describe
from redis_stream_client._model.log_fields import LogFields

NAME = "redis_stream_client"
"""The name of the logger."""

LONGEST_TEXT = 20_000
"""The longest text of an exception, in characters, that is logged as it is."""

_LOOKED_AT = ("__cause__", "__context__", "__traceback__", "__suppress_context__")
_traceback_of = BaseException.__dict__["__traceback__"].__get__


class Undescribable(Exception):
    """Replaces, in the log, an exception that cannot be printed. Its text says what is known about it."""


MOST = 50
"""Lines with the same text, but for its arguments, that are written within a minute. More are written at DEBUG."""

MINUTE = 60.0

LEFT_OUT = "%d lines more like the next one were left out; at DEBUG they are all written: %r"


class _Alike:
    """How many lines with the same text there were, until when they are counted."""

    __slots__ = ("lines", "until")

    def __init__(self, until: float) -> None:
        self.lines = 1
        self.until = until


class Subject(Protocol):
    """What a line is about: a lease, for example."""

    def log_fields(self) -> LogFields:
        """The fields that name it. Asked only if the line is written."""
        ...


class Log:
    """The log of one consumer; or of a service, for who announces streams or looks at the fleet from outside.

    There is no other way to write a line, so every line says whose it is. The methods never raise. They add the
    fields of `about`, then those of `extra`. With `error` they log the traceback of this exception, too.

    Args:
        service: the name of the service.
        consumer: the id of the consumer.
    """

    __slots__ = ("_alike", "_fields", "_logger")

    def __init__(self, *, service: str, consumer: str | None = None) -> None:
        self._logger = logging.getLogger(NAME)
        self._fields = LogFields(service=service)
        if consumer is not None:
            self._fields["consumer"] = consumer
        self._alike: dict[str, _Alike] = {}

    def debug(
        self, message: str, *args: object, about: Subject | None = None, extra: LogFields | None = None
    ) -> None:
        """Log what helps to find a bug of the package."""
        self._log(logging.DEBUG, message, args, None, about, extra)

    def info(
        self, message: str, *args: object, about: Subject | None = None, extra: LogFields | None = None
    ) -> None:
        """Log what happens in a healthy fleet, too."""
        self._log(logging.INFO, message, args, None, about, extra)

    def warning(
        self, message: str, *args: object, about: Subject | None = None, extra: LogFields | None = None
    ) -> None:
        """Log what the operator should know."""
        self._log(logging.WARNING, message, args, None, about, extra)

    def error(
        self,
        message: str,
        *args: object,
        error: BaseException | None = None,
        about: Subject | None = None,
        extra: LogFields | None = None,
    ) -> None:
        """Log what the operator should look at."""
        self._log(logging.ERROR, message, args, error, about, extra)

    def _log(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        error: BaseException | None,
        about: Subject | None,
        extra: LogFields | None,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if level > logging.DEBUG and not self._admit(level, message):
            level = logging.DEBUG
            if not self._logger.isEnabledFor(level):
                return
        fields: LogFields = {**self._fields}
        if error is not None:
            fields["error"] = describe(error)
        if about is not None:
            fields.update(about.log_fields())
        if extra is not None:
            fields.update(extra)
        exc_info: Any = None
        if error is not None:
            shown = error if _presentable(error) else _stand_in(error)
            exc_info = (type(shown), shown, _traceback_of(shown))  # a bare one is asked whether it is true
        if not self._written(level, message, args, exc_info, fields) and error is not None:
            self._written(level, message + ": %s", (*args, describe(error)), None, fields)

    def _admit(self, level: int, message: str) -> bool:
        """Whether a line is one of the first `MOST` like it within a minute. Thousands of streams may fail at
        once, and must not bury what else the log says; nobody reads all their lines."""
        now = time.monotonic()
        alike = self._alike.get(message)
        if alike is None or now >= alike.until:
            left_out = alike.lines - MOST if alike is not None else 0
            self._alike[message] = _Alike(now + MINUTE)
            if left_out > 0:
                fields: LogFields = {**self._fields, "left_out": left_out}
                self._written(level, LEFT_OUT, (left_out, message), None, fields)
            return True
        alike.lines += 1
        return alike.lines <= MOST

    def _written(
        self, level: int, message: str, args: tuple[object, ...], exc_info: Any, fields: LogFields
    ) -> bool:
        """Write a line. Returns False if code of the user has failed, which a line on stderr says."""
        try:
            args = tuple(map(_writable, args))
            extra = {name: _writable(value) for name, value in fields.items()}
            self._logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=4)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever the user's code raises
            _complain(failure)
            return False
        return True


def _writable(value: object) -> object:
    """A text that every handler can write: a name in Redis need not be UTF-8, and files and collectors are."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):  # what a text with named places is filled with
        return {name: _writable(each) for name, each in value.items()}
    text = str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _presentable(error: BaseException) -> bool:
    """Whether a formatter can print the exception itself."""
    try:
        text = str(error)
        text.encode()
        for name in ("__name__", "__qualname__", "__module__"):
            getattr(type(error), name).encode()
        for name in _LOOKED_AT:
            getattr(error, name)
        notes = getattr(error, "__notes__", ())
        return bool(error) and len(text) <= LONGEST_TEXT and all(isinstance(note, str) for note in notes)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        return False


def _stand_in(error: BaseException) -> Undescribable:
    return Undescribable(describe(error)).with_traceback(_traceback_of(error))


def _complain(failure: BaseException) -> None:
    if logging.raiseExceptions and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed
            sys.stderr.write(f"redis_stream_client: a log handler failed: {describe(failure)}\n")
