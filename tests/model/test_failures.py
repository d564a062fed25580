"""What users' code raises is looked at and described without trusting it."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._model.failures import LONGEST_TEXT, describe, is_a, is_cancellation
from redis_stream_client._redis.error_mapping import WrongType
from tests.harness.exceptions import ERRORS, Anonymous, Liar, Raises, nested


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_described_in_a_few_printable_words(error: str) -> None:
    text = describe(ERRORS[error]())
    assert 0 < len(text) <= LONGEST_TEXT
    text.encode()


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_known_by_its_class_whatever_it_says(error: str) -> None:
    raised = ERRORS[error]()
    assert is_a(raised, BaseException)
    assert not is_a(raised, KeyboardInterrupt)
    assert not is_a(None, BaseException)


async def test_a_keyboard_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        describe(Raises(KeyboardInterrupt()))


def test_a_description_names_the_class_that_users_know() -> None:
    assert describe(WrongType("no stream")) == "RedisRejected: no stream"
    assert describe(ValueError()) == "ValueError"
    assert describe(Anonymous("text")) == "Anonymous: text"


def test_what_is_a_cancellation() -> None:
    assert is_cancellation(asyncio.CancelledError())
    assert is_cancellation(nested(asyncio.CancelledError()))
    assert not is_cancellation(None)
    assert not is_cancellation(Liar())
    assert not is_cancellation(BaseExceptionGroup("group", [asyncio.CancelledError(), ValueError()]))
    assert not is_cancellation(nested(KeyboardInterrupt()))
