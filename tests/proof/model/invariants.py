"""The guarantees, as the explorer checks them in every state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proof.model import presence
from tests.proof.model.protocol import FIRST, NO_FENCE, UNOWNED
from tests.proof.model.world import CLOSED, FAULTS

if TYPE_CHECKING:
    from tests.proof.model.clients import Model
    from tests.proof.model.world import World

MOST_DELIVERIES = 12  # within bounded faults; more would mean that a stream is passed on for ever


def violated(model: Model, w: World) -> tuple[str, ...]:
    """The guarantee that does not hold in this state, and why; empty when all is well."""
    if w.broken:
        return w.broken
    if any(entry.deliveries > MOST_DELIVERIES for entry in w.redis.entries):
        return ("G3", "a stream is passed on and on")
    believing: dict[int, int] = {}
    for me, client in enumerate(w.clients):
        if not client.holds or client.robbed or presence.surprised(w, me + FIRST):
            continue
        if not w.redis.locks[me]:
            return ("G5", "a client believes that it holds its lock, which does not exist")
        for id, lease in enumerate(client.table):
            if lease.deliveries:
                believing[id] = believing.get(id, 0) + 1
    if any(n > 1 for n in believing.values()) and w.budget[FAULTS.index("fail-over")] == model.bounds.fail_over:
        return ("G3", "two clients believe that they own one stream")
    return ()


def settled(w: World) -> bool:
    """G3: every announcement is finished, or owned by a live client that knows its fence; or nobody lives."""
    if all(client.mode == CLOSED for client in w.clients):
        return True
    for id, entry in enumerate(w.redis.entries):
        if entry.owner == UNOWNED:
            if entry.present or w.redis.finished[id] == NO_FENCE:
                return False
        elif entry.owner < FIRST or not w.redis.locks[entry.owner - FIRST]:
            return False
        else:
            client = w.clients[entry.owner - FIRST]
            if not client.holds or client.table[id].deliveries != entry.deliveries:
                return False
    return True
