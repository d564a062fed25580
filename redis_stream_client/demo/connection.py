"""The demo's own connections to Redis, as plain redis-py makes them."""

from redis.asyncio import BlockingConnectionPool, Redis

CONNECTIONS = 100
"""The most connections of one process. Whoever needs one more waits: 200 sessions may write at the same time."""


def connect(url: str) -> Redis:
    """A client that returns text and waits as long as its caller does. Raises ``TypeError`` or ``ValueError``.

    No time-outs of redis-py's, not even from the URL. With one it writes through ``asyncio.wait_for()``, which on
    Python 3.11 swallows a cancellation that arrives when the write is just done; a loop of commands that was
    cancelled then goes on for ever.
    """
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, decode_responses=True)
    pool.timeout = None
    pool.connection_kwargs |= {"socket_timeout": None, "socket_connect_timeout": None}
    return Redis.from_pool(pool)
