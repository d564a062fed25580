"""What a dead letter says beyond its reason: stored as JSON, and read with mistrust."""

from __future__ import annotations

import json

import pytest

from redis_stream_client._model.letter_details import LetterDetails, decode, split


@pytest.mark.parametrize(
    "details",
    [
        LetterDetails(),
        LetterDetails("3-0", "4-0", "LookupError", "no such customer", 16, 2, 1_790_000_000.5),
        LetterDetails(error="no progress in time", failures=1),
        LetterDetails(error_type="Gespräch", error="\ud800"),
    ],
)
def test_what_is_stored_is_read(details: LetterDetails) -> None:
    assert decode(details.encode().encode()) == details


def test_what_is_not_known_is_not_stored() -> None:
    assert json.loads(LetterDetails(position="1-0").encode()) == {"position": "1-0"}


@pytest.mark.parametrize(
    "stored",
    [
        b"", b"\xff", b"null", b"[1]", b'"text"', b"[" * 100_000,
        b'{"position": 5, "last_entry": [], "error": {}, "failures": -1, "deaths": true}',
        b'{"failing_since": NaN}', b'{"failing_since": 1e999}', b'{"failing_since": "now"}', b'{"colour": "blue"}',
    ],
)  # fmt: skip
def test_what_makes_no_sense_says_nothing(stored: bytes) -> None:
    assert decode(stored) == LetterDetails()


@pytest.mark.parametrize(
    ("description", "parts"),
    [
        ("LookupError: no such customer", ("LookupError", "no such customer")),
        ("LookupError: a: b", ("LookupError", "a: b")),
        ("TimeoutError", ("TimeoutError", None)),
        ("no progress in time", (None, "no progress in time")),
        ("Raises (its text cannot be had)", (None, "Raises (its text cannot be had)")),
        ("", (None, None)),
    ],
)
def test_a_description_is_a_class_and_a_text(description: str, parts: tuple[str | None, str | None]) -> None:
    assert split(description) == parts
