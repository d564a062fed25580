"""Random walks of the model's scripts, and the same walks of the real ones on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis_stream_client._model.fence import Fence as RealFence
from redis_stream_client._model.keys import NOBODY as NOBODY_NAME
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.proof.model import protocol
from tests.proof.model.protocol import (
    FIRST,
    NO_FENCE,
    NOBODY,
    TRIED,
    UNOWNED,
    UNTRIED,
    Entry,
    Fence,
    Record,
    Redis,
    Reply,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.harness.connection import Connection

PLENTY = 1 << 20
"""Bytes of announcements: more than there are."""

IDS = ("9-0", "10-2", "10-11", "100-1")  # in the stream's order, which is not the order of these strings
STREAMS = ("call-1", "call-1", "call-2", "call-1")
ERRORS = ("ValueError: 1", "Boom: ß", "")
CONSUMERS = 3
TTL = 600_000
ALL_DECLARE: list[tuple[str, tuple[Any, ...]]] = [
    call
    for consumer in range(FIRST, FIRST + CONSUMERS)
    for call in (("join", (consumer,)), ("listen", (consumer, True)), ("present", (consumer, 1)))
]
"""How a walk of the scripts of presence begins."""
GRACE = 150  # ms
UNNAMED = ("join", "leave", "beat", "withdraw")
"""What answers with numbers that are no consumers."""
ELSEWHERE = "0" * 40
"""The run id of another server."""
RESTART = """
    local there = redis.call('HGETALL', KEYS[1])
    for i = 1, #there, 2 do
      redis.call('HSET', KEYS[1], there[i], (string.gsub(there[i + 1], '^%x+', ARGV[1])))
    end
"""
LOOK_AT_PRESENCE = """
    local seen = redis.call('PUBSUB', 'NUMSUB', unpack(ARGV))
    local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
    return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]), seen, run_id}
"""
LOOK = """
    local locks = {}
    for i = 2, 4 do locks[i - 1] = redis.call('EXISTS', KEYS[i]) end
    local groups, records = redis.call('XINFO', 'GROUPS', KEYS[1])[1], {}
    local last
    for i = 1, #groups, 2 do if groups[i] == 'last-delivered-id' then last = groups[i + 1] end end
    for i = 5, #KEYS do
      records[i - 4] = redis.call('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'attempts', 'failures',
        'failed', 'error', 'failing', 'began', 'lived', 'trials')
    end
    return {redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100), redis.call('XRANGE', KEYS[1], '-', '+'),
            locks, last, records}
