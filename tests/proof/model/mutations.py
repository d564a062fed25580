"""Known bugs, each switched on alone: the explorer must find what it breaks."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.proof.model import protocol
from tests.proof.model.protocol import NO_FENCE, Fence, Record, Redis, Reply

if TYPE_CHECKING:
    from collections.abc import Callable


class Mutation(enum.Enum):
    """What is wrong with the protocol."""

    CLAIM_IN_TWO_STEPS = "claim compares, and sets in a second step"
    CLAIM_FROM_THE_LIVING = "claim does not compare the owner's lock"
    DONE_WITHOUT_FENCE = "done does not compare the fence"
    RELEASE_WITHOUT_FENCE = "release does not compare the fence"
    DONE_AFTER_LAPSE = "a repeated done that finds nothing is believed after a lapse"
    DONE_AFTER_FAIL_OVER = "a repeated done that finds nothing is believed after a fail-over"
    DONE_BEFORE_AUDIT = (
        "a repeated done that finds nothing is believed after a fail-over that no audit has followed"
    )
    DONE_UNCONFIRMED = "a repeated done that finds nothing is believed without another beat"
    AUDIT_OVERLAPS_READ = "the audit overlaps a read"
    AUDIT_OVERLAPS_CLAIM = "the audit overlaps a claim"
    AUDIT_OVERLAPS_DONE = "the audit overlaps a done"
    AUDIT_OVERLAPS_RELEASE = "the audit overlaps a release, and does not leave alone what is parting"
    NO_AUDIT = "there is no audit"
    REVIVED = "the audit revives what was lost under its old fence"
    CLAIM_REVIVED = "a claim of what is pending for us gives a lease under the fence that it has"
    READ_ACROSS_LAPSE = "the reply of a read is believed across a lapse"
    CLAIM_ACROSS_LAPSE = "the reply of a claim is believed across a lapse"
    LATE_BEAT = "a late beat counts as a resume"
    RESUME_KEEPS_ALL = "a resume does not look what was taken"
    RESUME_LOOKS_FIRST = "a resume looks before it takes the lock"
    BEGIN_WITHOUT_CONSUMER = "begin does not compare the consumer"
    BEGIN_WITHOUT_ORDER = "begin does not compare the fence's order"
    CHECKPOINT_WITHOUT_CONSUMER = "checkpoint does not compare the consumer"
    CHECKPOINT_WITHOUT_FENCE = "checkpoint does not compare the fence"
    CHECKPOINT_GOES_BACK = "checkpoint does not compare the position"


def _claim(redis: Redis, me: int, expected: int, id: int) -> tuple[Redis, Reply]:
    if expected != me and protocol.exists(redis, expected):
        reply = protocol.claim(protocol.set_lock(redis, expected, False), me, expected, id)
        return protocol.set_lock(reply[0], expected, True), reply[1]
    return protocol.claim(redis, me, expected, id)


def _done(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    pending = protocol.xpending(redis, id)
    own = pending is not None and pending.owner == me
    return protocol.done(redis, me, id, pending.deliveries if pending and own else count)


def _release(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    pending = protocol.xpending(redis, id)
    own = pending is not None and pending.owner == me
    return protocol.release(redis, me, id, pending.deliveries if pending and own else count)


def _begin_any(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if stored.fence == fence:
        return protocol.begin(redis, me, stream, fence, False, 0, (stored.fence, stored.consumer))
    return protocol.begin(redis, me, stream, fence, *rest)


def _begin_out_of_order(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    return protocol.begin(redis, me, stream, fence, False, 0, (stored.fence, stored.consumer))


def _checkpoint_any(redis: Redis, me: int, stream: int, fence: Fence, position: int) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    owner = stored.consumer if stored.fence == fence else me
    return protocol.checkpoint(redis, owner, stream, fence, position)


def _checkpoint_unfenced(redis: Redis, me: int, stream: int, fence: Fence, position: int) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    own = stored.consumer == me and stored.fence != NO_FENCE
    return protocol.checkpoint(redis, me, stream, stored.fence if own else fence, position)


def _checkpoint_back(redis: Redis, me: int, stream: int, fence: Fence, position: int) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if (stored.fence, stored.consumer) == (fence, me):
        record = Record(fence, me, position, 0)
        return protocol.set_record(redis, stream, record), ("advanced",)
    return redis, ("refused", stored.fence, stored.consumer)


Scripts: TypeAlias = "dict[str, Callable[..., tuple[Redis, Reply]]]"

SCRIPTS: Scripts = {
    name: getattr(protocol, name)
    for name in ("join", "leave", "read", "beat", "claim", "claim_many", "adopt", "done", "release", "begin",
                 "checkpoint", "lift")
}  # fmt: skip

BROKEN: dict[Mutation | None, Scripts] = {
    Mutation.CLAIM_FROM_THE_LIVING: {"claim": _claim},
    Mutation.DONE_WITHOUT_FENCE: {"done": _done},
    Mutation.RELEASE_WITHOUT_FENCE: {"release": _release},
    Mutation.BEGIN_WITHOUT_CONSUMER: {"begin": _begin_any},
    Mutation.BEGIN_WITHOUT_ORDER: {"begin": _begin_out_of_order},
    Mutation.CHECKPOINT_WITHOUT_CONSUMER: {"checkpoint": _checkpoint_any},
    Mutation.CHECKPOINT_WITHOUT_FENCE: {"checkpoint": _checkpoint_unfenced},
    Mutation.CHECKPOINT_GOES_BACK: {"checkpoint": _checkpoint_back},
}
