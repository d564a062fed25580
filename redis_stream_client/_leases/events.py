"""What a client's iterator yields: a closed union that ``match`` and type checkers understand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis_stream_client._leases.lease import Lease
from redis_stream_client._model.errors import LossReason


@dataclass(frozen=True, slots=True)
class ExpiredStream:
    """A stream whose owner died, left or released it. Claim it, and it is yours.

    Attributes:
        stream: name of the data stream.
        lbs_id: id of its announcement.
        info: the announcement's ``Info``, decoded JSON, or None.
        previous_owner: id of the consumer that lost it; None when it was released.
        deliveries: how often it was delivered so far.
    """

    stream: str
    lbs_id: str
    info: Mapping[str, Any] | None = field(compare=False)
    previous_owner: str | None
    deliveries: int


@dataclass(frozen=True, slots=True)
class StreamAdded:
    """A data stream that this client owns now."""

    payload: Lease


@dataclass(frozen=True, slots=True)
class StreamExpired:
    """A data stream that wants a new owner: ``await client.claim(event.payload)``."""

    payload: ExpiredStream


@dataclass(frozen=True, slots=True)
class StreamDisowned:
    """This client lost a stream: stop working on it. The payload is the lease that was added or claimed."""

    payload: Lease
    reason: LossReason


Event = StreamAdded | StreamExpired | StreamDisowned
"""What a client's iterator yields."""
