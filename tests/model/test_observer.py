"""What an observer of the user may do, and raise, without harm."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Fence, Gain, HandlerStart, Observer, Sending
from redis_stream_client._model import observer as observers
from redis_stream_client._model.observer import SafeObserver
from tests.harness.logs import LOG

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

FENCE = Fence.of("1-0", 1)
GAIN = Gain("me", "call-1", "1-0", FENCE, "announced")
SENDING = Sending("orders", "add", "orders-input", 1)
START = HandlerStart("me", "call-1", "1-0", FENCE, None, 1, GAIN, 0.0)


class Broken(Observer):
    """Raises in every method that it has."""

    def gained(self, gain: Gain) -> None:
        raise SystemExit("gained")

    def handling(self, start: HandlerStart) -> contextlib.AbstractContextManager[object]:
        raise RuntimeError("handling")

    def carrier(self) -> Mapping[str, str]:
        raise RuntimeError("carrier")

    def sending(self, sending: Sending) -> contextlib.AbstractContextManager[object]:
        raise RuntimeError("sending")


def test_the_methods_of_an_observer_do_nothing() -> None:
    observer = Observer()
    observer.gained(GAIN)
    with observer.handling(START), observer.sending(SENDING):
        pass
    assert observer.carrier() == {}


def test_every_method_is_passed_on() -> None:
    methods = {name for name in vars(Observer) if not name.startswith("_")}
    assert methods <= vars(SafeObserver).keys()


def test_an_error_is_logged_once_for_each_method(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    safe = SafeObserver(Broken(), LOG)
    for _ in range(3):
        safe.gained(GAIN)
        assert safe.carrier() == {}
        with safe.handling(START):
            pass
        with safe.sending(SENDING):
            pass
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().split("(")[0] for record in errors] == [
        "Broken.gained", "Broken.carrier", "Broken.handling", "Broken.sending",
    ]  # fmt: skip
    assert all(record.exc_info for record in errors)
    assert [record.levelno for record in caplog.records].count(logging.DEBUG) == 8


def test_a_keyboard_interrupt_is_no_error_of_the_observer() -> None:
    class Interrupted(Observer):
        def gained(self, gain: Gain) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SafeObserver(Interrupted(), LOG).gained(GAIN)


class Around(Observer):
    """Surrounds handlers with a context manager of the test."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def handling(self, start: HandlerStart) -> contextlib.AbstractContextManager[object]:
        return self.block  # type: ignore[no-any-return]


def test_what_surrounds_a_handler_sees_its_error_and_cannot_suppress_it() -> None:
    seen: list[BaseException] = []

    @contextlib.contextmanager
    def block() -> Generator[None]:
        try:
            yield
        except ValueError as error:
            seen.append(error)  # and suppresses it

    error = ValueError("of the handler")
    with pytest.raises(ValueError, match="of the handler"), SafeObserver(Around(block()), LOG).handling(START):
        raise error
    assert seen == [error]


@pytest.mark.parametrize("where", ["enter", "exit", "no context manager"])
def test_what_surrounds_a_handler_may_fail(where: str, caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.contextmanager
    def block() -> Generator[None]:
        if where == "enter":
            raise RuntimeError(where)
        try:
            yield
        finally:
            raise RuntimeError(where)

    safe = SafeObserver(Around(None if where == "no context manager" else block()), LOG)
    with contextlib.suppress(ValueError), safe.handling(START):
        raise ValueError("of the handler")
    assert [record.getMessage() for record in caplog.records if "Around.handling" in record.getMessage()] or (
        where == "no context manager"
    )


def test_the_error_of_a_handler_that_comes_through_is_no_error_of_the_observer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="of the handler"), SafeObserver(Around(Raising()), LOG).handling(START):
        raise ValueError("of the handler")
    assert not caplog.records


def test_only_an_observer_is_accepted() -> None:
    class Async(Observer):
        async def gained(self, gain: Gain) -> None:  # type: ignore[override]
            pass

    assert observers.check(None) is None
    with pytest.raises(TypeError, match="observer must be an Observer or None, not object"):
        observers.check(object())
    with pytest.raises(TypeError, match=r"Async\.gained must be a plain function"):
        observers.check(Async())
