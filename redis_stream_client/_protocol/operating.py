"""What an operator changes, from outside: pauses, drains, evictions, and streams that are to go to others."""

import json
from typing import Literal, cast

from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._model.orders import Pause
from redis_stream_client._protocol import hints, scripts
from redis_stream_client._protocol.base import ABSENT, PAGE, encode_name
from redis_stream_client._protocol.hints import Give
from redis_stream_client._protocol.listing import Listed
from redis_stream_client._redis.script_calls import Command, ScriptCalls

DRAIN_KEPT = 24 * 60 * 60 * 1000
"""Milliseconds for which an order to drain is kept for a member that is away: longer than anybody stands still."""

Ordered = Literal["ordered", "gone", "unknown", "foreign"]


class Operator:
    """Changes the fleet of one service.

    Args:
        calls: reaches the server.
        keys: names the service.

    All methods raise `Unanswered` or `RedisRejected`. Each request can be repeated.
    """

    def __init__(self, calls: ScriptCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    # The whole fleet.

    async def pause(self, reason: str) -> Pause:
        """Have nobody take new streams. Returns the pause as Redis has it."""
        said: bytes = await self._calls.run(
            scripts.load("pause"), [self._keys.paused], [json.dumps(reason), self._keys.control]
        )
        return decode_pause(said) or Pause(reason, 0.0)

    async def resume(self) -> Pause | None:
        """End the pause. Returns it; None: there was none."""
        said: bytes = await self._calls.run(scripts.load("resume"), [self._keys.paused], [self._keys.control])
        return decode_pause(said)

    # One member.

    async def order_drain(self, consumer: str) -> Ordered:
        """Order a member to drain. ``gone``: it has left or is dead; if it was only away, it drains when it comes
        back. ``foreign``: we cannot write its lock."""
        keys = [self._keys.lbs, self._lock(consumer), encode_name(self._keys.drain(consumer))]
        args: list[str | bytes] = [self._keys.group, encode_name(consumer), self._keys.control, str(DRAIN_KEPT)]
        reply: bytes = await self._calls.run(scripts.load("order_drain"), keys, args)
        return cast("Ordered", reply.decode())

    async def evict(self, consumer: str) -> tuple[int, bool] | None:
        """Evict a consumer, with one page of its streams. Returns how many were released, and whether there are
        more: then it is not evicted yet. None: there is no such consumer."""
        keys = [self._keys.lbs, self._lock(consumer), self._keys.present]
        args: list[str | bytes] = [self._keys.group, encode_name(consumer), NOBODY, self._keys.control, str(PAGE)]
        what, *numbers = await self._calls.run(scripts.load("evict"), keys, args)
        if what == b"unknown":
            return None
        released, more = numbers
        return released, bool(more)

    async def lives(self, consumer: str) -> bool:
        """Whether a consumer's lock exists."""
        left = await self._calls.ask(Command(self._keys.lbs, ("PTTL", self._lock(consumer)), reads=True))
        return bool(left != ABSENT)

    # One stream.

    async def ask_for(self, found: Listed) -> None:
        """Ask the owner of an announcement to give it back at its next checkpoint."""
        hint = hints.encode(Give(found.consumer, found.lbs_id, found.deliveries))
        await self._calls.ask(Command(self._keys.lbs, ("PUBLISH", self._keys.control, hint)))

    async def take_away(self, found: Listed) -> bool:
        """Release an announcement from its owner. False: somebody else has it already, or it is over."""
        args: list[str | bytes] = [self._keys.group, encode_name(found.consumer), NOBODY, self._keys.control]
        args += [found.lbs_id, str(found.deliveries)]
        return bool(await self._calls.run(scripts.load("take_away"), [self._keys.lbs], args))

    def _lock(self, consumer: str) -> str | bytes:
        return encode_name(self._keys.lock(consumer))


def decode_pause(said: bytes | None) -> Pause | None:
    """The pause that the key holds. A key that makes no sense is a pause, too: somebody has made it."""
    if not said:
        return None
    try:
        value = json.loads(said)
        return Pause(str(value["reason"]), int(value["since"]) / 1000)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Pause("", 0.0)
