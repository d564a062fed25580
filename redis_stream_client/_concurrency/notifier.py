"""Telling whoever listens that some state has changed."""

from collections.abc import Callable


class Notifier:
    """Belongs to state that one part writes and other parts wait for.

    A part that waits adds the `set` of an ``asyncio.Event`` of its own. It clears the event, looks at the state,
    and only then waits. So no part needs to know which others there are.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> None:
        """Call `listener` at every change from now on."""
        self._listeners.append(listener)

    def notify(self) -> None:
        """The state has changed."""
        for listener in self._listeners:
            listener()
