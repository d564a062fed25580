"""A Lua script, as a connection runs it."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name under which a server that has seen it knows it."""

    text: str
    sha: str

    @classmethod
    def from_text(cls, text: str) -> "Script":
        """A script with this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
