"""A home: the process and the event loop to which an object belongs."""

import asyncio

from redis_stream_client._concurrency import forks


class Home:
    """The process and the event loop in which it was made.

    Args:
        forked: the error message for a call from a forked child; ``{process}`` stands for the id of the parent.
        other_loop: the error message for a call from another event loop.
    """

    def __init__(self, *, forked: str, other_loop: str) -> None:
        self._forked = forked
        self._other_loop = other_loop
        self._process = forks.here()
        self.loop = asyncio.get_running_loop()

    @property
    def in_this_process(self) -> bool:
        """Whether this is the process in which it was made, and no forked child."""
        return self._process == forks.here()

    def require_here(self) -> None:
        """Raise ``RuntimeError`` in a forked child, and on another event loop."""
        if not self.in_this_process:
            raise RuntimeError(self._forked.format(process=self._process[0]))
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(self._other_loop)
