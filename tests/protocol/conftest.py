"""Two consumers of one service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.protocol.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection


@pytest.fixture
async def a(redis: Connection, service: str) -> AsyncIterator[Consumer]:
    """One that has joined."""
    async with Consumer(redis, service, "a") as consumer:
        yield consumer


@pytest.fixture
async def b(redis: Connection, service: str) -> AsyncIterator[Consumer]:
    """Another one."""
    async with Consumer(redis, service, "b") as consumer:
        yield consumer
