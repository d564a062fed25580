"""Which event loop the tests and their worker processes run on."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def loop_name() -> str:
    """Name the event loop: `RSC_TEST_LOOP`, or else asyncio's own."""
    return os.environ.get("RSC_TEST_LOOP") or "asyncio"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop; uvloop is imported only where it is asked for."""
    match loop_name():
        case "asyncio":
            return asyncio.new_event_loop
        case "uvloop":
            import uvloop

            return uvloop.new_event_loop
        case other:
            raise ValueError(f"RSC_TEST_LOOP is asyncio or uvloop, not {other!r}")
