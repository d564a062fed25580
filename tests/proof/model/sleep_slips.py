"""Mistakes in sleeping and waking that the model must find."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from tests.proof.model import sleep_protocol as protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.proof.model.sleep_protocol import Redis, Reply


class Slip(Enum):
    """One mistake, and what it is."""

    LOOKS_FIRST = "an owner looks at the data stream first, and withholds its announcement then"
    ANNOUNCES_FIRST_ONLY = "a producer announces before it adds, and neither asks who sleeps nor looks again"
    ADDS_FIRST = "a producer adds before it announces, and dies"
    IGNORES_SLEEP = "the script that adds does not ask who sleeps"
    NO_SECOND_LOOK = "a producer does not look again after it added"
    UNVERIFIED = "what the hash names is believed without a look at the load balancer stream"
    UNFENCED_FINISH = "an owner that sleeps finishes its announcement whoever owns it"
    DOZES_AT_HANDED_OUT = "an owner sleeps when it has handed out everything, with a checkpoint or without"
    NEVER_RESTORES = "what was withheld stays away"
    RESTORES_OVER = "restoring puts an announcement back whatever stands there"
    RESTORES_ANYWHERE = "restoring puts an announcement back wherever none counts, whichever attempt took it away"
    WITHHOLDS_LATE = "what was withheld later is withheld anew by an earlier attempt"
    WITHHOLDS_OWN = "an older announcement in the hash stays while a newer owner goes to sleep"
    BEGIN_WAKES = "a begin forgets who sleeps, and so does its repeat"
    AWAKE_WAKES = "a look that finds something forgets who sleeps"
    SLEEP_FOLLOWS_FENCE = "a new fence forgets who sleeps, an older one, too"
    MARK_GOES_BACK = "who sleeps says so although a newer one has slept already"
    SETTLES_AWAKE = "an owner that finishes without a look does not say so in the record"
    YIELDS_BLINDLY = "a superseded announcement is finished although the newer one may be finished by now"
    WRITE_IGNORES_SLEEP = "the script that does all on one server does not ask who sleeps"


def _append_blindly(redis: Redis, *_: int) -> tuple[Redis, Reply]:
    return redis._replace(added=redis.added + 1), ("added", redis.added + 1)


def _write_blindly(redis: Redis) -> tuple[Redis, Reply]:
    redis, _ = protocol.announce(redis)
    return _append_blindly(redis)


def _restore_over(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    if redis.lbs[id] != (me, count):
        return protocol.restore(redis, me, id, count, attempt)
    return redis._replace(believed=(id, 0)), ("restored",)


def _restore_anywhere(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    if redis.lbs[id] == (me, count) and protocol.counts(redis) < 0:
        return redis._replace(believed=(id, 0)), ("restored",)
    return protocol.restore(redis, me, id, count, attempt)


def _never_restore(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    _, reply = protocol.restore(redis, me, id, count, attempt)
    return redis, reply


def _announce_unverified(redis: Redis, not_this: int = -1) -> tuple[Redis, Reply]:
    id, withheld = redis.believed
    if id >= 0 and not withheld and id != not_this:
        return redis, (id, 0)
    return protocol.announce(redis, not_this)


def _done_unfenced(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    return protocol.done(redis, *redis.lbs[id][:1], id, redis.lbs[id][1])


def _done_of_old(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    after, reply = protocol.done(redis, me, id, count)
    return after._replace(believed=redis.believed), reply


def _doze_at_handed_out(redis: Redis, me: int, fence: tuple[int, int], handed: int = 0) -> tuple[Redis, Reply]:
    if redis.record.mine(me, fence) and redis.added <= handed:
        return protocol.sleeps(redis, fence), ("asleep",)
    return protocol.doze(redis, me, fence)


def _awake(redis: Redis) -> Redis:
    return redis._replace(record=redis.record._replace(asleep=-1))


def _begin_wakes(redis: Redis, *args: Any) -> tuple[Redis, Reply]:
    redis, reply = protocol.begin(redis, *args)
    return (_awake(redis) if reply[0] == "begun" else redis), reply


def _doze_wakes(redis: Redis, *args: Any) -> tuple[Redis, Reply]:
    redis, reply = protocol.doze(redis, *args)
    return (_awake(redis) if reply[0] == "awake" else redis), reply


def _begin_moves(redis: Redis, *args: Any) -> tuple[Redis, Reply]:
    before = redis.record.fence
    redis, reply = protocol.begin(redis, *args)
    return (_awake(redis) if reply[0] == "begun" and redis.record.fence != before else redis), reply


def _doze_back(redis: Redis, *args: Any) -> tuple[Redis, Reply]:
    redis, reply = protocol.doze(redis, *args)
    if reply == ("asleep",):
        redis = redis._replace(record=redis.record._replace(asleep=redis.record.fence[0]))
    return redis, reply


def _withhold_late(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    if redis.lbs[id] == (me, count) and redis.believed[0] == id:
        return redis._replace(believed=(id, attempt)), ("withheld",)
    return protocol.withhold(redis, me, id, count, attempt)


def _settle_awake(redis: Redis, *_: Any) -> tuple[Redis, Reply]:
    return redis, (1,)


def _withhold_own(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    if redis.lbs[id] == (me, count) and -1 < redis.believed[0] < id:
        return redis, ("withheld",)
    return protocol.withhold(redis, me, id, count, attempt)


SCRIPTS: dict[str, Callable[..., tuple[Redis, Reply]]] = {
    name: getattr(protocol, name)
    for name in ("announce", "append", "write", "withhold", "restore", "done", "supersede", "begin", "checkpoint",
                 "doze", "settle")
} | {
    "finish": protocol.done,
    "yield": protocol.done,
    "done_of_old": _done_of_old,
    "yield_of_old": _done_of_old,
}  # fmt: skip

BROKEN: dict[Slip | None, dict[str, Callable[..., tuple[Redis, Reply]]]] = {
    Slip.ADDS_FIRST: {"append": _append_blindly},
    Slip.IGNORES_SLEEP: {"append": _append_blindly},
    Slip.ANNOUNCES_FIRST_ONLY: {"append": _append_blindly},
    Slip.WRITE_IGNORES_SLEEP: {"write": _write_blindly},
    Slip.RESTORES_OVER: {"restore": _restore_over},
    Slip.RESTORES_ANYWHERE: {"restore": _restore_anywhere},
    Slip.NEVER_RESTORES: {"restore": _never_restore},
    Slip.UNVERIFIED: {"announce": _announce_unverified},
    Slip.UNFENCED_FINISH: {"finish": _done_unfenced},
    Slip.DOZES_AT_HANDED_OUT: {"doze": _doze_at_handed_out},
    Slip.BEGIN_WAKES: {"begin": _begin_wakes},
    Slip.AWAKE_WAKES: {"doze": _doze_wakes},
    Slip.SLEEP_FOLLOWS_FENCE: {"begin": _begin_moves},
    Slip.MARK_GOES_BACK: {"doze": _doze_back},
    Slip.WITHHOLDS_LATE: {"withhold": _withhold_late},
    Slip.SETTLES_AWAKE: {"settle": _settle_awake},
    Slip.WITHHOLDS_OWN: {"withhold": _withhold_own},
}
