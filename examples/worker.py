"""A worker: takes its share of a service's data streams, follows each of them to its end, and leaves when told to.

    REDIS_URL=redis://localhost SERVICE=orders python examples/worker.py

Start several, kill one, and the others go on with its streams, each after the last entry that was processed.
SIGTERM or Ctrl-C hands everything over: each stream at its next checkpoint, or after DRAIN_TIMEOUT seconds. What
no retry can mend, such as an entry that is not UTF-8, goes to the dead letters: `redis-stream-client dead list`.
With HEALTH_PORT it answers probes: kubernetes/ beside this file has what Kubernetes needs.
"""

import asyncio
import logging
import os

from redis_stream_client import Lease, RedisStreamClient, RetryPolicy

log = logging.getLogger("worker")

RETRY = RetryPolicy(
    patience=3600.0,  # seconds of failures before a stream is given up: longer than our database is ever away
    longest_pause=10.0,
    bury_on=(UnicodeDecodeError,),  # tomorrow it will be no text either
)


async def handle(lease: Lease) -> None:
    """Process one data stream. Returning says that it is done; raising, that somebody should try again soon."""
    async for entry in lease.entries():  # from the one after the last checkpoint, whoever made that
        fields = entry.text()
        log.info("%s: %s", lease.stream, fields)
        if fields.get("type") == "end":
            return  # without a checkpoint: if we die right here, our successor finds the end again
        await lease.checkpoint(entry.id)


def main() -> None:
    """Work until a signal comes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    url = os.environ.get("REDIS_URL", "redis://localhost")
    port = os.environ.get("HEALTH_PORT")
    client = RedisStreamClient.from_url(url, os.environ.get("SERVICE", "orders"))
    asyncio.run(
        client.run(
            handle,
            retry=RETRY,
            drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "10")),
            handle_signals=True,
            health_port=int(port) if port else None,
            health_host=os.environ.get("HEALTH_HOST", "127.0.0.1"),
        )
    )


if __name__ == "__main__":
    main()
