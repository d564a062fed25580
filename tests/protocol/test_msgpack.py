"""Lists of words as a server packs them, and anything else, which is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._protocol import msgpack

if TYPE_CHECKING:
    from tests.harness.connection import Connection


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
async def test_what_a_script_packs_is_unpacked(redis: Connection, count: int) -> None:
    pack = """
        local words = {}
        for i = 1, ARGV[1] do words[i] = string.rep('x', i % 300) end
        return cmsgpack.pack(words)
    """
    words = [b"x" * (number % 300) for number in range(1, count + 1)]
    found = msgpack.unpack(await redis.eval(pack, 0, count))
    assert found == words or (count == 0 and found is None)  # Lua has no empty list, only an empty table


async def test_long_words_are_unpacked(redis: Connection) -> None:
    words = [bytes(size) for size in (0, 31, 32, 255, 256, 65_535, 65_536, 300_000)]
    assert msgpack.unpack(await redis.eval("return cmsgpack.pack(ARGV)", 0, *words)) == words


@given(st.binary(max_size=12) | st.binary(max_size=12).map(lambda rest: b"\x92\xa1a" + rest))
def test_nothing_else_is_taken_for_packed(raw: bytes) -> None:
    words = msgpack.unpack(raw)
    assert words is None or len(words) + sum(map(len, words)) < len(raw)
