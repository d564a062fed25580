"""The table of all metrics: names, types, units, attributes and what they mean.

The instruments are made from it, and so is the documentation; a test holds both to what an exporter really shows.
"""

from dataclasses import dataclass
from typing import Literal

SEMANTIC_CONVENTIONS = "1.44.0"
"""The version of OpenTelemetry's semantic conventions whose names for messaging are used, where they fit."""

Kind = Literal["counter", "up-down counter", "gauge", "histogram"]

OURS = "redis_stream_client"

SERVICE = f"{OURS}.service"
HOW = f"{OURS}.how"
REASON = f"{OURS}.reason"
OUTCOME = f"{OURS}.outcome"
RESULT = f"{OURS}.result"
STATE = f"{OURS}.state"
ERROR = "error.type"
SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
GROUP = "messaging.consumer.group.name"
DESTINATION = "messaging.destination.name"

ATTRIBUTES = {
    SERVICE: "name of the service, as given to the client",
    HOW: "how a stream was gained or a lease ended: the words of `Gain.how` and `Ending.how`",
    REASON: "why a lease was lost, a lock lapsed or an announcement was buried: the words of `Loss.reason`, "
    "`Lapse.cause` and `Burial.why`",
    OUTCOME: "what became of the work on a stream: the words of `HandlerEnd.outcome`",
    RESULT: "`won` or `lost`",
    STATE: "of members: `alive`, `draining` or `dead`; of announcements: `waiting`, `owned` or `orphaned`",
    ERROR: "class of the exception; absent if there was none",
    SYSTEM: "`redis`",
    OPERATION: "`process` for a handler, `add` or `write` for a producer",
    OPERATION_TYPE: "`process` for a handler, `send` for a producer",
    GROUP: "name of the service, too: its members are the consumer group",
    DESTINATION: "name of the load balancer stream or, in spans alone, of the data stream",
}
"""What the attributes mean. None of them is as many-valued as streams, entries or consumers are."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: its name in OpenTelemetry.
        kind: a counter only grows; an up-down counter can be added up over members; a gauge cannot.
        unit: in UCUM: ``s`` is seconds, and what stands in braces is a word for people.
        meaning: what it says.
        attributes: names of its attributes besides `SERVICE`, which all have.
        boundaries: the upper bounds of a histogram's buckets. A view of the application may set others.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    boundaries: tuple[float, ...] | None = None

    def __str__(self) -> str:
        attributes = f": {', '.join(self.attributes)}" if self.attributes else ""
        return f"{self.name} ({self.kind}, {self.unit}){attributes}"

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus, as OpenTelemetry's exporter makes it. A histogram's has suffixes."""
        name = self.name.replace(".", "_")
        seconds = "_seconds" if self.unit == "s" else ""
        return f"{name}{seconds}{'_total' if self.kind == 'counter' else ''}"


