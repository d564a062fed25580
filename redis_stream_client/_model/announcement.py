"""The wire format of the load balancer stream: one field that holds a small JSON document.

``lbs-input`` → ``{"DataStreamName": "call-17", "Info": {…}}``, as the Go library's producers write it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from redis_stream_client._model.keys import name_problem, require_name

FIELD = "lbs-input"
MAX_BYTES = 256 * 1024
"""The largest announcement. Larger data belongs in the data stream itself."""

MAX_TRACESTATE = 512
"""The longest ``tracestate`` in characters. The standard asks for no more to be passed on."""

Info = Mapping[str, Any]


class Malformed(Exception):
    """An announcement that no consumer can process; the message says why. Never leaves the package."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A data stream that wants an owner."""

    stream: str
    info: Info | None


def encode(stream: str, info: Info | None = None, carrier: Mapping[str, str] | None = None) -> bytes:
    """Encode an announcement. Raises ``TypeError`` or ``ValueError`` for one that a reader would refuse.

    `carrier`: items beside the name and the info, which readers of other versions and the Go library ignore. It is
    left out if the announcement would be too large with it.
    """
    require_name(stream, "stream")
    document: dict[str, Any] = {"DataStreamName": stream}
    if info is not None:
        if not isinstance(info, Mapping):
            raise TypeError(f"info must be a mapping or None, not {type(info).__name__}")
        document["Info"] = dict(info)
    try:
        encoded = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except TypeError as error:
        raise TypeError(f"info must be JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"info must be JSON: {error}") from error
    if carrier:
        more = b"," + json.dumps(dict(carrier), separators=(",", ":")).encode()[1:]
        encoded = encoded[:-1] + more if len(encoded) - 1 + len(more) <= MAX_BYTES else encoded
    if len(encoded) > MAX_BYTES:
        raise ValueError(
            f"the announcement of {stream!r} has {len(encoded)} bytes, more than {MAX_BYTES}: "
            "write large data to the data stream itself"
        )
    return encoded


def decode(fields: Sequence[bytes]) -> Announcement:
    """Read an entry's fields (name, value, name, value, …). Raises `Malformed`."""
    values = [fields[i + 1] for i in range(0, len(fields) - 1, 2) if fields[i] == _FIELD]
    if not values:
        raise Malformed(f"no field {FIELD!r}")
    if len(values) > 1:
        raise Malformed(f"more than one field {FIELD!r}")
    if len(values[0]) > MAX_BYTES:
        raise Malformed(f"{len(values[0])} bytes, more than {MAX_BYTES}")
    try:
        document = _DECODER.decode(values[0].decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Malformed(f"not a JSON object but a {type(document).__name__}")
    stream = document.get("DataStreamName")
    if not isinstance(stream, str):
        raise Malformed("no DataStreamName" if stream is None else "DataStreamName is not a string")
    problem = name_problem(stream)
    if problem:
        raise Malformed(f"DataStreamName {problem}")
    info = document.get("Info")
    if info is not None and not isinstance(info, dict):
        raise Malformed("Info is not an object")
    return Announcement(stream, info)


def carrier_of(fields: Sequence[bytes]) -> dict[str, str]:
    """The trace context of an announcement, as `trace_context`.

    It is read apart from `decode`: only an observer needs it, and held streams must not pay for it.
    """
    values = [fields[i + 1] for i in range(0, len(fields) - 1, 2) if fields[i] == _FIELD]
    if not values or b'"traceparent"' not in values[0] or len(values[0]) > MAX_BYTES:
        return {}
    try:
        document = json.loads(values[0])
    except (ValueError, RecursionError):
        return {}
    return trace_context(document) if isinstance(document, dict) else {}


def trace_context(items: Mapping[str, Any]) -> dict[str, str]:
    """The valid items of a W3C trace context: ``traceparent``, and ``tracestate`` if that is there."""
    parent, state = items.get("traceparent"), items.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    if not isinstance(state, str) or len(state) > MAX_TRACESTATE or not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_FIELD = FIELD.encode()
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MEMBER = "[a-z0-9][a-z0-9_*/@-]*=[ -+.-<>-~-]*"  # no comma and no equals sign in the value
_TRACESTATE = re.compile(f"{_MEMBER}(?:[ \\t]*,[ \\t]*{_MEMBER})*")
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
