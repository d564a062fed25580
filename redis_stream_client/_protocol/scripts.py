"""The Lua scripts, one file each in ``lua/``; `operations` holds their typed stubs."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name under which a server that has seen it knows it."""

    text: str
    sha: str


@cache
def load(name: str) -> Script:
    """Read ``lua/<name>.lua``."""
    text = files("redis_stream_client").joinpath("_protocol", "lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
