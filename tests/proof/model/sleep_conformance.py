"""Random walks of the scripts of sleep, call by call in the model and on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_stream_client._model.fence import Fence
from redis_stream_client._model.keys import NOBODY as NOBODY_NAME
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.proof.model import sleep_protocol as protocol
from tests.proof.model.protocol import put
from tests.proof.model.sleep_protocol import GONE, NOBODY, NONE, WAITING, Record, Redis, Reply

if TYPE_CHECKING:
    import random

    from tests.harness.connection import Connection

STREAM = "chat-1"
OWNERS = 2
LBS_ID = 41  # characters of a fence that name the announcement
PLENTY = 1 << 20
TTL = 600_000
LOOK = """
    return {redis.call('XRANGE', KEYS[1], '-', '+'), redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100),
            redis.call('HGET', KEYS[2], KEYS[3]), redis.call('XLEN', KEYS[3]),
            redis.call('HMGET', KEYS[4], 'fence', 'consumer', 'checkpoint', 'asleep')}
"""


def choose(dice: random.Random, redis: Redis) -> tuple[str, tuple[Any, ...]]:
    """A call, mostly of what makes sense."""
    ids = range(len(redis.lbs))
    there = [id for id in ids if redis.lbs[id][0] != GONE]
    if not there or dice.random() < 0.15:
        name = dice.choice(("announce", "write", "announce"))
        return name, (() if name == "write" else (dice.choice((-1, *ids)),))
    id = dice.choice(there if dice.random() < 0.9 else ids)
    owner, count = redis.lbs[id]
    me = owner if owner >= 0 and dice.random() < 0.9 else dice.randrange(OWNERS)
    count = max(1, count) if dice.random() < 0.9 else dice.randint(1, 3)
    attempt, stored = dice.randint(1, 3), redis.record
    fence = (id, count)
    if stored.consumer >= 0 and dice.random() < 0.7:
        me, fence = stored.consumer, stored.fence
    calls: dict[str, tuple[Any, ...]] = {
        "deliver": (me,),
        "claim": (me, id),
        "append": (id, dice.choice((-1, stored.asleep))),
        "withhold": (*_owner(redis, id, me), attempt),
        "restore": (*_owner(redis, id, me), attempt),
        "done": (me, id, count),
        "supersede": (me, id, count, dice.choice(ids)),
        "begin": (me, (id, count), dice.choice(((), (stored.fence, stored.consumer)))),
        "checkpoint": (me, fence, dice.randint(0, redis.added) or 1),
        "doze": (me, fence),
        "settle": (me, fence),
    }
    weights = {"deliver": 3.0, "begin": 3.0, "withhold": 3.0, "restore": 2.0, "checkpoint": 4.0, "doze": 2.0}
    weights |= {"done": 0.4, "supersede": 0.6, "settle": 0.3}
    name = dice.choices(list(calls), [weights.get(name, 1.0) for name in calls])[0]
    if name == "checkpoint" and not redis.added:
        name = "deliver"
    if name == "claim" and owner == WAITING:
        name = "deliver"
    return name, calls[name]


def _owner(redis: Redis, id: int, me: int) -> tuple[int, int, int]:
    owner, count = redis.lbs[id]
    return (owner, id, count) if owner >= 0 and redis.added % 5 else (me, id, max(1, count))


def call(redis: Redis, name: str, args: tuple[Any, ...]) -> tuple[Redis, Reply]:
    """What the model makes of a call."""
    match name, args:
        case "deliver", (me,):
            waiting = [id for id, (owner, _) in enumerate(redis.lbs) if owner == WAITING]
            if not waiting:
                return redis, ()
            return redis._replace(lbs=put(redis.lbs, waiting[0], (me, 1))), (waiting[0],)
        case "claim", (me, id):
            owner, count = redis.lbs[id]
            if owner == GONE:
                return redis, ()
            return redis._replace(lbs=put(redis.lbs, id, (me, count + 1))), (id,)
        case _:
            redis, reply = getattr(protocol, name)(redis, *args)
            return redis, reply


class Mirror:
    """A server on which the same calls are made, with the real scripts."""

    def __init__(self, redis: Connection, service: str) -> None:
        self._redis = redis
        self._keys = Keys(service)
        self._record = self._keys.progress(STREAM)
        self._names = [f"redis-consumer-{i}" for i in range(OWNERS)]
        self._numbers = {name.encode(): i for i, name in enumerate(self._names)} | {NOBODY_NAME.encode(): NOBODY}
        self._lbs: list[str] = []
        self._entries: list[str] = []

    async def start(self) -> None:
        """Nothing is announced, nothing written."""
        k = self._keys
        await self._redis.delete(k.lbs, k.announced, STREAM, self._record)
        await self._redis.xgroup_create(k.lbs, k.group, id="0", mkstream=True)
        self._lbs, self._entries = [], []

    async def call(self, name: str, args: tuple[Any, ...]) -> Reply:
        """The server's answer, in the model's words."""
        reply = await self._redis.execute_command(*self._command(name, args))
        if name in ("announce", "write"):
            await self._learn()
        return self._reply(name, reply)

    async def _learn(self) -> None:
        """Number what is new in the load balancer stream."""
        for id, _ in await self._redis.xrange(self._keys.lbs):
            if id.decode() not in self._lbs:
                self._lbs.append(id.decode())

    def _command(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        k, lbs = self._keys, self._lbs
        payload = b'{"DataStreamName": "%s"}' % STREAM.encode()

        def script(name: str, keys: list[str], *argv: Any) -> tuple[Any, ...]:
            return ("EVAL", scripts.load(name).text, len(keys), *keys, *argv)

        match name, args:
            case "announce", (not_this,):
                but = lbs[not_this] if not_this >= 0 else ""
                return script("announce", [k.lbs, k.announced], "lbs-input", PLENTY, STREAM, payload, but)
            case "write", ():
                keys = [k.lbs, k.announced, STREAM, self._record]
                return script("write", keys, TTL, "", "lbs-input", PLENTY, payload, 1, "*", 2, "a", "b")
            case "append", (id, before):
                argv = [self._announcement(id), self._announcement(before) if before >= 0 else "", 0]
                return script("append", [STREAM, self._record], TTL, "", *argv, 1, "*", 2, "a", "b")
            case "deliver", (me,):
                group = (k.group, self._names[me])
                return ("XREADGROUP", "GROUP", *group, "COUNT", 1, "STREAMS", k.lbs, ">")
            case "claim", (me, id):
                return ("XCLAIM", k.lbs, k.group, self._names[me], 0, lbs[id])
            case "withhold" | "restore", (me, id, count, attempt):
                who = (k.group, self._names[me])
                return script("withhold", [k.lbs, k.announced], *who, name, lbs[id], count, STREAM, attempt)
            case "done", (me, id, count):
                return script("done", [k.lbs, k.announced], k.group, self._names[me], lbs[id], count, STREAM)
            case "supersede", (me, id, count, newer):
                who = (k.group, self._names[me])
                return script("supersede", [k.lbs, k.announced], *who, lbs[id], count, STREAM, lbs[newer])
            case "begin", (me, fence, replaces):
                by = (self._fence(replaces[0]), self._owner(replaces[1])) if replaces else ("", "")
                who = (self._fence(fence), self._names[me])
                return script("begin", [self._record], *who, 0, 0, *by, "", 0, "", 0)
            case "checkpoint", (me, fence, position):
                id = self._entries[position - 1]
                return script("checkpoint", [self._record], self._fence(fence), self._names[me], id, "")
            case "doze", (me, fence):
                return script("doze", [self._record, STREAM], self._fence(fence), self._names[me])
            case _:
                me, fence = args
                return script("settle", [self._record], self._fence(fence), self._names[me], TTL, 1, 0, 0)

    def _announcement(self, id: int) -> str:
        return str(Fence.of(self._lbs[id], 0))[:LBS_ID]

    def _fence(self, fence: tuple[int, int]) -> str:
        return "" if fence == NONE else str(Fence.of(self._lbs[fence[0]], fence[1]))

    def _owner(self, owner: int) -> str:
        return self._names[owner] if owner >= 0 else ""

    def _reply(self, name: str, reply: Any) -> Reply:
        match name:
            case "announce":
                id, now = reply[0]
                return self._lbs.index(id.decode()), now
            case "append" | "write":
                if reply[0][0] == b"asleep":
                    return "asleep", self._mark(reply[0][1])
                self._entries.append(reply[0][0].decode())
                return "added", len(self._entries)
            case "deliver":
                if not reply:
                    return ()
                entries = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0]
                return (self._lbs.index(entries[0][0].decode()),)
            case "claim":
                return tuple(self._lbs.index(id.decode()) for id, _ in reply if id is not None)
            case "settle":
                return (reply[0],)
            case "supersede":
                return ("owner", self._numbers[reply]) if reply in self._numbers else (reply.decode(),)
            case "withhold" | "restore" | "done":
                word = reply[0]
                return ("owner", self._numbers[word]) if word in self._numbers else (word.decode(),)
            case _:
                return self._of_record(reply[0])

    def _of_record(self, reply: Any) -> Reply:
        match reply:
            case [b"begun", position, *_]:
                return "begun", self._position(position)
            case [b"refused", fence, consumer]:
                return "refused", self._parse(fence), self._numbers.get(consumer, NOBODY)
            case _:
                return (reply[0].decode(),)

    def _position(self, id: bytes | None) -> int:
        return self._entries.index(id.decode()) + 1 if id else 0

    def _mark(self, mark: bytes | None) -> int:
        return next(i for i in range(len(self._lbs)) if self._announcement(i) == mark.decode()) if mark else -1

    def _parse(self, text: bytes | None) -> tuple[int, int]:
        if not text:
            return NONE
        fence = Fence.parse(text.decode())
        return self._lbs.index(fence.lbs_id), fence.deliveries

    async def state(self) -> Redis:
        """What Redis holds, as the model has it."""
        keys = [self._keys.lbs, self._keys.announced, STREAM, self._record]
        look = await self._redis.eval(LOOK, len(keys), *keys, self._keys.group)
        present, pending, believed, added, record = look
        there = {id.decode() for id, _ in present}
        owned = {id.decode(): (self._numbers[owner], count) for id, owner, _, count in pending}
        fence, consumer, position, asleep = record
        id, _, withheld = (believed or b"").decode().partition("!")
        return Redis(
            lbs=tuple(owned.get(id, (WAITING, 0)) if id in there else (GONE, 0) for id in self._lbs),
            believed=(self._lbs.index(id), int(withheld or 0)) if id else NONE,
            added=added,
            record=Record(
                self._parse(fence),
                self._numbers.get(consumer, NOBODY),
                self._position(position),
                self._mark(asleep),
            ),
        )
