"""The consumer group as a whole: who is in it, who lives, and what the fleet tidies up in turns."""

import json
import math
from collections.abc import Sequence
from typing import Any

from redis_stream_client._model.entry import order
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.options import Options
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import PAGE, SEEN_BYTES, behind, decode_name, encode_name
from redis_stream_client._protocol.replies import Census, Member
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered

WAITING_COUNTED = 1_000  # waiting announcements that a census counts


class Group:
    """The group, as one of its members sees it."""

    def __init__(self, options: Options, *, commands: SharedConnection) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._lock_ttl_ms = options.lock_ttl_ms
        self._commands = commands

    async def members(self, timeout: float) -> list[Member]:
        """The group's consumers, dead or alive."""
        reply = await self._commands.request(
            "XINFO", "CONSUMERS", self._keys.lbs, self._keys.group, timeout=timeout
        )
        return [_member(info) for info in reply]

    async def look(self, consumers: Sequence[str], timeout: float) -> list[bool]:
        """Which of them live; makes Redis notice, and announce, the locks that expired.

        Locks that would outlive their holders' wish, and ours, are shortened; and so are the turns.
        """
        turns = [encode_name(turn) for turn in self._keys.turns]
        keys = [*turns, *(encode_name(self._keys.lock(consumer)) for consumer in consumers)]
        looked = await self._commands.run(scripts.load("look"), keys, [self._lock_ttl_ms], timeout=timeout)
        return [bool(n) for n in looked[len(turns) :]]

    async def census(self, timeout: float) -> Census:
        """Compare what is in the stream with what is pending."""
        args = [self._keys.group, WAITING_COUNTED, SEEN_BYTES]
        reply = await self._commands.run(scripts.load("census"), [self._keys.lbs], args, timeout=timeout)
        oldest, now_ms, *balance = reply
        waiting = max(0.0, (int(now_ms) - order(oldest.decode())[0]) / 1000) if oldest else None
        return Census(int(balance[0]) if balance else None, waiting)

    async def turn(self, key: str, lifetime: float, timeout: float) -> bool:
        """Ask for one of the fleet's turns, which is given once per `lifetime` seconds."""
        try:
            asked = turn_request(key, self._me, lifetime)
            return await self._commands.request(*asked, timeout=timeout) is not None
        except Unanswered as error:
            if error.maybe_executed:
                raise
            return True  # a full Redis refuses to write the turn down: do it without

    async def forget(self, consumer: str, idle: float, timeout: float) -> bool:
        """Remove a consumer that is dead, owns nothing and was idle for `idle` seconds."""
        keys: list[str | bytes] = [self._keys.lbs, encode_name(self._keys.lock(consumer))]
        args = [self._keys.group, encode_name(consumer), round(idle * 1000)]
        return bool(await self._commands.run(scripts.load("forget"), keys, args, timeout=timeout))

    async def rescue(self, after: str | None, timeout: float) -> tuple[int, str | None]:
        """Make a page of delivered entries that are pending for nobody claimable.

        Returns how many there were, and where to go on, None at the end.
        """
        args = [self._keys.group, NOBODY, behind(after), PAGE, SEEN_BYTES, self._keys.control]
        rescued, last = await self._commands.run(scripts.load("rescue"), [self._keys.lbs], args, timeout=timeout)
        return rescued, last.decode() or None


def turn_request(key: str, consumer: str, lifetime: float) -> tuple[Any, ...]:
    """The command that asks for one of the fleet's turns. Its reply is None where a peer has it."""
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
