"""A survey of a service, taken from outside: its group, its members, and what they say about themselves.

It changes nothing. No request takes Redis longer than some milliseconds for a thousand members.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import ABSENT, decode_name, encode_name
from redis_stream_client._redis.script_calls import Call, Command, ScriptCalls, expected

WAITING_COUNTED = 500  # the most waiting announcements that a survey counts
COUNTED_BYTES = 1 << 19  # bytes of them after which it stops
LOCKS = 1_000  # the most locks in one request
RELEASED = 100  # the most released announcements whose age a survey looks at
NOT_LOOKED_AT = -3  # what a survey says of a lock, besides what PTTL says


class Seen(NamedTuple):
    """A consumer of the group.

    Attributes:
        name: its id.
        pending: how many entries are pending for it.
        idle_ms: milliseconds since Redis last heard of it.
        life_ms: milliseconds that its lock will live; -1: for ever; `ABSENT`; `NOT_LOOKED_AT`.
    """

    name: str
    pending: int
    idle_ms: int
    life_ms: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What one script call has seen.

    Attributes:
        now_ms: the server's clock.
        entries, pending: of the load balancer stream and its group.
        waiting: entries that were not delivered, as far as they were counted.
        more: whether there may be more of them.
        oldest_waiting: id of the oldest of them, or "".
        exists: whether there is a group.
        consumers: those of the group.
    """

    now_ms: int
    entries: int
    pending: int
    waiting: int
    more: bool
    oldest_waiting: str
    exists: bool
    consumers: tuple[Seen, ...]


@dataclass(slots=True)
class Findings:
    """A survey, and what was asked besides. Each of the latter may be an error instead, `Unanswered` or
    `RedisRejected`.

    Attributes:
        survey: of which every lock was looked at.
        letters: how many dead letters there are.
        present: the consumers that have declared their presence.
        released_ms: for how many milliseconds the oldest of the first released announcements has waited; None if
            there are none.
        paused: what the pause's key holds; None: there is none.
        values: what the locks hold, by the consumers.
        untold: why some of the locks could not be read.
    """

    survey: Survey
    letters: int | Exception
    present: set[str] | Exception
    released_ms: int | Exception | None
    paused: bytes | Exception | None = None
    values: dict[str, bytes] = field(default_factory=dict)
    untold: Exception | None = None


def survey(keys: Keys, consumers: Sequence[str]) -> Call:
    """The call that takes a survey and looks at the locks of these consumers."""
    names: list[str | bytes] = [encode_name(consumer) for consumer in consumers]
    args = [keys.group, str(WAITING_COUNTED), str(COUNTED_BYTES), *names]
    return Call(scripts.load("survey"), [keys.lbs, *_locks(keys, consumers)], args, reads=True)


def surveyed(reply: Sequence[Any]) -> Survey:
    """What a survey has found."""
    now_ms, entries, pending, waiting, oldest, exists, *words = reply
    consumers = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
    return Survey(
        int(now_ms),
        entries,
        pending,
        abs(waiting),
        waiting < 0,
        oldest.decode(),
        bool(exists),
        tuple(Seen(decode_name(name), *numbers) for name, *numbers in consumers),
    )


async def explore(calls: ScriptCalls, keys: Keys) -> Findings:
    """Take a survey: one to learn who there is, and one that looks at their locks.

    Raises `Unanswered` or `RedisRejected` if the load balancer stream or the locks cannot be read.
    """
    first = surveyed(await calls.ask(survey(keys, ())))
    names = [seen.name for seen in first.consumers]
    asks: list[Call | Command] = [
        survey(keys, names[:LOCKS]),
        Command(keys.dead, ("XLEN", keys.dead), reads=True),
        Command(keys.present, ("HKEYS", keys.present), reads=True),
        Command(keys.paused, ("MGET", keys.paused), reads=True),  # whoever reads the locks may do so, too
    ]
    if NOBODY in names:
        words = ("XPENDING", keys.lbs, keys.group, "-", "+", RELEASED, NOBODY)
        asks.append(Command(keys.lbs, words, reads=True))
    answer, letters, present, paused, *released = await calls.run_all(asks)
    found = await _complete(calls, keys, surveyed(expected([answer])[0]))
    findings = Findings(
        found,
        letters,
        present if isinstance(present, Exception) else set(map(decode_name, present)),
        _oldest(released[0]) if released else None,
        paused if isinstance(paused, Exception) else paused[0],
    )
    await _listen(calls, keys, findings)
    return findings


async def _complete(calls: ScriptCalls, keys: Keys, found: Survey) -> Survey:
    """Look at the locks that the survey had no room for, or whose consumers have just joined."""
    rest = [seen.name for seen in found.consumers if seen.life_ms == NOT_LOOKED_AT]
    lives: dict[str, int] = {}
    for some in in_chunks(rest, LOCKS):
        asks = [Command(keys.lbs, ("PTTL", lock), reads=True) for lock in _locks(keys, some)]
        lives.update(zip(some, expected(await calls.run_all(asks)), strict=True))
    if not lives:
        return found
    consumers = (seen._replace(life_ms=lives.get(seen.name, seen.life_ms)) for seen in found.consumers)
    return replace(found, consumers=tuple(consumers))


async def _listen(calls: ScriptCalls, keys: Keys, findings: Findings) -> None:
    """Read what the living say about themselves."""
    living = [seen.name for seen in findings.survey.consumers if seen.life_ms != ABSENT]
    for some in in_chunks(living, LOCKS):
        [values] = await calls.run_all([Command(keys.lbs, ("MGET", *_locks(keys, some)), reads=True)])
        if isinstance(values, Exception):
            findings.untold = values
            return
        told = zip(some, values, strict=True)
        findings.values.update((name, value) for name, value in told if value is not None)


def _locks(keys: Keys, consumers: Iterable[str]) -> list[bytes]:
    return [encode_name(keys.lock(consumer)) for consumer in consumers]


def _oldest(released: Any) -> int | Exception | None:
    """The longest time for which an entry of a page was not delivered again."""
    if isinstance(released, Exception):
        return released
    return max((idle_ms for _, _, idle_ms, _ in released), default=None)
