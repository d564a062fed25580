"""A lock that many may share, or one have alone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class SharedLock:
    """Lets any number of operations pass, or one alone.

    A client's audit is alone: one that overlapped a read, a claim or a `done` would disown what is just arriving,
    and adopt what was just finished.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._nobody_inside = asyncio.Event()
        self._nobody_inside.set()
        self._open = asyncio.Event()
        self._open.set()

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncGenerator[None]:
        """An operation that may overlap others of its kind."""
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._nobody_inside.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._nobody_inside.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """An operation that overlaps no other. The caller sees to it that there is one at a time."""
        self._open.clear()
        try:
            await self._nobody_inside.wait()
            yield
        finally:
            self._open.set()
