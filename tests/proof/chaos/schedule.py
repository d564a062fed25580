"""Which faults happen when, and to whom: determined by the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

MEMBER_FAULTS = {
    "kill": 5,
    "stop briefly": 2,
    "stop": 4,
    "terminate": 3,
    "cut": 2,
    "partition briefly": 1,
    "partition": 4,
    "freeze": 3,
    "delay": 2,
    "drop replies": 2,
    "drop requests": 2,
    "lose a reply": 4,
    "half-close": 2,
    "vanish": 2,
    "bandwidth": 4,
    "block": 2,
    "raise": 3,
    "suicide": 3,
    "evict the lock": 2,
    "delete the consumer": 1,
    "acknowledge": 1,
    "operator evicts": 2,
    "operator releases": 4,
    "operator drains": 2,
    "member's dependency away": 2,
    "bad deploy": 1,
}
WRITER_FAULTS = {
    "kill a writer": 8,
    "stop a writer": 4,
    "cut a writer": 2,
    "partition a writer": 2,
    "lose a writer's reply": 3,
}
SERVER_FAULTS = {
    "kill connections": 2,
    "kill pubsub": 2,
    "storm": 1,
    "pause": 2,
    "flush scripts": 2,
    "notifications off": 2,
    "garbage": 1,
    "malformed": 2,
    "trim": 1,
    "full": 2,
    "destroy the group": 1,
    "ledger away": 2,
    "poison": 1,
    "operator pauses": 2,
}
STANDALONE_FAULTS = {
    "freeze the server": 2,
    "restart": 1,
    "outage": 1,
    "fail over": 1,
    "forgetful failover": 1,
}
CLUSTER_FAULTS = {
    "freeze a node": 2,
    "restart a node": 2,
    "kill a node": 2,
    "fail over a node": 2,
    "move a slot": 3,
}
DEPLOYMENTS = {"standalone": STANDALONE_FAULTS, "cluster": CLUSTER_FAULTS}
"""The kinds of faults, and how often each happens in one round. One round after the other is shuffled, so that a
run of a minute has nearly all of them."""

SECONDS = {
    "stop briefly": (0.1, 0.7),
    "stop": (1.3, 3.5),
    "partition briefly": (0.1, 0.7),
    "partition": (1.5, 3.5),
    "freeze": (0.3, 2.5),
    "delay": (0.5, 2.0),
    "drop replies": (0.2, 2.0),
    "drop requests": (0.2, 2.0),
    "lose a reply": (0.5, 0.5),
    "bandwidth": (1.0, 4.0),
    "block": (0.5, 3.0),
    "kill a writer": (0.7, 1.6),
    "stop a writer": (0.1, 2.5),
    "partition a writer": (0.3, 2.0),
    "lose a writer's reply": (0.5, 0.5),
    "pause": (0.05, 0.6),
    "storm": (0.2, 2.0),
    "full": (0.3, 1.0),
    "freeze the server": (0.2, 1.8),
    "freeze a node": (0.2, 3.0),
    "restart a node": (0.0, 1.0),
    "outage": (0.5, 2.5),
    "forgetful failover": (0.1, 0.7),
    "trim": (0.3, 0.6),
    "ledger away": (2.0, 8.0),
    "member's dependency away": (2.0, 5.0),
    "bad deploy": (2.0, 5.0),
    "operator pauses": (0.5, 3.0),
}
"""How long they last, in units of the fleet's pace: of a lock's lifetime, if that is not a long one."""


LONG_RUN = 600.0
"""Seconds from which on a run is long enough for an outage of a minute."""
LONG_OUTAGES = ("ledger away", 60.0, 0.2)
"""Such an outage of what all handlers need, how many seconds it lasts, and how many of them are so long."""

CYCLE, CALM = 40.0, 10.0
"""Each so many units end with so many in which nothing happens: then all must be well again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, in seconds from the start; which member or writer it strikes, by its place
    (None: the server); how long it lasts, in seconds; and a number below 1 that says which variant it is."""

    number: int
    at: float
    kind: str
    place: int | None
    seconds: float
    variant: float


def schedule(
    seed: int, duration: float, rate: float, members: int, writers: int, unit: float, deployment: str
) -> list[Fault]:
    """All faults of a run of `duration` seconds, `rate` of them a second. `unit`: the fleet's pace in seconds."""
    kinds = MEMBER_FAULTS | WRITER_FAULTS | SERVER_FAULTS | DEPLOYMENTS[deployment]
    places = dict.fromkeys(MEMBER_FAULTS, members) | dict.fromkeys(WRITER_FAULTS, writers)
    dice = random.Random(seed)
    faults: list[Fault] = []
    at = 0.0
    bag: list[str] = []
    cycle, calm = CYCLE * unit, CALM * unit
    while (at := at + dice.uniform(1 / 3, 5 / 3) / rate) < duration:
        if at % cycle > cycle - calm:
            at += cycle - at % cycle
            continue
        if not bag:
            bag = [kind for kind, n in kinds.items() for _ in range(n)]
            dice.shuffle(bag)
        kind = bag.pop()
        place = dice.randrange(places[kind]) if kind in places else None
        seconds = dice.uniform(*SECONDS.get(kind, (0.0, 0.0))) * unit
        variant = dice.random()
        if duration >= LONG_RUN and kind == LONG_OUTAGES[0] and variant < LONG_OUTAGES[2]:
            seconds = LONG_OUTAGES[1]
        faults.append(Fault(len(faults) + 1, at, kind, place, seconds, variant))
    return faults
