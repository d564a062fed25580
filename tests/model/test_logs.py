"""The log: a handler of the user's that fails ends nothing, and every exception can be shown."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Lease, testing
from tests.harness.exceptions import ERRORS, Ours
from tests.harness.logs import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Broken(logging.Handler):
    """A handler that fails on every record with an exception, or on every record at all."""

    def __init__(self, failure: Callable[[], BaseException], always: bool) -> None:
        super().__init__()
        self._failure = failure
        self._always = always
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Fail, as handlers of the user's may."""
        if self._always or record.exc_info:
            raise self._failure()
        self.messages.append(record.getMessage())


@pytest.fixture
def broken() -> Iterator[Callable[..., Broken]]:
    """A function that adds a broken handler to the package's logger for this test."""
    log = logging.getLogger("redis_stream_client")
    added: list[Broken] = []

    def add_broken(failure: Callable[[], BaseException], *, always: bool = False) -> Broken:
        added.append(Broken(failure, always))
        log.addHandler(added[-1])
        return added[-1]

    yield add_broken
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("failure", [ZeroDivisionError, RecursionError, Ours, SystemExit, asyncio.CancelledError])
async def test_a_log_handler_that_fails_costs_its_record_and_nothing_else(
    failure: Callable[[], BaseException],
    broken: Callable[..., Broken],
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = broken(failure)

    async def handle(lease: Lease) -> None:
        raise ValueError("the handler's")

    outcome = await testing.run_handler(handle, testing.lease("call-1"))
    assert outcome.status == "failed"
    assert any("the handler of call-1 failed" in text and "the handler's" in text for text in handler.messages)
    assert f"a log handler failed: {failure.__name__}" in capsys.readouterr().err


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_logged(error: str, caplog: pytest.LogCaptureFixture) -> None:
    raised = ERRORS[error]()
    LOG.error("it failed: %s", "call-1", error=raised)
    [record] = caplog.records
    assert record.getMessage() == "it failed: call-1"
    text = logging.Formatter().format(record)
    assert len(text) < 100_000
    text.encode()
