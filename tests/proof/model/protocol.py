"""Redis in the model: its state, and each Lua script as a pure function of it.

A function has its script's name, makes the same comparisons in the same order, and returns the same words;
`README.md` holds the two side by side, and `proof/test_model.py` runs both and compares.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

FIRST = 100
"""Consumers are numbered from here, so that a renaming finds them anywhere in a state."""
NOBODY = FIRST - 1
UNOWNED = FIRST - 2
"""The owner of an entry that is not pending."""

Reply: TypeAlias = tuple[Any, ...]
Fence: TypeAlias = tuple[int, int]
"""Announcement and delivery count; `NO_FENCE` where there is none."""
NO_FENCE: Fence = (-1, 0)


class Entry(NamedTuple):
    """An announcement: is it in the stream, whom is it pending for, how often was it delivered."""

    present: bool = True
    owner: int = UNOWNED
    deliveries: int = 0


UNTRIED, TRIED = 1, 2


class Record(NamedTuple):
    """A data stream's progress. `fence` is `NO_FENCE` where there is no record.

    `failed` says whose failure was the last, and where: announcement, delivery count or 0, checkpoint. Empty, as
    `error` is, where there is no trouble. `began`: whether others had died before the newest owner, and `TRIED`
    where it began a trial. `lived`: whether it is known how long an owner lived with it. Times are left out.
    """

    fence: Fence = NO_FENCE
    consumer: int = UNOWNED
    checkpoint: int = 0
    attempts: int = 0
    failures: int = 0
    failed: tuple[int, ...] = ()
    error: str = ""
    began: int = 0
    lived: bool = False
    trials: int = 0

    def trouble(self, announcement: int) -> Record | None:
        """This record if its trouble is at this announcement and at this checkpoint."""
        return self if self.failed[:1] + self.failed[2:] == (announcement, self.checkpoint) else None


class Tries(NamedTuple):
    """The owners that began since a data stream's last progress, and did not end cleanly.

    `failed`: those whose handler failed. `others`: those that died, and the one that is at work. `tried`: those of
    the others that began a trial."""

    others: tuple[Fence, ...] = ()
    failed: tuple[Fence, ...] = ()
    tried: tuple[Fence, ...] = ()

    def without(self, fence: Fence) -> Tries:
        """The same, this owner's attempt taken out."""
        others = tuple(other for other in self.others if other != fence)
        return self._replace(others=others, tried=tuple(other for other in self.tried if other != fence))


class Redis(NamedTuple):
    """The LBS with its group, the locks, and the records. Entries are numbered as their ids are ordered.

    `listened`: whether this server sees a subscription to each consumer's own channel. `present`: each consumer's
    declaration: its nonce, and whether it was made on this server run; empty where there is none. `watch`: who
    watches.

    `finished` and `tries` are no part of Redis, but for the invariants: who finished an announcement, and which
    owners tried each data stream since its last progress.
    """

    entries: tuple[Entry, ...]
    last: int
    locks: tuple[bool, ...]
    records: tuple[Record, ...]
    finished: tuple[Fence, ...]
    tries: tuple[Tries, ...]
    listened: tuple[bool, ...]
    present: tuple[tuple[()] | tuple[int, bool], ...]
    watch: int = UNOWNED


def new(announcements: int, consumers: int, streams: int) -> Redis:
    """Announced, and nothing delivered yet."""
    return Redis(
        (Entry(),) * announcements, -1, (False,) * consumers, (Record(),) * streams,
        (NO_FENCE,) * announcements, (Tries(),) * streams, (False,) * consumers, ((),) * consumers,
    )  # fmt: skip


# The commands that the scripts use.


def put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    """`items` with another item at this place."""
    return (*items[:at], item, *items[at + 1 :])


def exists(redis: Redis, consumer: int) -> bool:
    """EXISTS of a consumer's lock."""
    return consumer >= FIRST and redis.locks[consumer - FIRST]


