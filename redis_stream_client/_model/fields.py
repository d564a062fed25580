"""The fields of an entry that a producer writes, and its other arguments: checked before anything is sent."""

from collections.abc import Mapping

from redis_stream_client._model.entry import START, require_id

MOST_FIELDS = 3_500
"""The most fields of an entry: a script of Redis can pass on some 8,000 words."""

Name = str | bytes
Value = str | bytes | int | float
Fields = Mapping[str, Value] | Mapping[bytes, Value] | Mapping[Name, Value]


def encode(fields: Fields) -> list[bytes]:
    """Names and values by turns, as redis-py encodes them. Raises ``TypeError`` or ``ValueError``."""
    if not isinstance(fields, Mapping):
        raise TypeError(f"fields must be a mapping, not {type(fields).__name__}")
    if not 0 < len(fields) <= MOST_FIELDS:
        raise ValueError(f"an entry has from 1 to {MOST_FIELDS} fields, not {len(fields)}")
    return [word for name, value in fields.items() for word in (_name(name), _value(name, value))]


def _name(name: object) -> bytes:
    if not isinstance(name, str | bytes):
        raise TypeError(f"the name of a field must be a str or bytes, not {name!r}")
    return name.encode() if isinstance(name, str) else name


def _value(name: Name, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).encode()
    raise TypeError(f"the value of {name!r} must be a str, bytes, int or float, not {type(value).__name__}")


def require_own_id(id: object) -> str:
    """Check an id that is given to an entry, and return it without leading zeros."""
    own = require_id(id)
    if own == START:
        raise ValueError(f"no entry can have the id {START!r}")
    return own


def require_maxlen(maxlen: object) -> int:
    """Check how many entries to keep."""
    if not isinstance(maxlen, int) or isinstance(maxlen, bool):
        raise TypeError(f"maxlen must be an int or None, not {type(maxlen).__name__}")
    if maxlen < 1:
        raise ValueError(f"maxlen must be at least 1, not {maxlen}")
    return maxlen
