"""The demo's own connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_stream_client.demo.connection import CONNECTIONS, connect

if TYPE_CHECKING:
    from tests.harness.servers import Server


async def test_more_commands_at_a_time_than_connections_wait(server: Server) -> None:
    async with connect(f"{server.url}?timeout=0.01") as redis:
        blocked = [redis.blpop("nothing is here", timeout=0.1) for _ in range(2 * CONNECTIONS)]
        assert await asyncio.gather(*blocked) == [None] * len(blocked)