"""


class Call(NamedTuple):
    """One call of a walk, what the model answered, and the state that it left."""

    name: str
    args: tuple[Any, ...]
    reply: Reply
    after: Redis


def walk(dice: random.Random, length: int, *, keeps_trimmed: bool, presence: bool = False) -> list[Call]:
    """Some calls in a row, mostly of what makes sense. `keeps_trimmed`: XCLAIM moves what was trimmed. `presence`:
    of its scripts alone."""
    redis = protocol.new(len(IDS), CONSUMERS, len(set(STREAMS)))
    calls: list[Call] = []
    while len(calls) < length:
        if presence and len(calls) < len(ALL_DECLARE):
            name, args = ALL_DECLARE[len(calls)]
        else:
            name, args = (_choose_of_presence if presence else _choose)(dice, redis)
        if keeps_trimmed and name in ("release", "lift") and not redis.entries[args[1]].present:
            continue
        if name == "trim":
            redis, reply = protocol.xdel(redis, args[0]), ()
        elif name == "expire":
            redis, reply = protocol.set_lock(redis, args[0], False), ()
        elif name == "listen":
            redis, reply = protocol.listen(redis, *args), ()
        elif name == "restart":
            redis, reply = protocol.restarted(redis), ()
        elif name == "unwatch":
            redis, reply = redis._replace(watch=UNOWNED), ()
        else:
            script: Callable[..., tuple[Redis, Reply]] = getattr(protocol, name)
            redis, reply = script(redis, *args)
        calls.append(Call(name, args, reply, redis))
    return calls


def _choose(dice: random.Random, redis: Redis) -> tuple[str, tuple[Any, ...]]:
    me, other = (FIRST + dice.randrange(CONSUMERS) for _ in range(2))
    id = dice.randrange(len(IDS))
    entry = redis.entries[id]
    if dice.random() < 0.7 and entry.owner >= FIRST:
        me = entry.owner  # whoever may
    count = entry.deliveries if dice.random() < 0.8 else dice.randint(1, 4)
    expected = dice.choice((entry.owner, other, NOBODY)) if entry.owner != UNOWNED else other
    stream, fence = (0 if STREAMS[id] == "call-1" else 1), (id, max(1, count))
    stored = redis.records[stream]
    if dice.random() < 0.5 and stored.fence != NO_FENCE:
        fence, me = stored.fence, dice.choice((stored.consumer, me))
    skip = tuple(i for i in range(len(IDS)) if dice.random() < 0.2)
    alive = [c for c in range(FIRST, FIRST + CONSUMERS) if protocol.exists(redis, c)]
    claimer = dice.choice(alive) if alive and dice.random() < 0.8 else other
    orphaned = [e.owner for e in redis.entries if e.owner not in (UNOWNED, claimer, *alive)]
    owner = dice.choice(orphaned) if orphaned and dice.random() < 0.8 else expected
    heirs = tuple(c for c in range(FIRST, FIRST + CONSUMERS) if c not in (claimer, owner) and dice.random() < 0.8)
    replaces = dice.choice(((NO_FENCE, UNOWNED), (stored.fence, stored.consumer), (stored.fence, other)))
    calls: dict[str, tuple[Any, ...]] = {
        "join": (me,),
        "leave": (me,),
        "beat": (me,),
        "expire": (me,),
        "trim": (id,),
        "read": (me, dice.randint(1, 2)),
        "share": (claimer, dice.randint(1, 4), dice.random() < 0.5, heirs),
        "claim": (claimer, expected, id),
        "claim_many": (claimer, owner, dice.randint(0, 4), dice.choice((None, heirs)), skip),
        "adopt": (me, ((id, count), (dice.randrange(len(IDS)), dice.randint(1, 3)))),
        "done": (me, id, count),
        "release": (me, id, count),
        "bury": (me, id, count),
        "lift": (me, id, count, count + dice.randint(0, 2)),
        "inspect": (id,),
        "begin": (
            *(me, stream, fence, dice.random() < 0.3, dice.randint(0, 1), replaces),
            *(dice.choice((None, None, 0, 1, 2)), dice.random() < 0.5),
            (id, dice.randint(1, 2)) if dice.random() < 0.5 else NO_FENCE,
        ),
        "fail": (me, stream, fence, dice.choice(ERRORS)),
        "checkpoint": (me, stream, fence, dice.choice((1, 9, 10, 11))),
        "settle": (me, stream, fence, dice.random() < 0.2, dice.random() < 0.3, dice.random() < 0.4),
    }
    often = {
        "join": 4,
        "read": 4,
        "claim": 4,
        "claim_many": 3,
        "adopt": 2,
        "begin": 6,
        "fail": 4,
        "checkpoint": 2,
        "expire": 2,
    }
    weights = often | {"done": 0.4, "bury": 0.2, "trim": 0.3, "leave": 0.5}
    name = dice.choices(list(calls), [weights.get(name, 1) for name in calls])[0]
    return name, calls[name]


def _choose_of_presence(dice: random.Random, redis: Redis) -> tuple[str, tuple[Any, ...]]:
    me, victim = dice.sample(range(FIRST, FIRST + CONSUMERS), 2)
    if dice.random() < 0.6:  # whoever may
        fit = {c: (protocol.listened(redis, c), protocol.exists(redis, c)) for c in (me, victim)}
        me, victim = sorted(fit, key=fit.__getitem__, reverse=True)

    def nonce(consumer: int) -> int:
        declaration = redis.present[consumer - FIRST]
        return declaration[0] if declaration and dice.random() < 0.9 else dice.randint(1, 3)

    due = protocol.depose(redis, me, nonce(me), victim, nonce(victim))[1]
    calls: dict[str, tuple[float, tuple[Any, ...]]] = {
        "join": (2, (me,)),
        "leave": (0.3, (me,)),
        "expire": (1, (victim,)),
        "listen": (3, (victim, dice.random() < 0.6)),
        "restart": (0.4, (me,)),
        "unwatch": (0.5, (me,)),
        "present": (4, (me, dice.randint(1, 3))),
        "withdraw": (1, (me,)),
        "watch": (4, (me, nonce(me))),
        "depose": (20 if due else 2, (me, nonce(me), victim, nonce(victim))),
    }
    name = dice.choices(list(calls), [weight for weight, _ in calls.values()])[0]
    return name, calls[name][1]


class Mirror:
    """A server on which a walk is repeated, with the real scripts."""

    def __init__(self, redis: Connection, service: str) -> None:
        self._redis = redis
        self._keys = Keys(service)
        self._names = {FIRST + i: f"redis-consumer-{i}" for i in range(CONSUMERS)} | {NOBODY: NOBODY_NAME}
        self._numbers = {name.encode(): number for number, name in self._names.items()}
        self._run_id = b""
        self._records = [self._keys.progress(stream) for stream in sorted(set(STREAMS))]

    async def repeat_presence(self, calls: list[Call]) -> list[tuple[Reply, Redis]]:
        """The same for a walk of the scripts of presence, one call after the other."""
        channels = [self._keys.presence_channel(self._names[c], 0) for c in self._names if c != NOBODY]
        await self._redis.delete(*map(self._lock, self._numbers.values()), self._keys.present, self._keys.watch)
        told: list[tuple[Reply, Redis]] = []
        heard: set[str] = set()
        async with self._redis.pubsub() as listener:

            async def listen(channel: str, there: bool) -> None:
                (heard.add if there else heard.discard)(channel)
                await (listener.subscribe if there else listener.unsubscribe)(channel)
                while await listener.get_message(timeout=1) is None:
                    pass

            for call in calls:
                match call.name, call.args:
                    case "listen", (consumer, there) if there != (channels[consumer - FIRST] in heard):
                        await listen(channels[consumer - FIRST], there)
                    case "restart", _:
                        for channel in sorted(heard):
                            await listen(channel, False)
                    case _:
                        pass
                reply = await self._redis.execute_command(*self._command(call.name, call.args))
                told.append((self._reply(call, reply), await self._presence(channels, call.after)))
        return told

    async def _presence(self, channels: list[str], model: Redis) -> Redis:
        keys = (self._keys.present, self._keys.watch)
        there, watcher, seen, self._run_id = await self._redis.eval(LOOK_AT_PRESENCE, 2, *keys, *channels)
        present: list[tuple[()] | tuple[int, bool]] = [()] * CONSUMERS
        for consumer, declaration in zip(there[::2], there[1::2], strict=True):
            run_id, _, nonce = declaration.split()
            present[self._numbers[consumer] - FIRST] = (int(nonce), run_id == self._run_id)
        locks = [await self._redis.exists(self._lock(c)) for c in self._names if c != NOBODY]
        return model._replace(
            locks=tuple(map(bool, locks)),
            listened=tuple(map(bool, seen[1::2])),
            present=tuple(present),
            watch=self._numbers[watcher] if watcher else UNOWNED,
        )

    async def repeat(self, calls: list[Call]) -> list[tuple[Reply, Redis]]:
        """What each call answers here, and the state after it, in one pipeline."""
        pipeline = self._redis.pipeline(transaction=False)
        locks = [self._lock(c) for c in self._names if c != NOBODY]
        look = [self._keys.lbs, *locks, *self._records]
        pipeline.delete(*look, self._keys.dead)
        pipeline.xgroup_create(self._keys.lbs, self._keys.group, id="0", mkstream=True)
        for id, stream in zip(IDS, STREAMS, strict=True):
            pipeline.xadd(self._keys.lbs, {"lbs-input": stream}, id=id)
        head = len(pipeline)
        for call in calls:
            pipeline.execute_command(*self._command(call.name, call.args))
            pipeline.eval(LOOK, len(look), *look, self._keys.group)
        answers = (await pipeline.execute())[head:]
        return [
            (self._reply(call, answers[2 * i]), self._state(answers[2 * i + 1], call.after))
            for i, call in enumerate(calls)
        ]

    def _lock(self, consumer: int) -> str:
        return self._keys.lock(self._names.get(consumer, "unowned"))

    def _owner(self, fence: Fence, consumer: int) -> tuple[str, str]:
        return ("" if fence == NO_FENCE else _fence(fence)), self._names.get(consumer, "")

    def _command(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """KEYS and ARGV as the stubs in `_protocol` make them."""
        k = self._keys
        me = self._names.get(args[0], "")
        group = (k.group, me)

        def script(keys: list[str], *argv: Any) -> tuple[Any, ...]:
            return ("EVAL", scripts.load(name).text, len(keys), *keys, *argv)

        match name, args:
            case "trim", (id,):
                return ("XDEL", k.lbs, IDS[id])
            case "expire", (_,):
                return ("DEL", self._lock(args[0]))
            case "beat", (_,):
                return ("PEXPIRE", self._lock(args[0]), TTL)
            case "read", (_, n):
                return ("XREADGROUP", "GROUP", *group, "COUNT", n, "STREAMS", k.lbs, ">")
            case "join", (_,):
                return script([k.lbs, self._lock(args[0]), k.present], *group, TTL, '{"ttl": 600000}', "0")
            case "leave", (_,):
                return script([self._lock(args[0]), k.present], me, k.control)
            case "listen", _:
                return ("PING",)
            case "restart", _:
                return ("EVAL", RESTART, 1, k.present, ELSEWHERE)
            case "unwatch", _:
                return ("DEL", k.watch)
            case "present", (_, nonce):
                channel = k.presence_channel(me, 0)
                return script([self._lock(args[0]), k.present], me, channel, GRACE, nonce, k.control)
            case "withdraw", _:
                return script([self._lock(args[0]), k.present], me, TTL)
            case "watch", (_, nonce):
                prefix = k.presence_channel("", 0)
                return script([self._lock(args[0]), k.watch, k.present], me, TTL, prefix, nonce)
            case "depose", (_, mine, victim, theirs):
                keys = [self._lock(args[0]), k.present, self._lock(victim)]
                declaration = f"{self._run_id.decode()} {GRACE} {theirs}"
                prefix = k.presence_channel("", 0)
                return script(keys, me, prefix, mine, k.control, self._names[victim], declaration)
            case "share", (_, most, patient, others):
                keys = [k.lbs, self._lock(args[0]), *map(self._lock, others)]
                return script(keys, *group, most, PLENTY, int(patient), *(self._names[o] for o in others))
            case "claim", (_, expected, id):
                keys = [k.lbs, self._lock(args[0]), self._lock(expected)]
                return script(keys, *group, self._names[expected], IDS[id], k.control)
            case "claim_many", (_, owner, n, others, skip):
                keys = [k.lbs, self._lock(args[0]), self._lock(owner), *map(self._lock, others or ())]
                return script(
                    keys, *group, self._names[owner], n, PLENTY, k.control, int(others is not None), len(skip),
                    *(IDS[i] for i in skip), *(self._names[o] for o in others or ()),
                )  # fmt: skip
            case "adopt", (_, entries):
                words = [word for id, count in entries for word in (IDS[id], count)]
                return script([k.lbs, self._lock(args[0])], *group, PLENTY, *words)
            case "done", (_, id, count):
                return script([k.lbs, k.announced], *group, IDS[id], count, "")
            case "release", (_, id, count):
                return script([k.lbs], *group, NOBODY_NAME, k.control, IDS[id], count)
            case "bury", (_, id, count):
                return script([k.lbs, k.dead, k.announced], *group, IDS[id], count, "a reason", "", "")
            case "lift", (_, id, count, to):
                return script([k.lbs], *group, IDS[id], count, to)
            case "inspect", (id,):
                return script([k.lbs], k.group, PLENTY, IDS[id])
            case "begin", (_, stream, fence, look_only, unrecorded, replaces, most, trial, lived):
                argv = [_fence(fence), me, int(look_only), unrecorded, *self._owner(*replaces)]
                argv += ["" if most is None else most, int(trial), "" if lived == NO_FENCE else _fence(lived)]
                return script([self._records[stream]], *argv)
            case "fail", (_, stream, fence, error):
                return script([self._records[stream]], _fence(fence), me, error)
            case "checkpoint", (_, stream, fence, position):
                return script([self._records[stream]], _fence(fence), me, f"{position}-0", "")
            case _:
                _, stream, fence, finished, idle, untried = args
                argv = [TTL if finished else 0, 0, int(idle), int(untried)]
                return script([self._records[stream]], _fence(fence), me, *argv)

    def _reply(self, call: Call, reply: Any) -> Reply:
        """In the model's words."""
        match call.name:
            case "trim" | "expire" | "listen" | "restart" | "unwatch":
                return ()
            case "watch" if reply[0] == b"watching":
                absent = zip(reply[2::3], reply[4::3], strict=True)
                told = ((self._numbers[name], int(declaration.split()[-1])) for name, declaration in absent)
                return ("watching", reply[1], *sorted(told))
            case "depose":
                return tuple(self._numbers[name] for name in reply)
            case "read":
                return (
                    self._ids(next(iter(reply))[1] if isinstance(reply, list) else next(iter(reply.values()))[0])
                    if reply
                    else ()
                )
            case "share" if reply != [b"lapsed"]:
                return (reply[0], reply[1], *self._ids(reply[2]))
            case "claim" if reply[0] == b"won":
                return ("won", reply[1])
            case "claim_many" if reply[0] == b"won":
                return ("won", reply[1], *((IDS.index(id.decode()), count) for id, count, *_ in reply[3:]))
            case "adopt" if reply != [b"lapsed"]:
                return tuple(("won", r[0]) if len(r) == 2 else (r[0].decode(),) for r in reply)
            case "inspect":
                return (self._numbers[reply[0]] if reply[0] else UNOWNED,)
            case "begin" | "fail" | "checkpoint":
                return self._record_reply(reply[0])
            case "settle":
                return tuple(reply)
            case _:
                pass
        words = reply if isinstance(reply, list) else [reply]
        said = tuple(self._word(word) for word in words)
        return ("owner", *said) if isinstance(said[0], int) and call.name not in UNNAMED else said

    def _word(self, word: Any) -> Any:
        return self._numbers.get(word, word.decode()) if isinstance(word, bytes) else word

    def _ids(self, entries: Any) -> Reply:
        return tuple(IDS.index(id.decode()) for id, _ in entries)

    def _record_reply(self, reply: Any) -> Reply:
        match reply:
            case [b"begun", position, attempts, _, _, *trouble]:
                return ("begun", _position(position), attempts, *_trouble(trouble))
            case [b"suspect", deaths, *trouble]:
                return ("suspect", deaths, *_trouble(trouble))
            case [b"failed", failures, _]:
                return ("failed", failures)
            case [b"refused", fence, consumer]:
                return ("refused", _parse(fence), self._numbers.get(consumer, UNOWNED))
            case _:
                return tuple(word.decode() for word in reply)

    def _state(self, look: Any, model: Redis) -> Redis:
        pending, present, locks, last, records = look
        there = {id.decode() for id, _ in present}
        owned = {id.decode(): (self._numbers[owner], count) for id, owner, _, count in pending}
        return Redis(
            entries=tuple(Entry(id in there, *owned.get(id, (UNOWNED, 0))) for id in IDS),
            last=IDS.index(last.decode()) if last != b"0-0" else -1,
            locks=tuple(map(bool, locks)),
            records=tuple(self._record(*record) for record in records),
            finished=model.finished,
            tries=model.tries,
            listened=model.listened,
            present=model.present,
        )

    def _record(self, fence: Any, consumer: Any, position: Any, attempts: Any, *trouble: Any) -> Record:
        failures, failed, error, failing, began, lived, trials = trouble
        assert bool(failed) == bool(failing), "whose failure was the last, and since when it fails, stand together"
        return Record(
            _parse(fence),
            self._numbers.get(consumer, UNOWNED),
            _position(position),
            int(attempts or 0),
            int(failures or 0),
            _mark(failed),
            (error or b"").decode(),
            (TRIED if began.endswith(b"!") else UNTRIED) if began else 0,
            bool(lived),
            int(trials or 0),
        )


def _trouble(words: Any) -> Reply:
    """Failures, the error, whether it is known how long an owner lived, and trials; or nothing."""
    return (words[0], words[2].decode(), words[3] >= 0, words[4]) if words else ()


def _fence(fence: Fence) -> str:
    return str(RealFence.of(IDS[fence[0]], fence[1]))


def _parse(text: bytes | None) -> Fence:
    if not text:
        return NO_FENCE
    fence = RealFence.parse(text.decode())
    return IDS.index(fence.lbs_id), fence.deliveries


def _mark(text: bytes | None) -> tuple[int, ...]:
    """Whose failure was the last, and where: a fence, or the announcement's part of one, and a checkpoint."""
    if not text:
        return ()
    whose, _, position = text.partition(b" ")
    id, count = _parse(whose if whose.count(b"-") > 1 else b"%s-%020d" % (whose, 0))
    return id, count, _position(position)


def _position(id: bytes | None) -> int:
    return int(id.split(b"-")[0]) if id else 0
