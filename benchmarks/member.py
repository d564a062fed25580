"""A member of a fleet: `python -m benchmarks.member URL SERVICE`. It follows its streams; SIGTERM drains it."""

from __future__ import annotations

import asyncio
import sys

from redis_stream_client import Lease, RedisStreamClient


async def handle(lease: Lease) -> None:
    """Follow the stream to its end."""
    async for entry in lease.entries():
        await lease.checkpoint(entry.id)
        if entry.fields.get(b"type") == b"end":
            return


if __name__ == "__main__":
    url, service = sys.argv[1:]
    asyncio.run(RedisStreamClient.from_url(url, service).run(handle, handle_signals=True))
