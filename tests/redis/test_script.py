"""A script's name: the one by which the server knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client._redis.script import Script

if TYPE_CHECKING:
    from tests.harness.connection import Connection


async def test_the_server_knows_a_script_by_the_same_name(redis: Connection) -> None:
    script = Script.from_text("return 'ä'")
    sha = await redis.script_load(script.text)
    assert script.sha == (sha.decode() if isinstance(sha, bytes) else sha)
