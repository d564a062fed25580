"""The fields of the package's log records: what programs read, beside the text for people. They are stable.

A record has them as attributes, as it has all that comes in ``extra=``.
"""

from typing import Annotated, NamedTuple, TypedDict, get_type_hints


class LogFields(TypedDict, total=False):
    """Each field: its type, what it means, and which lines have it. The type checker knows no other ones."""

    service: Annotated[str, "name of the service", "every line"]
    consumer: Annotated[str, "id of the consumer that writes the line", "every line of a consumer"]
    stream: Annotated[str, "name of the data stream", "lines about one stream"]
    lbs_id: Annotated[str, "id of its announcement on the load balancer stream", "lines about one announcement"]
    fence: Annotated[str, "the fence of the lease, as text", "lines about one lease"]
    previous_owner: Annotated[str, "id of the consumer that had the stream before", "gains from a dead owner"]
    new_owner: Annotated[str, "id of the consumer that has the stream now", "losses, where it is known"]
    streams: Annotated[int, "how many streams it concerns", "lines about several streams"]
    attempts: Annotated[int, "see `Lease.attempts`", "failures of a handler"]
    error: Annotated[str, "what has failed, as text", "outages, and lines about a failure"]
    address: Annotated[str, "the server that it is about", "outages, restarts and fail-overs of a server"]
    outage: Annotated[str, "what kind of outage it is", "the beginning, the reminders and the end of an outage"]
    since: Annotated[str, "when it began: ISO 8601, in UTC", "all lines of an outage"]
    lasted: Annotated[float, "for how many seconds it has lasted by now", "all lines of an outage"]
    failures: Annotated[int, "failures that did not count", "the end of an outage of what handlers depend on"]
    path: Annotated[str, "the health file", "outages of the health file"]
    left_out: Annotated[int, "how many lines like the next one were left out", "the line that says so"]


class Field(NamedTuple):
    """One row of the table of fields."""

    name: str
    type: str
    meaning: str
    lines: str


def table() -> list[Field]:
    """All fields, in the order in which `LogFields` has them."""
    hints = get_type_hints(LogFields, include_extras=True)
    return [Field(name, hint.__origin__.__name__, *hint.__metadata__) for name, hint in hints.items()]
