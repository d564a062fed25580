"""The Lua scripts, one file each in ``lua/``; each has a typed stub of its name in this room.

A line ``--#include <name>`` of a script stands for ``lua/include/<name>.lua``: Redis knows no libraries that all
servers have.
"""

import re
from functools import cache
from importlib.resources import files

from redis_stream_client._redis.script import Script


@cache
def load(name: str) -> Script:
    """Read ``lua/<name>.lua``, and what it includes."""
    text = re.sub(
        r"^--#include (\w+)\n", lambda found: _read("include", found[1]), _read(name), flags=re.MULTILINE
    )
    return Script.from_text(text)


def _read(*path: str) -> str:
    folder = files("redis_stream_client").joinpath("_protocol", "lua")
    return folder.joinpath(*path[:-1], f"{path[-1]}.lua").read_text(encoding="utf-8")
