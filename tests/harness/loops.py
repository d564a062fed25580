"""Which event loop the tests and their worker processes run on, and how it starts tasks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def loop_name() -> str:
    """Name the event loop: `RSC_TEST_LOOP`, or else asyncio's own."""
    return os.environ.get("RSC_TEST_LOOP") or "asyncio"


def task_kind() -> str:
    """Say how the loop starts tasks: `RSC_TEST_TASKS`, or else "lazy", as asyncio does unless told otherwise."""
    return os.environ.get("RSC_TEST_TASKS") or "lazy"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop; uvloop is imported only where it is asked for."""
    match task_kind():
        case "lazy":
            return _new_loop()
        case "eager" if hasattr(asyncio, "eager_task_factory"):
            return _eager
        case "eager":
            raise ValueError("eager tasks need Python 3.12")
        case other:
            raise ValueError(f"RSC_TEST_TASKS is lazy or eager, not {other!r}")


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    match loop_name():
        case "asyncio":
            return asyncio.new_event_loop
        case "uvloop":
            import uvloop

            return uvloop.new_event_loop
        case other:
            raise ValueError(f"RSC_TEST_LOOP is asyncio or uvloop, not {other!r}")


def _eager() -> asyncio.AbstractEventLoop:
    loop = _new_loop()()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    return loop


class Turns:
    """Counts the turns of the event loop, once it was called."""

    def __init__(self) -> None:
        self.number = 0
        self._going = True

    def __call__(self) -> None:
        """One more."""
        self.number += 1
        if self._going:
            asyncio.get_running_loop().call_soon(self)

    def stop(self) -> None:
        """Count no more."""
        self._going = False
