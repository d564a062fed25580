"""A notifier: tells listeners that some state has changed."""

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Notifier(Generic[P]):
    """Belongs to state that one part writes and other parts wait for.

    A waiting part adds the `set` of its own ``asyncio.Event``. It clears the event, looks at the state, and only
    then waits. So no part needs to know the others.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[P, object]] = []

    def add(self, listener: Callable[P, object]) -> None:
        """Call `listener` at every change from now on."""
        self._listeners.append(listener)

    def notify(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all listeners: the state has changed."""
        for listener in self._listeners:
            listener(*args, **kwargs)
