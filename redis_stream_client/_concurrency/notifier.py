"""Telling whoever listens that some state has changed."""

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Notifier(Generic[P]):
    """Belongs to state that one part writes and other parts wait for.

    A part that waits adds the `set` of an ``asyncio.Event`` of its own. It clears the event, looks at the state,
    and only then waits. So no part needs to know which others there are.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[P, object]] = []

    def add(self, listener: Callable[P, object]) -> None:
        """Call `listener` at every change from now on."""
        self._listeners.append(listener)

    def notify(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """The state has changed."""
        for listener in self._listeners:
            listener(*args, **kwargs)
