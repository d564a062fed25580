"""What `run()` may be told about streams that are done."""

from __future__ import annotations

from typing import Any

import pytest

from redis_stream_client._model.retention import check


@pytest.mark.parametrize(
    ("on_done", "trim", "error", "message"),
    [
        ("keeep", False, ValueError, "on_done must be one of keep, trim, delete, not 'keeep'"),
        (None, False, ValueError, "on_done must be one of keep, trim, delete, not None"),
        ([], False, ValueError, "on_done must be one of"),
        ("trim", 1, TypeError, "trim must be a bool, not int"),
        ("keep", True, ValueError, "needs on_done='trim' or 'delete'"),
    ],
)
def test_what_is_not_allowed_is_named(on_done: Any, trim: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(on_done, trim=trim)


@pytest.mark.parametrize(
    ("on_done", "trim"),
    [("keep", False), ("trim", False), ("trim", True), ("delete", False), ("delete", True)],
)
def test_what_is_allowed_is_taken(on_done: Any, *, trim: bool) -> None:
    check(on_done, trim=trim)
