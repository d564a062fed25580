"""Redis Streams for a fleet of asyncio consumers: each stream has exactly one live owner.

When an owner dies, a peer takes over its streams. Start with `RedisStreamClient`; producers use
`LoadBalancerStream`.
"""

from redis_stream_client._leases.events import (
    Event,
    ExpiredStream,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamWanted,
)
from redis_stream_client._leases.lease import Lease
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.errors import (
    AlreadyClaimed,
    ClientClosed,
    EntriesTrimmed,
    LossReason,
    NotInTime,
    NotJoined,
    NotOwner,
    RedisRejected,
    RedisStreamClientError,
    RedisUnavailable,
    StreamGone,
    UnknownConsumer,
)
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.fleet_status import FleetMember, FleetStatus, Lag, StreamStatus, Unread
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.health import Health, Stuck
from redis_stream_client._model.observer import (
    Burial,
    Checkpoint,
    ClaimLost,
    Ending,
    Failure,
    Gain,
    HandlerEnd,
    HandlerStart,
    Lapse,
    Loss,
    Membership,
    Observer,
    RedisOutage,
    Sending,
)
from redis_stream_client._model.orders import Pause, Release
from redis_stream_client._model.poison import PoisonError
from redis_stream_client._model.public_names import claim_exports as _claim_exports
from redis_stream_client._model.rebalance import Rebalance
from redis_stream_client._model.retry_policy import RetryLater, RetryPolicy
from redis_stream_client._model.statistics import FailingStream, Outage, Presence, Statistics
from redis_stream_client._model.version import __version__
from redis_stream_client._run.handler import Handler
from redis_stream_client.client import EventIterator, RedisStreamClient
from redis_stream_client.dead_letters import DeadLetter, DeadLetters
from redis_stream_client.fleet import Fleet
from redis_stream_client.producer import LoadBalancerStream

__all__ = [
    "AlreadyClaimed",
    "Burial",
    "Checkpoint",
    "ClaimLost",
    "ClientClosed",
    "DeadLetter",
    "DeadLetters",
    "Ending",
    "EntriesTrimmed",
    "Entry",
    "Event",
    "EventIterator",
    "ExpiredStream",
    "FailingStream",
    "Failure",
    "Fence",
    "Fleet",
    "FleetMember",
    "FleetStatus",
    "Gain",
    "Gap",
    "Handler",
    "HandlerEnd",
    "HandlerStart",
    "Health",
    "Lag",
    "Lapse",
    "Lease",
    "LoadBalancerStream",
    "Loss",
    "LossReason",
    "Membership",
    "NotInTime",
    "NotJoined",
    "NotOwner",
    "Observer",
    "Outage",
    "Pause",
    "PoisonError",
    "Presence",
    "Rebalance",
    "RedisOutage",
    "RedisRejected",
    "RedisStreamClient",
    "RedisStreamClientError",
    "RedisUnavailable",
    "Release",
    "RetryLater",
    "RetryPolicy",
    "Sending",
    "Statistics",
    "StreamAdded",
    "StreamDisowned",
    "StreamExpired",
    "StreamGone",
    "StreamStatus",
    "StreamWanted",
    "Stuck",
    "UnknownConsumer",
    "Unread",
    "__version__",
]

_claim_exports(__name__)
