"""Ids of entries: what Redis takes, and what it does not."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from redis_stream_client import PoisonError
from redis_stream_client._model.entry import LONGEST_NAME, Entry, from_reply, order, parse_id, require_id


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


def test_an_entry_knows_its_stream_and_is_equal_without_it() -> None:
    entry = from_reply([b"5-0", [b"n", b"1", b"n", b"2"]], "call-17")
    assert (entry.id, entry.fields, entry.stream) == ("5-0", {b"n": b"2"}, "call-17")
    assert entry == Entry("5-0", {b"n": b"2"})
    assert hasattr(entry, "__slots__")


@pytest.mark.parametrize(
    ("fields", "stream", "message"),
    [
        (
            {b"ok": b"1", b"said": b"\xff"},
            "call-17",
            "invalid start byte, in field b'said' of entry 5-0 of 'call-17'",
        ),
        ({b"\xff": b"1"}, "call-17", r"in field b'\\xff' of entry 5-0 of 'call-17'"),
        ({b"said": b"\xff"}, "", "in field b'said' of entry 5-0$"),
        ({b"x" * 10_000: b"\xff"}, "", f"in field b'x{{{LONGEST_NAME}}}' of entry 5-0$"),
    ],
)
def test_what_is_no_text_is_an_error_that_says_where(
    fields: dict[bytes, bytes], stream: str, message: str
) -> None:
    with pytest.raises(UnicodeDecodeError, match=message) as caught:
        Entry("5-0", fields, stream).text()
    assert caught.value.object == b"\xff"
    assert str(copy.copy(caught.value)) == str(caught.value)


def test_a_decoder_gets_the_fields_as_text_or_the_bytes_of_one() -> None:
    entry = Entry("5-0", {b"n": b"1", b"json": b"[2]"}, "call-17")
    assert entry.decode(lambda fields: int(fields["n"])) == 1
    assert entry.decode(json.loads, "json") == [2]
    assert entry.decode(json.loads, field="json") == [2]


@pytest.mark.parametrize(
    ("field", "cause"),
    [(None, UnicodeDecodeError), ("n", ValueError), ("absent", KeyError), ("\udcff", UnicodeEncodeError)],
)
def test_what_cannot_be_decoded_is_poison(field: Any, cause: type[Exception]) -> None:
    with pytest.raises(PoisonError, match=r"^entry 5-0 of 'call-17' cannot be decoded$") as caught:
        Entry("5-0", {b"n": b"one", b"raw": b"\xff"}, "call-17").decode(int, field)
    assert type(caught.value.__cause__) is cause


def test_a_cancellation_is_not_poison() -> None:
    def cancelled(fields: dict[str, str]) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        Entry("5-0", {b"n": b"1"}).decode(cancelled)
