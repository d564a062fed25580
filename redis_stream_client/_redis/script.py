"""A Lua script, as a connection runs it."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script, and its SHA1, under which a server knows a script that it has seen."""

    text: str
    sha: str

    @classmethod
    def from_text(cls, text: str) -> "Script":
        """A script with this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
