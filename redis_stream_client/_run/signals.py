"""SIGTERM and SIGINT: handling them in `run()`, also around a fork."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)

_before: list[dict[signal.Signals, Any]] = []  # the handlers from before, for each `caught` that is active


def require_main_thread() -> None:
    """Raise ``RuntimeError`` outside of the main thread, where Python handles no signals."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("handle_signals=True works in the main thread only; elsewhere call client.drain()")


@contextlib.contextmanager
def caught(on_signal: Callable[[], None]) -> Generator[None, None, None]:
    """Call `on_signal` for SIGTERM and SIGINT; restore the former handlers afterwards.

    Raises ``RuntimeError`` on an event loop without signals (Windows).
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in ENDING}
    _before.append(before)
    try:
        for number in ENDING:
            loop.add_signal_handler(number, on_signal)
    except NotImplementedError:
        _before.remove(before)
        raise RuntimeError("this event loop has no signal handlers; call client.drain() instead") from None
    try:
        yield
    finally:
        if before in _before:
            _before.remove(before)
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)


# Around a fork. The child shares the pipe of its parent's loop. Until it has signal handlers of its own, a signal
# to it would reach its parent instead. So signals are held back until then.


class _Mask(threading.local):
    """The signals that this thread had blocked before the fork."""

    before: set[int] | None = None


_mask = _Mask()


def _before_fork() -> None:
    if _before and hasattr(signal, "pthread_sigmask"):
        _mask.before = set(signal.pthread_sigmask(signal.SIG_BLOCK, ENDING))


def _after_fork() -> None:
    before, _mask.before = _mask.before, None
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_the_parent() -> None:
    if _before:
        with contextlib.suppress(ValueError):  # not the main thread, which handles none
            signal.set_wakeup_fd(-1)
            for number, handler in _before[0].items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _before.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forget_the_parent)
