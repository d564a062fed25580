"""Signals that ask a process to end."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


def require_main_thread() -> None:
    """Raise ``RuntimeError`` where Python handles no signals."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("handle_signals=True works in the main thread only; elsewhere call client.drain()")


@contextlib.contextmanager
def handled(on_signal: Callable[[], None]) -> Generator[None, None, None]:
    """Call `on_signal` for SIGTERM and SIGINT; afterwards whoever handled them before does so again.

    Raises ``RuntimeError`` on an event loop without signals (Windows).
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number in ENDING:
            loop.add_signal_handler(number, on_signal)
    except NotImplementedError:
        raise RuntimeError("this event loop has no signal handlers; call client.drain() instead") from None
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)