_MESSAGING = (SYSTEM, OPERATION, OPERATION_TYPE, GROUP)
_SHORT = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the semantic conventions ask for."""

_LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_RECOVERIES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0)
_LIVES = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0)

# What members have, from `statistics()`.

LEASES = Metric(f"{OURS}.leases", "up-down counter", "{lease}", "Streams that members own now.")
HANDLERS = Metric(f"{OURS}.handlers", "up-down counter", "{handler}", "Handlers that run() has at work now.")
SUSPECTS = Metric(
    f"{OURS}.suspects",
    "up-down counter",
    "{stream}",
    "Streams whose earlier owners died, and whose handlers wait for their turn.",
)
UNREAD_EVENTS = Metric(
    f"{OURS}.events.unread", "up-down counter", "{event}", "Events that nobody has read from events() yet."
)
FAILING = Metric(
    f"{OURS}.failing",
    "up-down counter",
    "{stream}",
    "Owned streams whose handlers have failed since their checkpoint last advanced; at most 100 of each member.",
)
GOING = Metric(
    f"{OURS}.rebalancing",
    "up-down counter",
    "{stream}",
    "Streams that members are giving to peers with fewer, and whose handlers have not come to a checkpoint yet.",
)
UNSETTLED = Metric(
    f"{OURS}.records.unsettled",
    "up-down counter",
    "{record}",
    "Ended leases whose progress record or data stream still has to be updated in Redis.",
)
MEMBERS = Metric(
    f"{OURS}.members",
    "gauge",
    "{member}",
    "Live members of the service, as this one counts them; itself included.",
)
PRESENT = Metric(
    f"{OURS}.present",
    "up-down counter",
    "{member}",
    "Members that have declared their presence, so that peers notice at once when they crash: 1 or 0 of each.",
)
SINCE_BEAT = Metric(
    f"{OURS}.beat.age", "gauge", "s", "Time since the last successful renewal of the consumer lock was sent."
)
OUTAGE = Metric(
    f"{OURS}.outage",
    "gauge",
    "{outage}",
    "1 while what all handlers need seems to be away: their failures do not count. Otherwise 0.",
)
PAUSED = Metric(
    f"{OURS}.paused",
    "up-down counter",
    "{member}",
    "Members that take no new streams, because an operator has paused the fleet: 1 or 0 of each.",
)
OLDEST_ANNOUNCEMENT = Metric(
    f"{OURS}.announcement.age",
    "gauge",
    "s",
    "Age of the oldest announcement that no member has read; 0: none waits. Looked at every 10 s or so.",
)
OLDEST_UNHANDLED = Metric(
    f"{OURS}.unhandled.age", "gauge", "s", "How long an owned stream has been without a handler; 0: none is."
)
OLDEST_WAKEUP = Metric(
    f"{OURS}.wakeup.age",
    "gauge",
    "s",
    "How long a handler has waited for entries that are there and that the client has not read; 0: none does.",
)

# What happens.

GAINED = Metric(f"{OURS}.leases.gained", "counter", "{lease}", "Streams that members got.", (HOW,))
LOST = Metric(f"{OURS}.leases.lost", "counter", "{lease}", "Leases that were lost.", (REASON,))
ENDED = Metric(
    f"{OURS}.leases.ended",
    "counter",
    "{lease}",
    "Leases that their holders ended. What was `given` went to peers with fewer, by rebalancing.",
    (HOW,),
)
CLAIMS = Metric(
    f"{OURS}.claims",
    "counter",
    "{claim}",
    "Streams without a live owner that members asked for: won, or lost because a peer was first or the stream was "
    "gone.",
    (RESULT,),
)
LAPSES = Metric(
    f"{OURS}.lapses",
    "counter",
    "{lapse}",
    "How often a member lost its consumer lock, or had to assume so: with it, all its leases.",
    (REASON,),
)
FAILURES = Metric(
    f"{OURS}.failures",
    "counter",
    "{failure}",
    "How often handlers raised, or made no progress in time; then the class is `stalled`.",
    (ERROR,),
)
LETTERS = Metric(
    f"{OURS}.dead_letters", "counter", "{letter}", "Announcements that went to the dead letters.", (REASON,)
)
CHECKPOINTS = Metric(f"{OURS}.checkpoints", "counter", "{checkpoint}", "Checkpoints that Redis accepted.")
RECOVERY = Metric(
    f"{OURS}.recovery.duration",
    "histogram",
    "s",
    "From the last sign of life of a stream's owner, or from its release, to the first step of its next handler.",
    (HOW,),
    _RECOVERIES,
)
HANDLER = Metric(
    f"{OURS}.handler.duration", "histogram", "s", "For how long handlers worked on a stream.", (OUTCOME,), _LIVES
)
LAG = Metric(
    f"{OURS}.lag",
    "histogram",
    "s",
    "Age of the last processed entry when its checkpoint was accepted, as its id says.",
    (),
    _LAGS,
)

# Messaging, by the semantic conventions.

CONSUMED = Metric(
    "messaging.client.consumed.messages",
    "counter",
    "{message}",
    "Entries that entries() and batches() have returned.",
    _MESSAGING,
)
PROCESS = Metric(
    "messaging.process.duration",
    "histogram",
    "s",
    "From the return of an entry or batch to a handler until it asks for the next one.",
    (*_MESSAGING, ERROR),
    _SHORT,
)
SENT = Metric(
    "messaging.client.sent.messages",
    "counter",
    "{message}",
    "Announcements and entries that producers were asked to send.",
    (SYSTEM, OPERATION, OPERATION_TYPE, DESTINATION, ERROR),
)
OPERATIONS = Metric(
    "messaging.client.operation.duration",
    "histogram",
    "s",
    "Duration of the calls of producers.",
    (SYSTEM, OPERATION, OPERATION_TYPE, DESTINATION, ERROR),
    _SHORT,
)

# The fleet from outside, from `OpenTelemetry.watch`.

FLEET_UP = Metric(
    f"{OURS}.fleet.up", "gauge", "{fleet}", "1 if Redis answered the last look at the fleet; otherwise 0."
)
FLEET_MEMBERS = Metric(
    f"{OURS}.fleet.members", "gauge", "{member}", "Members; dead ones are forgotten after a while.", (STATE,)
)
FLEET_ANNOUNCEMENTS = Metric(
    f"{OURS}.fleet.announcements",
    "gauge",
    "{announcement}",
    "Announced streams: not read by a member yet, owned by a living one, or without a living owner.",
    (STATE,),
)
FLEET_WAITING = Metric(
    f"{OURS}.fleet.waiting.age",
    "gauge",
    "s",
    "How long the oldest waiting announcement has waited; 0: none waits.",
)
FLEET_ORPHANED = Metric(
    f"{OURS}.fleet.orphaned.age", "gauge", "s", "How long the oldest orphaned stream has been one; 0: none is."
)
FLEET_PAUSED = Metric(
    f"{OURS}.fleet.paused",
    "gauge",
    "s",
    "For how long an operator has had the fleet take no new streams; 0: not now.",
)
FLEET_LETTERS = Metric(f"{OURS}.fleet.dead_letters", "gauge", "{letter}", "Dead letters that are there.")
FLEET_LAG = Metric(
    f"{OURS}.fleet.lag",
    "gauge",
    "s",
    "Age of the oldest entry after a checkpoint, of all announced streams; 0: none. Only with `lag=True`.",
)
FLEET_BEHIND = Metric(
    f"{OURS}.fleet.entries.behind",
    "gauge",
    "{message}",
    "Entries after the checkpoints of all announced streams, about 100 of each. Only with `lag=True`.",
)

METRICS = tuple(each for each in tuple(globals().values()) if isinstance(each, Metric))
"""All of them, in the order of this file."""


def processing(service: str) -> dict[str, str]:
    """The attributes of what handlers of a service do, by the semantic conventions."""
    return {SERVICE: service, SYSTEM: "redis", OPERATION: "process", OPERATION_TYPE: "process", GROUP: service}
