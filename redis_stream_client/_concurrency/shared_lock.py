"""A shared lock: many operations may hold it together, or one alone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class SharedLock:
    """Lets any number of operations run together, or one alone.

    An audit runs alone. If it overlapped a read, a claim or a `done`, it would give up streams that are just
    arriving, and take back streams that were just finished.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._nobody_inside = asyncio.Event()
        self._nobody_inside.set()
        self._open = asyncio.Event()
        self._open.set()

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncGenerator[None]:
        """Run an operation that may overlap others of its kind."""
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
        """Run an operation that overlaps no other. The caller makes sure that there is only one at a time."""
        self._open.clear()
        try:
            await self._nobody_inside.wait()
            yield
        finally:
            self._open.set()
