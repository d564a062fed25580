"""The type of redis-py clients in tests, how users may have set them up, and what their pools have lent."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

Connection: TypeAlias = Any
"""A redis-py client. Its own annotations allow for text and bytes, old reply shapes and new ones, at every
command; a test knows which it gets, and its assertions check it better than casts would."""

EVERY_SETTING = pytest.mark.parametrize(
    "settings",
    [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}, {"max_connections": 1}, {"db": 3}],
    ids=repr,
)
"""What users may tell their clients, and must make no difference to us."""


def lent_by(redis: Connection) -> list[Any]:
    """The connections that a client's pool lends from now on and has not got back yet: a list that follows."""
    pool = redis.connection_pool
    lend, take_back = pool.get_connection, pool.release
    lent: list[Any] = []

    async def get_connection(*args: Any, **options: Any) -> Any:
        connection = await lend(*args, **options)
        lent.append(connection)
        return connection

    async def release(connection: Any) -> None:
        await take_back(connection)
        if connection in lent:
            lent.remove(connection)

    pool.get_connection, pool.release = get_connection, release
    return lent
