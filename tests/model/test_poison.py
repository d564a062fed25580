"""The error that no further attempt can mend: it says all in a few words, and travels."""

from __future__ import annotations

import copy
import pickle

import pytest

from redis_stream_client import PoisonError
from redis_stream_client._model.failures import LONGEST_TEXT, describe
from tests.harness.exceptions import ERRORS


def caused_by(cause: BaseException | None) -> PoisonError:
    try:
        raise PoisonError("unknown tenant") from cause
    except PoisonError as error:
        return error


class UnknownTenant(PoisonError):
    """One of the user's own."""


def test_its_description_has_its_cause() -> None:
    assert describe(caused_by(KeyError("t-7"))) == "PoisonError: unknown tenant: KeyError: 't-7'"
    assert describe(caused_by(None)) == "PoisonError: unknown tenant"
    assert describe(UnknownTenant("t-7")) == "UnknownTenant: t-7"


def test_a_cause_that_is_a_circle_is_told_once() -> None:
    error = PoisonError("unknown tenant")
    error.__cause__ = error
    assert describe(error) == "PoisonError: unknown tenant"


@pytest.mark.parametrize("cause", ERRORS)
def test_whatever_its_cause_it_is_described_in_a_few_printable_words(cause: str) -> None:
    text = describe(caused_by(ERRORS[cause]()))
    assert text.startswith("PoisonError: unknown tenant: ")
    assert len(text) <= LONGEST_TEXT
    text.encode()


def test_it_can_be_copied_and_pickled_under_its_public_name() -> None:
    error = PoisonError("unknown tenant")
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert repr(copied) == "PoisonError('unknown tenant')"
    assert PoisonError.__module__ == "redis_stream_client"
