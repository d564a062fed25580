"""What sleeping and waking does in Redis: one data stream and its announcements, each script a pure function.

As in `protocol.py`: a function has its script's name, makes the same comparisons in the same order, and returns
the same words. Announcements are numbered as their ids are ordered, entries from 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from tests.proof.model.protocol import put

GONE, WAITING, NOBODY = -3, -2, -1
"""What stands for an announcement's owner: it is finished; it was not delivered; it was released."""
NONE = (-1, 0)
"""Where no announcement is named."""

Reply: TypeAlias = tuple[Any, ...]


class Record(NamedTuple):
    """The progress record. `asleep`: announcements up to this one do not count any more; -1: none."""

    fence: tuple[int, int] = NONE
    consumer: int = NOBODY
    checkpoint: int = 0
    asleep: int = -1

    def mine(self, me: int, fence: tuple[int, int]) -> bool:
        """Whether this owner began last."""
        return self.consumer == me and self.fence == fence


class Redis(NamedTuple):
    """`lbs`: who owns each announcement, and how often it was delivered. `believed`: which one the hash names, and
    the attempt that withholds it, or 0. `added`: entries in the data stream."""

    lbs: tuple[tuple[int, int], ...] = ()
    believed: tuple[int, int] = NONE
    added: int = 0
    record: Record = Record()


def outstanding(redis: Redis, id: int) -> bool:
    """Whether the load balancer stream has this announcement."""
    return id >= 0 and redis.lbs[id][0] != GONE


def counts(redis: Redis) -> int:
    """The announcement in the hash, if it counts, or -1."""
    id, withheld = redis.believed
    return id if not withheld and outstanding(redis, id) else -1


def put_out(redis: Redis, *, hashed: bool = True) -> Redis:
    """XADD of an announcement."""
    id = len(redis.lbs)
    return redis._replace(lbs=(*redis.lbs, (WAITING, 0)), believed=(id, 0) if hashed else redis.believed)


# The producers' scripts.


def announce(redis: Redis, not_this: int = -1) -> tuple[Redis, Reply]:
    """announce.lua, for one stream."""
    id = counts(redis)
    if id >= 0 and id != not_this:
        return redis, (id, 0)
    return put_out(redis), (len(redis.lbs), 1)


def append(redis: Redis, announced: int, before: int = -1) -> tuple[Redis, Reply]:
    """append.lua, for one entry. `before`: a mark that was there before the announcement was made."""
    asleep = redis.record.asleep
    if asleep >= announced and asleep not in (-1, before):
        return redis, ("asleep", asleep)
    return redis._replace(added=redis.added + 1), ("added", redis.added + 1)


def write(redis: Redis) -> tuple[Redis, Reply]:
    """write.lua: all on one server."""
    id = counts(redis)
    if id < 0 or redis.record.asleep >= id:
        redis = put_out(redis)
    return redis._replace(added=redis.added + 1), ("added", redis.added + 1)


# The owners' scripts. The load balancer stream's:


def withhold(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    """withhold.lua, for one stream."""
    if redis.lbs[id] != (me, count):
        return redis, _standing(redis, id)
    named, withheld = redis.believed
    if named > id and outstanding(redis, named):
        return redis, ("newer",) if not withheld else ("withheld",)
    if named == id and withheld >= attempt:
        return redis, ("withheld",)
    return redis._replace(believed=(id, attempt)), ("withheld",)


def restore(redis: Redis, me: int, id: int, count: int, attempt: int) -> tuple[Redis, Reply]:
    """withhold.lua with `restore`, for one stream."""
    if redis.lbs[id] != (me, count):
        return redis, _standing(redis, id)
    if redis.believed == (id, attempt):
        return redis._replace(believed=(id, 0)), ("restored",)
    return redis, ("newer",) if counts(redis) > id else ("restored",)


def done(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    """done.lua, for one entry."""
    if redis.lbs[id] != (me, count):
        return redis, _standing(redis, id)
    believed = NONE if redis.believed[0] == id else redis.believed
    return redis._replace(lbs=put(redis.lbs, id, (GONE, 0)), believed=believed), ("done",)


def supersede(redis: Redis, me: int, id: int, count: int, newer: int) -> tuple[Redis, Reply]:
    """supersede.lua: done of an entry that a newer one supersedes, if that one is there."""
    if redis.lbs[id] == (me, count) and not outstanding(redis, newer):
        return redis, ("over",)
    return done(redis, me, id, count)


def _standing(redis: Redis, id: int) -> Reply:
    return ("gone",) if redis.lbs[id][0] in (GONE, WAITING) else ("owner", redis.lbs[id][0])


# The data stream's:


def begin(redis: Redis, me: int, fence: tuple[int, int], replaces: tuple[Any, ...] = ()) -> tuple[Redis, Reply]:
    """begin.lua, for one record."""
    stored = redis.record
    if stored.fence < fence or stored.mine(me, fence) or (stored.fence, stored.consumer) == replaces:
        record = stored._replace(fence=fence, consumer=me)
        return redis._replace(record=record), ("begun", stored.checkpoint)
    return redis, ("refused", stored.fence, stored.consumer)


def checkpoint(redis: Redis, me: int, fence: tuple[int, int], position: int) -> tuple[Redis, Reply]:
    """checkpoint.lua, for one record."""
    stored = redis.record
    if not stored.mine(me, fence):
        return redis, ("refused", stored.fence, stored.consumer)
    if position <= stored.checkpoint:
        return redis, ("kept",)
    return redis._replace(record=stored._replace(checkpoint=position)), ("advanced",)


def doze(redis: Redis, me: int, fence: tuple[int, int], handed: int = 0) -> tuple[Redis, Reply]:
    """doze.lua, for one stream. `handed`: the last entry that was handed out, which does not matter."""
    stored = redis.record
    if not stored.mine(me, fence):
        return redis, ("refused", stored.fence, stored.consumer)
    if redis.added > stored.checkpoint:
        return redis, ("awake",)
    return sleeps(redis, fence), ("asleep",)


def settle(redis: Redis, me: int, fence: tuple[int, int]) -> tuple[Redis, Reply]:
    """settle.lua, for one record of an owner that finishes."""
    if not redis.record.mine(me, fence):
        return redis, (0,)
    return sleeps(redis, fence), (1,)


def sleeps(redis: Redis, fence: tuple[int, int]) -> Redis:
    """HSET of who sleeps, which never goes back."""
    return redis._replace(record=redis.record._replace(asleep=max(redis.record.asleep, fence[0])))
