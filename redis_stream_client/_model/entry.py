"""An entry of a data stream, and its id."""

import re
from dataclasses import dataclass
from typing import Any

START = "0-0"
"""Before the first entry of every stream: ids begin at 0-1."""

_ID = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_LARGEST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a data stream.

    Attributes:
        id: the id of the entry, ``<milliseconds>-<sequence>``.
        fields: names and values, always bytes, whatever ``decode_responses`` says in the settings. If a field
            occurs twice, its last value.
    """

    id: str
    fields: dict[bytes, bytes]

    def text(self) -> dict[str, str]:
        """The fields as text. Raises ``UnicodeDecodeError`` if a name or value is not UTF-8."""
        return {name.decode(): value.decode() for name, value in self.fields.items()}


def from_reply(raw: Any) -> Entry:
    """An entry as Redis sends it: id, and names and values by turns."""
    words = raw[1]
    return Entry(raw[0].decode(), dict(zip(words[::2], words[1::2], strict=True)))


def require_id(value: object) -> str:
    """Check an entry's id, and return it without leading zeros. Raises ``TypeError`` or ``ValueError``."""
    if isinstance(value, Entry):
        raise TypeError("an entry's id is needed, not the entry; pass entry.id")
    if not isinstance(value, str):
        raise TypeError(f"an entry's id must be a str, not {type(value).__name__}")
    found = parse_id(value)
    if found is None:
        raise ValueError(f"{value!r} is not an entry's id, which looks like '1526919030474-55'; pass entry.id")
    return f"{found[0]}-{found[1]}"


def parse_id(text: str) -> tuple[int, int] | None:
    """The milliseconds and the sequence number of an id that Redis would take, or None for anything else."""
    found = _ID.fullmatch(text)
    if not found:
        return None
    milliseconds, sequence = int(found[1]), int(found[2])
    return None if max(milliseconds, sequence) > _LARGEST else (milliseconds, sequence)


def order(id: str) -> tuple[int, int]:
    """What ids sort by. Only of an id that is known to be one."""
    milliseconds, _, sequence = id.partition("-")
    return int(milliseconds), int(sequence)
