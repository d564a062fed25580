"""Scripts: the steps that a fleet takes one after the other, and how they are written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.proof.stateful.consumers import Loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

Step = tuple[str, dict[str, Any]]
"""The name of a method of a fleet, and its arguments."""


class Scripted:
    """A fleet on a server of its own, to which a script happens: steps are its methods.

    Args:
        server: emptied first.
        lua: scripts that the server learns, so that a sha names each of them.
    """

    def __init__(self, server: Server, lua: Sequence[str]) -> None:
        self.script: list[Step] = []
        """The steps that were taken."""
        self._server = server
        self._redis: Connection = redis.Redis.from_url(server.url)
        server.command("FLUSHALL")
        for name in lua:
            self._redis.script_load(scripts.load(name).text)
        self._keys = Keys("orders")
        self._network = Loop("network")
        self._names = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def play(self, script: Iterable[Step]) -> None:
        """Take the steps, and look at everything after each; at the end all is healed and closed.

        Where a step has a `pick` instead of names, it takes what there is; or is left out where there is nothing.
        """
        try:
            self._open()
            for name, arguments in script:
                chosen = self._chosen(name, **arguments)
                if chosen is not None:
                    self.script.append((name, chosen))
                    getattr(self, name)(**chosen)
                    self.look()
            self._heal()
        except Exception as error:
            error.add_note(as_script(self.script))
            raise
        finally:
            unhandled = self._close()
            self._network.close()
            self._redis.close()
        assert not unhandled, f"errors that nobody saw: {unhandled}"

    def _chosen(self, name: str, pick: int | None = None, **arguments: Any) -> dict[str, Any] | None:
        if pick is None:
            return arguments
        choices = self._choices(name)
        return choices[pick % len(choices)] | arguments if choices else None

    # What each kind of fleet says for itself.

    def look(self) -> None:
        """Fail if anything is not as promised."""
        raise NotImplementedError

    def _open(self) -> None:
        """Before the first step."""

    def _choices(self, name: str) -> list[dict[str, Any]]:
        """The names that a step may be taken with now."""
        raise NotImplementedError

    def _heal(self) -> None:
        """The end: everything goes well from now on, and is finished."""
        raise NotImplementedError

    def _close(self) -> list[Any]:
        """Close all members. Returns the errors that nobody saw."""
        raise NotImplementedError


def as_script(steps: Iterable[Step]) -> str:
    """The steps as the corpus holds them."""
    return "\n".join(["[", *(f"    {step!r}," for step in steps), "]"])
