"""A service with many members and many streams, made by the server itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from redis_stream_client._model.announcement import FIELD
from redis_stream_client._model.keys import Keys

if TYPE_CHECKING:
    from tests.harness.servers import Server

MEMBERS = """
    redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
    for i = 0, ARGV[2] - 1 do
      redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], 'member-' .. i)
      redis.call('SET', KEYS[2] .. 'member-' .. i, ARGV[3], 'PX', 60000)
      redis.call('HSET', KEYS[3], 'member-' .. i, 'run 200 nonce')
    end
"""
STREAMS = """
    for i = tonumber(ARGV[2]), ARGV[3] - 1 do
      redis.call('XADD', KEYS[1], '*', ARGV[5], '{"DataStreamName":"' .. ARGV[6] .. i .. '"}')
      if ARGV[4] ~= '0' then
        redis.call('XREADGROUP', 'GROUP', ARGV[1], 'member-' .. i % ARGV[4], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
      end
    end
"""
PIECE = 10_000


def make_members(server: Server, service: str, count: int) -> None:
    """Make living members ``member-0`` …, which own nothing."""
    keys = Keys(service)
    value = json.dumps({"ttl": 60_000, "weight": 2.0, "max_streams": None, "host": "h", "pid": 7})
    server.command("EVAL", MEMBERS, 3, keys.lbs, keys.lock(""), keys.present, keys.group, count, value)


def make_streams(server: Server, service: str, count: int, *, members: int, prefix: str = "call-") -> None:
    """Announce ``call-0`` …, and share them out to the members; to none of 0 members.

    A server that several tests write to wants a `prefix` of the test's own, if the test looks at the entries.
    """
    keys = Keys(service)
    for first in range(0, count, PIECE):
        last = min(count, first + PIECE)
        server.command("EVAL", STREAMS, 1, keys.lbs, keys.group, first, last, members, FIELD, prefix)
