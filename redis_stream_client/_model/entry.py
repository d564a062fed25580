"""An entry of a data stream, and its id."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from redis_stream_client._model.poison import PoisonError

START = "0-0"
"""Before the first entry of every stream: ids begin at 0-1."""

LONGEST_NAME = 100
"""Bytes of a field's name that an error shows."""

_ID = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_LARGEST = 2**64 - 1

GREATEST = f"{_LARGEST}-{_LARGEST}"
"""The greatest id that an entry can have. Nothing is behind it, and Redis refuses to look there."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a data stream.

    Attributes:
        id: the id of the entry, ``<milliseconds>-<sequence>``.
        fields: names and values, always bytes, whatever ``decode_responses`` says in the settings. If a field
            occurs twice, its last value.
        stream: name of the data stream; empty in an entry that you made yourself. It does not count when entries
            are compared.
    """

    id: str
    fields: dict[bytes, bytes]
    stream: str = field(default="", compare=False, repr=False)

    def text(self) -> dict[str, str]:
        """The fields as text.

        Raises:
            UnicodeDecodeError: a name or value is not UTF-8. The text names the field, the entry and the stream.
        """
        try:
            return {name.decode(): value.decode() for name, value in self.fields.items()}
        except UnicodeDecodeError as error:
            raise self._located(error) from None

    @overload
    def decode(self, decoder: Callable[[dict[str, str]], T]) -> T: ...

    @overload
    def decode(self, decoder: Callable[[bytes], T], field: str) -> T: ...

    def decode(self, decoder: Callable[[Any], T], field: str | None = None) -> T:
        """Have the payload decoded, such as by pydantic's ``TypeAdapter(Model).validate_python``.

        Args:
            decoder: any callable. It gets the fields as `text` returns them; with `field`, the bytes of that one.
            field: name of the field that has the whole payload, such as JSON.

        Returns:
            What the decoder returns.

        Raises:
            PoisonError: the decoder raised an exception, which is the ``__cause__``; or there is no such field, or
                the fields are not UTF-8. In a handler of `run()` it sends the stream to the dead letters.
        """
        try:
            return decoder(self.text() if field is None else self.fields[field.encode()])
        except Exception as error:
            raise PoisonError(f"{self._place()} cannot be decoded") from error

    def _located(self, error: UnicodeDecodeError) -> UnicodeDecodeError:
        """The error of a name or value that is not UTF-8, which says where that is."""
        name = next(name for name, value in self.fields.items() if error.object in (name, value))
        reason = f"{error.reason}, in field {name[:LONGEST_NAME]!r} of {self._place()}"
        return UnicodeDecodeError(error.encoding, error.object, error.start, error.end, reason)

    def _place(self) -> str:
        return f"entry {self.id} of {self.stream!r}" if self.stream else f"entry {self.id}"


def from_reply(raw: Any, stream: str) -> Entry:
    """An entry of this stream as Redis sends it: id, and names and values by turns."""
    words = raw[1]
    return Entry(raw[0].decode(), dict(zip(words[::2], words[1::2], strict=True)), stream)


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
