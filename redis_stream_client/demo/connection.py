"""The demo's own connections to Redis, as plain redis-py makes them."""

from redis.asyncio import Redis


def connect(url: str) -> Redis:
    """A client that returns text and waits as long as its caller does. Raises ``TypeError`` or ``ValueError``.

    No time-outs of redis-py's, not even from the URL. With one it writes through ``asyncio.wait_for()``, which on
    Python 3.11 swallows a cancellation that arrives when the write is just done; a loop of commands that was
    cancelled then goes on for ever.
    """
    redis = Redis.from_url(url, decode_responses=True)
    redis.connection_pool.connection_kwargs |= {"socket_timeout": None, "socket_connect_timeout": None}
    return redis
