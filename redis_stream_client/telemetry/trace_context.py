"""The context of a trace as it travels: W3C Trace Context, in announcements and in the fields of entries."""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

LONGEST = 512
"""Characters of ``traceparent`` or ``tracestate`` that are looked at. Longer ones are ignored."""

FIELDS = ("traceparent", "tracestate")

_W3C = TraceContextTextMapPropagator()
_BYTES = tuple((name, name.encode()) for name in FIELDS)
_TRACEPARENT = b"traceparent"
_NONE = Context()


def carrier() -> dict[str, str]:
    """The current span, for whoever gets what is written now; empty if there is none."""
    found: dict[str, str] = {}
    _W3C.inject(found)
    return found


def of_announcement(carrier: Mapping[str, object]) -> SpanContext | None:
    """The span in which somebody announced a stream. None: it is not known, or what is there is not valid."""
    if "traceparent" not in carrier:
        return None
    return _parsed({name: text for name in FIELDS if isinstance(text := carrier.get(name), str)})


def of_entry(fields: Mapping[bytes, bytes]) -> SpanContext | None:
    """The span in which somebody wrote an entry, if its fields hold a ``traceparent``."""
    if _TRACEPARENT not in fields:
        return None
    found = {name: fields[key].decode("ascii", "replace") for name, key in _BYTES if key in fields}
    return _parsed(found)


def _parsed(found: dict[str, str]) -> SpanContext | None:
    short = {name: text for name, text in found.items() if len(text) <= LONGEST}
    context = get_current_span(_W3C.extract(short, context=_NONE)).get_span_context()
    return context if context.is_valid else None