def set_lock(redis: Redis, consumer: int, there: bool) -> Redis:
    """SET or DEL of a consumer's lock."""
    return redis._replace(locks=put(redis.locks, consumer - FIRST, there))


def listened(redis: Redis, consumer: int) -> bool:
    """PUBSUB NUMSUB of a consumer's own channel."""
    return redis.listened[consumer - FIRST]


def listen(redis: Redis, consumer: int, there: bool) -> Redis:
    """SUBSCRIBE to a consumer's own channel, or the end of that connection."""
    return redis._replace(listened=put(redis.listened, consumer - FIRST, there))


def set_present(redis: Redis, consumer: int, declaration: tuple[()] | tuple[int, bool]) -> Redis:
    """HSET or HDEL of a consumer's declaration."""
    return redis._replace(present=put(redis.present, consumer - FIRST, declaration))


def declared_here(redis: Redis, consumer: int) -> bool:
    """Whether a consumer declared its presence on this server run."""
    return redis.present[consumer - FIRST][1:] == (True,)


def restarted(redis: Redis) -> Redis:
    """The same data on another server run: nobody is subscribed, and who declared did so elsewhere."""
    elsewhere = tuple(declaration and (declaration[0], False) for declaration in redis.present)
    return redis._replace(listened=(False,) * len(redis.listened), present=elsewhere)


def set_entry(redis: Redis, id: int, entry: Entry) -> Redis:
    """Change one entry."""
    return redis._replace(entries=put(redis.entries, id, entry))


def xpending(redis: Redis, id: int) -> Entry | None:
    """XPENDING of one entry."""
    entry = redis.entries[id]
    return entry if entry.owner != UNOWNED else None


def pending_for(redis: Redis, consumer: int) -> list[int]:
    """XPENDING of one consumer."""
    return [id for id, entry in enumerate(redis.entries) if entry.owner == consumer]


def xclaim(redis: Redis, consumer: int, id: int, *, justid: bool = False, to: int = 0) -> tuple[Redis, bool]:
    """XCLAIM with min-idle-time 0; false for an entry that was trimmed, which 7.0 drops."""
    entry = redis.entries[id]
    if entry.owner == UNOWNED:
        return redis, False
    if not entry.present:
        return xack(redis, id), False
    count = to or entry.deliveries + (not justid)
    return set_entry(redis, id, Entry(True, consumer, count)), True


def xack(redis: Redis, id: int) -> Redis:
    """XACK: whoever owns it."""
    return set_entry(redis, id, Entry(redis.entries[id].present))


def xdel(redis: Redis, id: int) -> Redis:
    """XDEL."""
    return set_entry(redis, id, redis.entries[id]._replace(present=False))


def waiting(redis: Redis) -> list[int]:
    """What was never delivered."""
    return [id for id, entry in enumerate(redis.entries) if entry.present and id > redis.last]


def read(redis: Redis, me: int, count: int = 1) -> tuple[Redis, Reply]:
    """XREADGROUP of new entries."""
    ids = waiting(redis)[:count]
    for id in ids:
        redis = set_entry(redis, id, Entry(True, me, 1))._replace(last=id)
    return redis, tuple(ids)


