"""The consumer group as a whole: its consumers, which of them live, and the chores that the fleet does in turn."""

import json
import math
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.options import Options
from redis_stream_client._protocol import lock_value, scripts
from redis_stream_client._protocol.base import PAGE, SEEN_BYTES, behind, decode_name, encode_name
from redis_stream_client._protocol.replies import Census, Holder, Member, Pruned
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered

WAITING_COUNTED = 1_000  # the most waiting announcements that a census counts


class Group:
    """The group, as one of its members sees it."""

    def __init__(self, options: Options, *, commands: SharedConnection) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._lock_ttl_ms = options.lock_ttl_ms
        self._commands = commands

    async def members(self, timeout: float) -> list[Member]:
        """The consumers of the group, dead or alive."""
        reply = await self._commands.request(
            "XINFO", "CONSUMERS", self._keys.lbs, self._keys.group, timeout=timeout
        )
        return [_member(info) for info in reply]

    async def look(self, consumers: Sequence[str], timeout: float) -> list[bool]:
        """Which of these consumers live. It also makes Redis notice, and announce, the locks that have expired.

        It shortens locks and turns that would live for longer than their holder or we want.
        """
        return [bool(n) for n in await self._look(consumers, 0, timeout)]

    async def holders(self, consumers: Sequence[str], timeout: float) -> list[Holder | None]:
        """Do what `look` does, and read what the holders say about themselves. None: this consumer is dead."""
        said = await self._look(consumers, 1, timeout)
        return [lock_value.decode(value) if isinstance(value, bytes) else None for value in said]

    async def _look(self, consumers: Sequence[str], read: int, timeout: float) -> list[Any]:
        turns = [encode_name(turn) for turn in self._keys.turns]
        keys = [*turns, *(encode_name(self._keys.lock(consumer)) for consumer in consumers)]
        args = [self._lock_ttl_ms, read]
        looked: list[Any] = await self._commands.run(scripts.load("look"), keys, args, timeout=timeout)
        return looked[len(turns) :]

    async def census(self, timeout: float) -> Census:
        """Compare the number of entries in the stream with the number of pending ones."""
        args = [self._keys.group, WAITING_COUNTED, SEEN_BYTES]
        keys = [self._keys.lbs, self._keys.announced]
        reply = await self._commands.run(scripts.load("census"), keys, args, timeout=timeout)
        oldest, now_ms, surplus, *balance = reply
        waiting = max(0.0, (int(now_ms) - order(oldest.decode())[0]) / 1000) if oldest else None
        return Census(int(balance[0]) if balance else None, waiting, surplus)

    async def prune(self, cursor: str, timeout: float) -> Pruned:
        """Forget announcements that are not outstanding any more, one page at a time. Start with "0".

        Does not raise `RedisRejected`, but returns it as a problem: nothing depends on it.
        """
        keys = [self._keys.lbs, self._keys.announced]
        args = [self._keys.group, cursor, PAGE, SEEN_BYTES]
        reply = await self._commands.run(scripts.load("prune"), keys, args, timeout=timeout)
        to, looked, forgotten, *error = reply
        problem = ""
        for text in error:
            fault = error_mapping.map_reply(ResponseError(text.decode(errors="replace")))
            if not isinstance(fault, RedisRejected):
                raise fault
            problem = str(fault)
        return Pruned(to.decode(), looked, forgotten, problem)

    async def turn(self, key: str, lifetime: float, timeout: float) -> bool:
        """Ask for a turn of the fleet. Redis gives it to one member in `lifetime` seconds."""
        try:
            asked = turn_request(key, self._me, lifetime)
            return await self._commands.request(*asked, timeout=timeout) is not None
        except Unanswered as error:
            if error.maybe_executed:
                raise
            return True  # a full Redis cannot store the turn: go on without it

    async def forget(self, consumer: str, idle: float, timeout: float) -> bool:
        """Remove a consumer if it is dead, owns nothing, and was idle for `idle` seconds."""
        keys: list[str | bytes] = [self._keys.lbs, encode_name(self._keys.lock(consumer)), self._keys.present]
        args = [self._keys.group, encode_name(consumer), round(idle * 1000)]
        return bool(await self._commands.run(scripts.load("forget"), keys, args, timeout=timeout))

    async def rescue(self, after: str | None, timeout: float) -> tuple[int, str | None]:
        """Make delivered entries claimable that are not pending at all, one page of the stream at a time.

        Returns how many there were, and where to go on; None at the end.
        """
        args = [self._keys.group, NOBODY, behind(after), PAGE, SEEN_BYTES, self._keys.control]
        rescued, last = await self._commands.run(scripts.load("rescue"), [self._keys.lbs], args, timeout=timeout)
        return rescued, last.decode() or None


def turn_request(key: str, consumer: str, lifetime: float) -> tuple[Any, ...]:
    """The command that asks for a turn of the fleet. Its reply is None if a peer has the turn."""
    ms = max(1, round(lifetime * 1000))
    return ("SET", key, json.dumps({"ttl": ms, "consumer": consumer}), "NX", "PX", ms)


def _member(info: Sequence[Any]) -> Member:
    served_ms = info[7] if len(info) > 7 else info[5]
    return Member(
        name=decode_name(info[1]),
        pending=info[3],
        idle_ms=info[5],
        served_ms=math.inf if served_ms < 0 else served_ms,
    )
