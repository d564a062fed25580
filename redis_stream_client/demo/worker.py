"""A worker of the demo, as a user would write one: ``python -m redis_stream_client.demo.worker``.

It takes its setup as one line of JSON from its standard input. SIGTERM drains it, and so does the end of that
input, which says that the demo is gone. Of the library it uses the public interface alone.
"""

import asyncio
import json
import os
import sys

from redis.exceptions import RedisError

from redis_stream_client import Lease, Rebalance, RedisStreamClient, RedisStreamClientError
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.ledger import LAST, NUMBER, Ledger
from redis_stream_client.demo.settings import SETTLE


class Worker:
    """One client, and its handler."""

    def __init__(self, client: RedisStreamClient, ledger: Ledger, work: float) -> None:
        self.client = client
        self.ledger = ledger
        self.work = work

    async def handle(self, lease: Lease) -> None:
        """Process one data stream, from wherever the last owner came to. A session ends when it falls asleep."""
        async for entry in lease.entries(idle=(lease.info or {}).get("idle")):
            fields = entry.text()
            await asyncio.sleep(self.work)
            # A worker that was frozen meanwhile does not know yet. The fence does.
            await self.ledger.write(lease.stream, lease.fence, self.client.id, entry.id, fields[NUMBER])
            if LAST in fields:
                return  # and no checkpoint: who takes over from here must still find the end
            await lease.checkpoint(entry.id)


async def main(url: str, service: str, name: str, lock_ttl: float, work: float) -> None:
    """Run until drained."""
    client = RedisStreamClient.from_url(url, service, consumer_name=name, lock_ttl=lock_ttl)
    async with connect(url) as redis:
        worker = Worker(client, Ledger(redis, service), work)
        _at_end_of_input(client)
        await client.run(worker.handle, handle_signals=True, rebalance=Rebalance(SETTLE))


def _at_end_of_input(client: RedisStreamClient) -> None:
    """Drain when the demo, which holds the other end, is gone."""
    loop = asyncio.get_running_loop()

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            client.drain()

    loop.add_reader(sys.stdin.fileno(), on_input)


def _run() -> str | None:
    """Run to the end; return what went wrong, as far as it needs no traceback."""
    try:
        asyncio.run(main(**json.loads(sys.stdin.buffer.readline())))
    except (RedisStreamClientError, RedisError) as failure:
        return str(failure)
    return None


if __name__ == "__main__":
    sys.exit(_run())
