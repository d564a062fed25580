"""The package's errors as values: their text, and that they survive copying and pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import redis_stream_client
from redis_stream_client import RedisRejected, RedisStreamClientError
from redis_stream_client._model.errors import RedisUnavailable
from redis_stream_client._redis.error_mapping import KeyRejected, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable

ABOUT: dict[str, Any] = {"stream": "call-1", "lbs_id": "1-1", "owner": "anna", "hint": "wait"}
MORE: dict[str, Any] = {"reason": "claimed", "gone": True, "gap": ("1-1", "2-2")}
"""What some of the classes ask for besides."""

PUBLIC = [
    kind
    for kind in vars(redis_stream_client).values()
    if isinstance(kind, type) and issubclass(kind, RedisStreamClientError)
]


class OfAUser(RedisUnavailable):
    """An error that a user derived."""


def made() -> list[RedisStreamClientError]:
    errors: list[RedisStreamClientError] = []
    for kind in [*PUBLIC, OfAUser]:
        accepted = inspect.signature(kind).parameters
        keywords = {name: value for name, value in (ABOUT | MORE).items() if name in accepted}
        errors.append(kind("it failed", **keywords))
    return errors


@pytest.mark.parametrize("error", made(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deep", "pickle"],
)
def test_an_error_survives_copying_and_pickling(
    error: RedisStreamClientError, copied: Callable[[RedisStreamClientError], RedisStreamClientError]
) -> None:
    error.add_note("noted")
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error) == "it failed (wait)"
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", [KeyRejected, WrongType])
def test_users_see_only_errors_that_they_can_import(kind: type[RedisRejected]) -> None:
    error = kind("it failed", stream="call-1")
    assert traceback.format_exception_only(error) == ["redis_stream_client.RedisRejected: it failed\n"]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is RedisRejected
    assert again.stream == "call-1"
