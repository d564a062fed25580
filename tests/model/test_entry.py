"""Ids of entries: what Redis takes, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from redis_stream_client._model.entry import Entry, order, parse_id, require_id


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0-1", (0, 1)),
        ("007-0", (7, 0)),
        ("18446744073709551615-18446744073709551615", (2**64 - 1, 2**64 - 1)),
        ("18446744073709551616-0", None),
        ("1-18446744073709551616", None),
        ("1", None),
        ("1-", None),
        ("-1", None),
        ("1-2-3", None),
        (" 1-2", None),
        ("1-2\n", None),
        ("+1-2", None),
        ("1_0-2", None),
        ("\u0661-\u0662", None),  # digits, but not Redis's
        ("", None),
    ],
)
def test_an_id_is_two_numbers_of_64_bits(text: str, parsed: tuple[int, int] | None) -> None:
    assert parse_id(text) == parsed
    if parsed is not None:
        assert require_id(text) == f"{parsed[0]}-{parsed[1]}"
        assert order(text) == parsed
    else:
        with pytest.raises(ValueError, match="entry's id"):
            require_id(text)


@pytest.mark.parametrize("value", [Entry("1-0", {}), b"1-0", 1, None])
def test_what_is_no_text_is_no_id(value: Any) -> None:
    with pytest.raises(TypeError):
        require_id(value)
