"""Known bugs, each switched on alone: the explorer must find what it breaks."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.proof.model import protocol
from tests.proof.model.protocol import FIRST, NO_FENCE, UNOWNED, Fence, Record, Redis, Reply

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
    BEGIN_COUNTS_AGAIN = "a repeated begin counts a second attempt"
    BEGIN_FORGETS_FAILURES = "begin forgets the failures of the owners before"
    BEGIN_KEEPS_FAILURES = "begin counts the failures at an earlier announcement"
    FAIL_WITHOUT_FENCE = "fail does not compare the fence"
    FAIL_COUNTS_AGAIN = "a repeated fail counts a second failure"
    FAIL_AFTER_PROGRESS = "fail counts a failure of an owner that got on"
    FAIL_IS_A_DEATH = "fail leaves the attempt, as if its owner had died, too"
    FAIL_ABSOLVES_ALL = "fail takes the attempts of all owners away, and the deaths with them"
    LAPSE_IS_A_DEATH = "begin counts the lapse of a client that lives as a death"
    LAPSE_ABSOLVES_TWICE = "begin takes an owner out, though its failure has done so"
    STANDSTILL_IS_NO_DEATH = "a client that stood still says that it lived on"
    SETTLE_TAKES_TWICE = "a repeated settle takes a second attempt out"
    SETTLE_FORGETS_DEATHS = "settle forgets the deaths before an owner that has tried nothing"
    SETTLE_FORGETS_FAILURES = "settle forgets the failures before it"
    SETTLE_WITHOUT_FENCE = "settle does not compare the fence"
    DEPOSE_WITHOUT_COMPARING = "depose does not compare again"
    DEPOSE_ANOTHER_NONCE = "depose does not compare the nonce"
    DECLARATION_SURVIVES = "a declaration counts after a fail-over, too"
    WATCHER_FOR_EVER = "who watches is never replaced"
    BELIEVES_UNSEEN = "a client that lost its listener has no doubt"
    BEAT_ENDS_DOUBT = "an answered beat ends the doubt of a lost listener"
    RESUME_ENDS_DOUBT = "a resume ends the doubt of a lost listener, though nothing was withdrawn"
    WITHDRAW_WAITS = "withdrawing waits behind a declaration that has no answer"
    NOT_WITHDRAWN = "a client whose declaration was not answered does not withdraw"
    LATE_DECLARATION = "a withdrawal makes sure that a declaration without an answer is not executed later"
    LATE_WITHOUT_DOUBT = "a declaration that may be executed late is withdrawn, but nothing is in doubt until then"
    WITHDRAWN_BEFORE = "the answer to a withdrawal counts, though the listener was lost again since it was sent"
    DEPOSED_GIVES_UP = "a client that was deposed gives up what nobody took"


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


def _begin_again(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    redis, reply = protocol.begin(redis, me, stream, fence, *rest)
    if reply[0] == "begun" and (stored.fence, stored.consumer) == (fence, me):
        redis = _changed(redis, stream, attempts=stored.attempts + 1)
    return redis, reply


def _begin_afresh(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    redis, reply = protocol.begin(redis, me, stream, fence, *rest)
    if reply[0] == "begun" and stored.fence != fence:
        redis = _changed(redis, stream, failures=0)
    return redis, reply


def _begin_on_top(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    redis, reply = protocol.begin(redis, me, stream, fence, *rest)
    if reply[0] == "begun" and stored.failed and stored.failed[0] != fence[0]:
        redis = _changed(redis, stream, failures=stored.failures, failed=(fence[0], *stored.failed[1:]))
    return redis, reply


def _fail_unfenced(redis: Redis, me: int, stream: int, fence: Fence) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if stored.fence == NO_FENCE:
        return protocol.fail(redis, me, stream, fence)
    return protocol.fail(redis, stored.consumer, stream, stored.fence)


def _fail_again(redis: Redis, me: int, stream: int, fence: Fence) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if stored.failed[:2] == fence:
        redis = _changed(redis, stream, failed=(fence[0], 0, *stored.failed[2:]))
    return protocol.fail(redis, me, stream, fence)


def _fail_anyway(redis: Redis, me: int, stream: int, fence: Fence) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if not stored.attempts and stored.failed[:2] != fence:
        redis = _changed(redis, stream, attempts=1)
    return protocol.fail(redis, me, stream, fence)


def _fail_and_die(redis: Redis, me: int, stream: int, fence: Fence) -> tuple[Redis, Reply]:
    attempts = redis.records[stream].attempts
    redis, reply = protocol.fail(redis, me, stream, fence)
    return (_changed(redis, stream, attempts=attempts) if reply[0] == "failed" else redis), reply


def _fail_for_all(redis: Redis, me: int, stream: int, fence: Fence) -> tuple[Redis, Reply]:
    redis, reply = protocol.fail(redis, me, stream, fence)
    return (_changed(redis, stream, attempts=0) if reply[0] == "failed" else redis), reply


def _begin_a_death(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    return protocol.begin(redis, me, stream, fence, *rest[:-1])


def _begin_absolves(redis: Redis, me: int, stream: int, fence: Fence, *rest: Any) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if stored.failed[:2] == stored.fence:
        redis = _changed(redis, stream, failed=(stored.failed[0], 0, *stored.failed[2:]))
    return protocol.begin(redis, me, stream, fence, *rest)


def _settle_twice(
    redis: Redis, me: int, stream: int, fence: Fence, *, untried: bool = False
) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    if stored.failed[:2] == fence:
        redis = _changed(redis, stream, failed=(fence[0], 0, *stored.failed[2:]))
    return protocol.settle(redis, me, stream, fence, untried=untried)


def _settle_deaths(
    redis: Redis, me: int, stream: int, fence: Fence, *, untried: bool = False
) -> tuple[Redis, Reply]:
    return protocol.settle(redis, me, stream, fence)


def _settle_all(redis: Redis, me: int, stream: int, fence: Fence, *, untried: bool = False) -> tuple[Redis, Reply]:
    return protocol.settle(redis, me, stream, fence, idle=True)


def _settle_unfenced(
    redis: Redis, _: int, stream: int, fence: Fence, *, untried: bool = False
) -> tuple[Redis, Reply]:
    stored = redis.records[stream]
    owner = fence if stored.fence == NO_FENCE else stored.fence
    return protocol.settle(redis, stored.consumer, stream, owner)


def _depose_blindly(redis: Redis, me: int, mine: int, victim: int, theirs: int) -> tuple[Redis, Reply]:
    there = protocol.exists(redis, victim)
    return protocol.set_lock(protocol.set_present(redis, victim, ()), victim, False), (victim,) if there else ()


def _depose_any(redis: Redis, me: int, mine: int, victim: int, theirs: int) -> tuple[Redis, Reply]:
    declaration = redis.present[victim - FIRST]
    return protocol.depose(redis, me, mine, victim, declaration[0] if declaration else theirs)


def _everywhere(script: Callable[..., tuple[Redis, Reply]]) -> Callable[..., tuple[Redis, Reply]]:
    def run(redis: Redis, *args: Any) -> tuple[Redis, Reply]:
        here = tuple(declaration and (declaration[0], True) for declaration in redis.present)
        return script(redis._replace(present=here), *args)

    return run


def _watch_for_ever(redis: Redis, me: int, nonce: int) -> tuple[Redis, Reply]:
    if redis.watch in (UNOWNED, me) or not protocol.listened(redis, me):
        return protocol.watch(redis, me, nonce)
    return redis, ("other", 0)


def _changed(redis: Redis, stream: int, **fields: Any) -> Redis:
    return protocol.set_record(redis, stream, redis.records[stream]._replace(**fields))


Scripts: TypeAlias = "dict[str, Callable[..., tuple[Redis, Reply]]]"

SCRIPTS: Scripts = {
    name: getattr(protocol, name)
    for name in ("join", "leave", "read", "beat", "claim", "claim_many", "adopt", "done", "release", "begin",
                 "fail", "settle", "checkpoint", "lift", "present", "withdraw", "watch", "depose")
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
    Mutation.BEGIN_COUNTS_AGAIN: {"begin": _begin_again},
    Mutation.BEGIN_FORGETS_FAILURES: {"begin": _begin_afresh},
    Mutation.BEGIN_KEEPS_FAILURES: {"begin": _begin_on_top},
    Mutation.FAIL_WITHOUT_FENCE: {"fail": _fail_unfenced},
    Mutation.FAIL_COUNTS_AGAIN: {"fail": _fail_again},
    Mutation.FAIL_AFTER_PROGRESS: {"fail": _fail_anyway},
    Mutation.FAIL_IS_A_DEATH: {"fail": _fail_and_die},
    Mutation.FAIL_ABSOLVES_ALL: {"fail": _fail_for_all},
    Mutation.LAPSE_IS_A_DEATH: {"begin": _begin_a_death},
    Mutation.LAPSE_ABSOLVES_TWICE: {"begin": _begin_absolves},
    Mutation.SETTLE_TAKES_TWICE: {"settle": _settle_twice},
    Mutation.SETTLE_FORGETS_DEATHS: {"settle": _settle_deaths},
    Mutation.SETTLE_FORGETS_FAILURES: {"settle": _settle_all},
    Mutation.SETTLE_WITHOUT_FENCE: {"settle": _settle_unfenced},
    Mutation.DEPOSE_WITHOUT_COMPARING: {"depose": _depose_blindly},
    Mutation.DEPOSE_ANOTHER_NONCE: {"depose": _depose_any},
    Mutation.DECLARATION_SURVIVES: {"watch": _everywhere(protocol.watch), "depose": _everywhere(protocol.depose)},
    Mutation.WATCHER_FOR_EVER: {"watch": _watch_for_ever},
}
