"""The end of an event loop: closing in time what an object keeps open between two calls."""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any


class AtLoopEnd:
    """Calls a function when the running event loop ends: before it closes, so that sockets can still be closed.

    ``asyncio.run()`` and the like end a loop by closing all asynchronous generators that were begun on it. So one
    waits here for nothing else. That takes no task, which would be cancelled, and be seen by those who look for
    leaked ones.

    Args:
        call: is called once, in the loop; it must not raise.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._waiting = _until_closed(call)
        _at_once(self._waiting.__anext__())

    def forget(self) -> None:
        """Call it now, and not at the end of the loop."""
        _at_once(self._waiting.aclose())


async def _until_closed(call: Callable[[], None]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        call()


def _at_once(step: Any) -> None:
    """Run a step of a generator that awaits nothing."""
    with suppress(StopIteration):
        step.send(None)
