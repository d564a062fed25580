"""The package's logger. A broken handler of the user's cannot break the package.

Filters, handlers and formatters are code of the user, called in the middle of ours. If one raises, a line on
stderr says so, as `logging` itself does, and our code goes on.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping
from typing import Any

from redis_stream_client._model.failures import describe

LONGEST_TEXT = 20_000
"""The longest text of an exception, in characters, that is logged as it is."""

_LOOKED_AT = ("__cause__", "__context__", "__traceback__", "__suppress_context__")
_traceback_of = BaseException.__dict__["__traceback__"].__get__


class Undescribable(Exception):
    """Replaces, in the log, an exception that cannot be printed. Its text says what is known about it."""


class Log:
    """A logger whose methods never raise. With `error` they log the traceback of this exception, too."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log what helps to find a bug of the package."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, message, args, None, extra)

    def info(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log what happens in a healthy fleet, too."""
        self._log(logging.INFO, message, args, None, extra)

    def warning(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log what the operator should know."""
        self._log(logging.WARNING, message, args, None, extra)

    def error(
        self,
        message: str,
        *args: object,
        error: BaseException | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Log what the operator should look at."""
        self._log(logging.ERROR, message, args, error, extra)

    def _log(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        error: BaseException | None,
        extra: Mapping[str, Any] | None,
    ) -> None:
        exc_info: Any = None
        if error is not None and self._logger.isEnabledFor(level):
            shown = error if _presentable(error) else _stand_in(error)
            exc_info = (type(shown), shown, _traceback_of(shown))  # a bare one is asked whether it is true
        try:
            self._logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=3)
            return
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever the user's code raises
            _complain(failure)
        if error is not None:  # once more, without the exception
            self._log(level, message + ": %s", (*args, describe(error)), None, extra)


log = Log("redis_stream_client")


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
