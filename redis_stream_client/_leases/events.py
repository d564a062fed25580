"""The events of a client: a closed union, so that ``match`` and type checkers know all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis_stream_client._leases.lease import Lease
from redis_stream_client._model.errors import LossReason


@dataclass(frozen=True, slots=True)
class ExpiredStream:
    """A stream without a live owner: its owner died, left, or released it. Pass it to ``client.claim()``.

    Attributes:
        stream: name of the data stream.
        lbs_id: id of its announcement.
        info: the ``Info`` of the announcement, decoded JSON, or None.
        previous_owner: id of the consumer that owned it last; None if it was released.
        deliveries: delivery count of the announcement so far.
    """

    stream: str
    lbs_id: str
    info: Mapping[str, Any] | None = field(compare=False)
    previous_owner: str | None
    deliveries: int


@dataclass(frozen=True, slots=True)
class StreamAdded:
    """This client owns another data stream now. The payload is its lease."""

    payload: Lease


@dataclass(frozen=True, slots=True)
class StreamExpired:
    """A data stream needs a new owner. To take it over, ``await client.claim(event.payload)``.

    If you do not claim it, and no peer does, the client offers it again after `lock_ttl`, at most 2 s, then at
    longer intervals.
    """

    payload: ExpiredStream


@dataclass(frozen=True, slots=True)
class StreamDisowned:
    """This client has lost a stream: stop working on it. The payload is its lease, `reason` says why it was
    lost."""

    payload: Lease
    reason: LossReason


@dataclass(frozen=True, slots=True)
class StreamWanted:
    """This stream should go elsewhere: a peer has clearly fewer streams than its share, or an operator has called
    `Fleet.release`. The payload is your lease of it.

    To give it up, stop working on it, and ``await event.payload.release()``, best right after a checkpoint. Or do
    nothing, and keep it: you are not asked for this lease again for a minute. You get this event only with
    ``client.events(rebalance=True)``.
    """

    payload: Lease


Event = StreamAdded | StreamExpired | StreamDisowned | StreamWanted
"""What ``async for`` over ``client.events()`` yields."""
