"""Looking at exceptions of users' code without trusting them.

An exception is an object that users wrote. Its text, its attributes, its truth value and the name of its class may
raise, lie, or never end. That must harm nothing but the attempt that raised it. So the package looks at such
exceptions only with the functions of this module, and logs them only through `logs`.
"""

import asyncio
from typing import TypeGuard, TypeVar

from redis_stream_client._model import errors
from redis_stream_client._model.poison import PoisonError

LONGEST_TEXT = 500
"""Characters of a description, and of the reason of a dead letter."""

Kind = TypeVar("Kind", bound=BaseException)

# Taken from `type`, so that a metaclass of the user is not asked.
_name_of_class = type.__dict__["__name__"].__get__
_bases_of_class = type.__dict__["__mro__"].__get__

_cause_of = BaseException.__dict__["__cause__"].__get__


def is_a(error: BaseException | None, kind: type[Kind]) -> TypeGuard[Kind]:
    """``isinstance()`` without the exception's ``__class__``, which may raise or lie."""
    return error is not None and issubclass(type(error), kind)


def class_is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """As ``except kind`` would decide it: nothing of the user's is asked, no metaclass either."""
    return kind in _bases_of_class(type(error))


def leaves(error: BaseException | None) -> list[BaseException]:
    """The exception; or, of a group, all those that are in it, and in the groups in it."""
    found: list[BaseException] = []
    left = [error] if error is not None else []
    for each in left:  # which grows
        if is_a(each, BaseExceptionGroup):
            left += vars(BaseExceptionGroup)["exceptions"].__get__(each)
        else:
            found.append(each)
    return found


def is_cancellation(error: BaseException | None) -> bool:
    """Whether this is a `CancelledError`, or a group of only these."""
    return error is not None and all(is_a(leaf, asyncio.CancelledError) for leaf in leaves(error))


def describe(error: BaseException) -> str:
    """The class and the text of any exception: short, and printable in UTF-8. Never raises.

    Of a `PoisonError`, this includes its cause, which is what a dead letter must say.
    """
    cause: BaseException | None = _cause_of(error) if class_is_a(error, PoisonError) else None
    if cause is None or cause is error:
        return _described(error)
    return f"{_described(error)}: {_described(cause)}"[:LONGEST_TEXT]


def _described(error: BaseException) -> str:
    name = class_name(error)
    try:
        text = str.__str__(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - its text cannot be had, for whatever reason
        return f"{name} (its text cannot be had: __str__ raised {class_name(failure)})"
    return _clean(f"{name}: {text[:LONGEST_TEXT]}" if text else name)


def class_name(error: BaseException) -> str:
    """The name of its class, or of the public class that users know if its class is private to this package."""
    kind = type(error)
    for base in _bases_of_class(kind):
        if getattr(errors, name := _name_of_class(base), None) is base:
            return _clean(name)
    return _clean(_name_of_class(kind))


def _clean(text: str) -> str:
    return text[:LONGEST_TEXT].encode(errors="backslashreplace").decode()[:LONGEST_TEXT]