def level(streams: int, mine: int, theirs: list[int]) -> int:
    """include/shares.lua; all weigh the same, and have room."""
    while True:
        total, members = mine + streams + sum(theirs), 1 + len(theirs)
        below = [has for has in theirs if has * members <= total]
        if len(below) == len(theirs):
            return -(-total // members) - mine
        theirs = below


def share(redis: Redis, me: int, most: int, patient: bool, others: tuple[int, ...]) -> tuple[Redis, Reply]:
    """share.lua."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    theirs = [len(pending_for(redis, name)) for name in others if exists(redis, name)]
    members = 1 + len(theirs)
    pending = sum(entry.owner != UNOWNED for entry in redis.entries)
    waits = max(0, sum(entry.present for entry in redis.entries) - pending)
    want = most
    if members > 1:
        part = level(waits, len(pending_for(redis, me)), theirs) if patient else -(-waits // members)
        want = min(want, part)
    if want < 1:
        return redis, (waits, members)
    redis, ids = read(redis, me, want)
    return redis, (0 if len(ids) < want else max(0, waits - len(ids)), members, *ids)


def beat(redis: Redis, me: int) -> tuple[Redis, Reply]:
    """PEXPIRE of the lock."""
    return redis, (int(exists(redis, me)),)


# The scripts.


def join(redis: Redis, me: int) -> tuple[Redis, Reply]:
    """join.lua; the group exists."""
    return set_present(set_lock(redis, me, True), me, ()), (1,)


def leave(redis: Redis, me: int) -> tuple[Redis, Reply]:
    """leave.lua."""
    there = exists(redis, me)
    return set_present(set_lock(redis, me, False), me, ()), (int(there),)


def present(redis: Redis, me: int, nonce: int) -> tuple[Redis, Reply]:
    """present.lua; the grace and the hint are left out."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    if not listened(redis, me):
        return redis, ("absent",)
    return set_present(redis, me, (nonce, True)), ("present",)


def withdraw(redis: Redis, me: int) -> tuple[Redis, Reply]:
    """withdraw.lua."""
    return set_present(redis, me, ()), (int(exists(redis, me)),)


def watch(redis: Redis, me: int, nonce: int) -> tuple[Redis, Reply]:
    """watch.lua; a full Redis is left out."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    if not listened(redis, me):
        return redis, ("blind",)
    if redis.present[me - FIRST][:1] != (nonce,):
        return redis, ("undeclared",)
    n = sum(map(bool, redis.present))
    if redis.watch not in (UNOWNED, me) and listened(redis, redis.watch):
        return redis, ("other", n)
    absent: list[tuple[int, int]] = []
    for consumer, declaration in enumerate(redis.present, FIRST):
        if declaration and not listened(redis, consumer):
            nonce, here = declaration
            if here:
                absent.append((consumer, nonce))
            else:
                redis = set_present(redis, consumer, ())
    return redis._replace(watch=me), ("watching", n, *absent)


def depose(redis: Redis, me: int, mine: int, victim: int, theirs: int) -> tuple[Redis, Reply]:
    """depose.lua, for one of the absent."""
    if not exists(redis, me) or redis.present[me - FIRST] != (mine, True) or not listened(redis, me):
        return redis, ()
    if redis.present[victim - FIRST] != (theirs, True) or listened(redis, victim):
        return redis, ()
    there = exists(redis, victim)
    return set_lock(set_present(redis, victim, ()), victim, False), (victim,) if there else ()


def claim(redis: Redis, me: int, expected: int, id: int) -> tuple[Redis, Reply]:
    """claim.lua."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    pending = xpending(redis, id)
    if not pending:
        return redis, ("gone",)
    if pending.owner != expected:
        return redis, ("owner", pending.owner, pending.deliveries)
    if exists(redis, expected):
        return redis, ("alive", expected)
    redis, entry = xclaim(redis, me, id)
    if not entry:
        return xack(redis, id), ("gone",)
    return redis, ("won", pending.deliveries + 1)


def claim_many(
    redis: Redis,
    me: int,
    owner: int,
    n: int,
    others: tuple[int, ...] | None = None,
    skip: tuple[int, ...] = (),
) -> tuple[Redis, Reply]:
    """claim_many.lua; `others` None: not levelled."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    if exists(redis, owner):
        return redis, ("alive", owner)
    want = n
    orphans, mine = len(pending_for(redis, owner)), len(pending_for(redis, me))
    if others is not None:
        want = min(
            want, level(orphans, mine, [len(pending_for(redis, name)) for name in others if exists(redis, name)])
        )
    left = orphans
    won: list[tuple[int, int]] = []
    if want > 0:
        for id in pending_for(redis, owner):
            if len(won) < want and id not in skip:
                count = redis.entries[id].deliveries
                redis, entry = xclaim(redis, me, id)
                if entry:
                    won.append((id, count + 1))
                else:
                    redis = xack(redis, id)
                    left -= 1
    return redis, ("won", left - len(won), *won)


def adopt(redis: Redis, me: int, entries: tuple[tuple[int, int], ...]) -> tuple[Redis, Reply]:
    """adopt.lua."""
    if not exists(redis, me):
        return redis, ("lapsed",)
    results: list[Reply] = []
    for id, count in entries:
        result: Reply = ("changed",)
        pending = xpending(redis, id)
        if pending and pending.owner == me and pending.deliveries == count:
            redis, entry = xclaim(redis, me, id)
            if entry:
                result = ("won", pending.deliveries + 1)
            else:
                redis, result = xack(redis, id), ("gone",)
        results.append(result)
    return redis, tuple(results)


def done(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    """done.lua, for one entry."""
    pending = xpending(redis, id)
    if not pending:
        return redis, ("gone",)
    if pending.owner == me and pending.deliveries == count:
        redis = xdel(xack(redis, id), id)
        return redis._replace(finished=put(redis.finished, id, (me, count))), ("done",)
    return redis, ("owner", pending.owner)


def release(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    """release.lua, for one entry."""
    pending = xpending(redis, id)
    if not pending:
        return redis, ("gone",)
    if pending.owner == me and pending.deliveries == count:
        return xclaim(redis, NOBODY, id, justid=True)[0], ("released",)
    if (pending.owner == NOBODY and pending.deliveries >= count) or pending.deliveries > count:
        return redis, ("released",)
    return redis, ("owner", pending.owner)


def bury(redis: Redis, me: int, id: int, count: int) -> tuple[Redis, Reply]:
    """bury.lua; the letter itself is left out."""
    pending = xpending(redis, id)
    if not pending:
        return redis, ("gone",)
    if pending.owner != me or pending.deliveries != count:
        return redis, ("owner", pending.owner)
    entry = redis.entries[id].present
    redis = xdel(xack(redis, id), id)
    return redis, ("buried",) if entry else ("gone",)


def lift(redis: Redis, me: int, id: int, count: int, to: int) -> tuple[Redis, Reply]:
    """lift.lua."""
    pending = xpending(redis, id)
    if not pending:
        return redis, ("gone",)
    if pending.owner != me or pending.deliveries != count or pending.deliveries >= to:
        return redis, ("owner", pending.owner)
    redis, _ = xclaim(redis, me, id, justid=True, to=to)
    return redis, ("lifted",) if xpending(redis, id) else ("gone",)


def inspect(redis: Redis, id: int) -> tuple[Redis, Reply]:
    """inspect.lua, for one entry."""
    pending = xpending(redis, id)
    if pending and not redis.entries[id].present:
        return xack(redis, id), (UNOWNED,)
    return redis, (pending.owner if pending else UNOWNED,)


def begin(
    redis: Redis,
    me: int,
    stream: int,
    fence: Fence,
    look_only: bool = False,
    unrecorded: int = 0,
    replaces: tuple[Fence, int] = (NO_FENCE, UNOWNED),
    most: int | None = None,
    trial: bool = False,
    lived_since: Fence = NO_FENCE,
) -> tuple[Redis, Reply]:
    """begin.lua, for one record."""
    stored = redis.records[stream]
    theirs = stored.fence if stored.fence != NO_FENCE else None
    mine = theirs == fence and stored.consumer == me
    replaceable = (theirs, stored.consumer) == replaces
    if theirs is None and look_only:
        return redis, ("fresh",)
    if theirs is None or theirs < fence or mine or replaceable:
        before = unrecorded
        if theirs is not None and theirs[0] == fence[0]:
            before = stored.attempts
        mark = (*stored.fence, stored.checkpoint)
        lived_on = lived_since != NO_FENCE and theirs is not None and lived_since <= theirs < fence
        lived_on = lived_on and stored.consumer == me
        known = stored.trouble(fence[0])
        old = known or Record()
        mourned = known and before > 1 and not old.began
        spared = lived_on and before > 0 and stored.failed != mark and not mourned
        before -= spared
        lived, trials = (old.lived, old.trials) if before else (False, 0)
        died = old.began > 0 and not mine and not spared and before > 0
        if died:
            lived, trials = True, trials + (old.began == TRIED)
        said = (old.failures, old.error, lived, trials)
        if most is not None and not mine and before > most:
            if died:
                redis = set_record(redis, stream, stored._replace(began=0, lived=lived, trials=trials))
            if spared:
                taken = stored._replace(attempts=before, failed=mark, began=0)
                taken = taken._replace(failures=old.failures, error=old.error)
                redis = set_record(redis, stream, taken)
            return redis, ("suspect", before, *said)
        attempts = before + (not mine)
        record = stored._replace(fence=fence, consumer=me, attempts=attempts)
        if not known:
            troubled = (fence[0], 0, stored.checkpoint) if attempts > 1 else ()
            record = record._replace(failures=0, failed=troubled, error="")
        if attempts > 1 and not mine:
            record = record._replace(began=TRIED if trial else UNTRIED, lived=lived, trials=trials)
        elif known and not before:
            record = record._replace(began=0, lived=False, trials=0)
        redis = set_record(redis, stream, record)
        return redis, ("begun", stored.checkpoint, attempts, *(said if known or attempts > 1 else ()))
    return redis, ("refused", theirs, stored.consumer)


def fail(redis: Redis, me: int, stream: int, fence: Fence, error: str = "") -> tuple[Redis, Reply]:
    """fail.lua, for one record."""
    stored = redis.records[stream]
    if stored.fence != fence or stored.consumer != me:
        return redis, ("refused", stored.fence, stored.consumer)
    known = stored.trouble(fence[0])
    failures = known.failures if known else 0
    mark = (*fence, stored.checkpoint)
    if stored.failed != mark and stored.attempts > 0:
        failures += 1
        record = stored._replace(
            attempts=stored.attempts - 1, failures=failures, failed=mark, error=error, began=0
        )
        redis = set_record(redis, stream, record)
    return redis, ("failed", failures)


def checkpoint(redis: Redis, me: int, stream: int, fence: Fence, position: int) -> tuple[Redis, Reply]:
    """checkpoint.lua, for one record."""
    stored = redis.records[stream]
    if stored.fence != fence or stored.consumer != me:
        return redis, ("refused", stored.fence, stored.consumer)
    if position <= stored.checkpoint:
        return redis, ("kept",)
    record = stored._replace(checkpoint=position, attempts=0, failures=0, failed=(), error="")
    return set_record(redis, stream, record), ("advanced",)


def settle(
    redis: Redis,
    me: int,
    stream: int,
    fence: Fence,
    finished: bool = False,
    idle: bool = False,
    untried: bool = False,
) -> tuple[Redis, Reply]:
    """settle.lua, for one record; its lifetime is left out."""
    stored = redis.records[stream]
    if stored.fence == fence and stored.consumer == me:
        mark = (*fence, stored.checkpoint)
        left = stored.attempts - (stored.failed != mark) if untried else 0
        if left > 0:
            if stored.failed != mark:
                stored = stored._replace(attempts=left, failed=mark, began=0)
        else:
            stored = stored._replace(attempts=0)
        if finished or idle or (left <= 0 and not stored.failures):
            stored = stored._replace(failures=0, failed=(), error="")
        return set_record(redis, stream, stored), (1,)
    return redis, (0,)


def set_record(redis: Redis, stream: int, record: Record) -> Redis:
    """HSET of a record."""
    return redis._replace(records=put(redis.records, stream, record))
