"""The words for outages: what is wrong, what follows from it and what to do, and what is so again at the end.

They are for whoever is on call. Whoever knows of a kind of outage that has nothing to do with Redis has its words.
"""

from typing import NamedTuple


class Wording(NamedTuple):
    """The words for one kind of outage. In them, ``%(address)s`` and the like stand for fields.

    Attributes:
        kind: the field `outage`.
        trouble: what is wrong.
        follows: what follows from it, and what to do.
        over: what is so again at the end.
    """

    kind: str
    trouble: str
    follows: str
    over: str


REDIS = Wording(
    "redis",
    "no usable answer from Redis (%(address)s)",
    "streams go to peers that reach it when the consumer lock expires; look at that server, and the network to it",
    "Redis (%(address)s) answers again",
)
SUBSCRIPTION = Wording(
    "subscription",
    "no usable answer from the subscription at %(address)s",
    "of dead peers and of released streams this client learns by sweeping, which takes longer; look at what cuts "
    "connections to that server",
    "the subscription at %(address)s works again",
)
ANNOUNCEMENTS = Wording(
    "announcements",
    "new announcements cannot be read from Redis (%(address)s), though it answers beats",
    "this client takes no new streams; look at that server",
    "new announcements are read again",
)
SWEEPS = Wording(
    "sweeps",
    "this client cannot sweep at Redis (%(address)s), though it answers beats",
    "the streams of dead peers are left to other members; look at that server",
    "this client sweeps again",
)
REBALANCING = Wording(
    "rebalancing",
    "this client cannot ask Redis (%(address)s) who has how many streams, though it answers beats",
    "it takes no part in rebalancing; look at that server",
    "this client takes part in rebalancing again",
)
PRESENCE = Wording(
    "presence",
    "Redis (%(address)s) does not answer requests about presence, though it answers beats",
    "a crash is noticed when the lock of the dead consumer expires; look at that server",
    "presence works again",
)
OPERATIONS = Wording(
    "operations",
    "claims, releases and what is done get no usable answer from Redis (%(address)s), though it answers beats",
    "they are repeated; look at that server",
    "claims, releases and what is done are answered again",
)
SERVERS = Wording(
    "servers",
    "no node of the cluster tells which one holds which data stream",
    "streams that have moved are not read; look at the nodes, and at the network to them",
    "it is known again which node holds which data stream",
)
ENTRIES = Wording(
    "entries",
    "no usable answer from %(address)s to reads of data streams",
    "their handlers wait for entries; look at that server, and at the network to it",
    "data streams at %(address)s are read again",
)
RECORDS = Wording(
    "records",
    "no usable answer from %(address)s to requests about progress records",
    "handlers whose streams are there wait for their checkpoints; look at that server, and at the network to it",
    "progress records at %(address)s are written again",
)
WAKE_UPS = Wording(
    "wake-ups",
    "no wake-ups from %(address)s",
    "idle data streams are looked at from time to time, which takes up to a second longer and costs more; look at "
    "what cuts connections to that server",
    "wake-ups from %(address)s work again",
)

LOCK = Wording(
    "lock",
    "this client does not hold its consumer lock",
    "peers may take its %(streams)d streams; it takes the lock again as soon as it can",
    "the consumer lock is held again",
)
