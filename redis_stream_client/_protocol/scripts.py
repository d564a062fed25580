"""The Lua scripts, one file each in ``lua/``; each has a typed stub of its name in this room."""

from functools import cache
from importlib.resources import files

from redis_stream_client._redis.script import Script


@cache
def load(name: str) -> Script:
    """Read ``lua/<name>.lua``."""
    return Script.from_text(
        files("redis_stream_client").joinpath("_protocol", "lua", f"{name}.lua").read_text(encoding="utf-8")
    )
