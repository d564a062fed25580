"""The fields of an entry to write: what is sent, and what is refused before."""

from __future__ import annotations

import re
from typing import Any

import pytest

from redis_stream_client._model.fields import MOST_FIELDS, encode, require_maxlen, require_own_id


def test_names_and_values_are_encoded_as_redis_py_does() -> None:
    fields: dict[str | bytes, Any] = {"text": "ä", b"bytes": b"\xff\0", "int": -17, "float": 0.1, "": ""}
    words = [b"text", "ä".encode(), b"bytes", b"\xff\0", b"int", b"-17", b"float", b"0.1", b"", b""]
    assert encode(fields) == words


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ([("a", "b")], TypeError, "fields must be a mapping, not list"),
        ({}, ValueError, "from 1 to 3500 fields, not 0"),
        ({str(n): "" for n in range(MOST_FIELDS + 1)}, ValueError, "from 1 to 3500 fields, not 3501"),
        ({1: "a"}, TypeError, "name of a field must be a str or bytes, not 1"),
        ({"a": None}, TypeError, "value of 'a' must be a str, bytes, int or float, not NoneType"),
        ({"a": True}, TypeError, "not bool"),
        ({"a": {}}, TypeError, "not dict"),
        ({"a": "\ud800"}, ValueError, "surrogates not allowed"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_anything_else_is_refused(fields: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encode(fields)


def test_as_many_fields_as_allowed() -> None:
    assert len(encode({str(n): n for n in range(MOST_FIELDS)})) == 2 * MOST_FIELDS


@pytest.mark.parametrize("id", ["*", "123", "123-*", "-1-1", "0-0", "00-0", "1-18446744073709551616", "", "a-b"])
def test_an_id_names_one_entry(id: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(id)) if id != "00-0" else "'0-0'"):
        require_own_id(id)


def test_an_id_is_a_text() -> None:
    assert require_own_id("017-5") == "17-5"
    for wrong in (b"17-5", 17, None):
        with pytest.raises(TypeError):
            require_own_id(wrong)


def test_how_many_to_keep() -> None:
    assert require_maxlen(1) == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            require_maxlen(wrong)
    for other in (True, "1", 1.0):
        with pytest.raises(TypeError, match="must be an int"):
            require_maxlen(other)
