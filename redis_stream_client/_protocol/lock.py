"""The consumer lock in Redis: take it, renew it, give it up. While it exists, no peer takes our streams."""

import contextlib
import time
from typing import Any, NamedTuple

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.options import Options
from redis_stream_client._model.orders import Pause
from redis_stream_client._protocol import lock_value, scripts
from redis_stream_client._protocol.base import Patience
from redis_stream_client._protocol.group import turn_request
from redis_stream_client._protocol.lock_value import Says
from redis_stream_client._protocol.operating import decode_pause
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered


class Standing(NamedTuple):
    """What operators have ordered, as Redis has it."""

    pause: Pause | None
    drain: bool


class Renewal(NamedTuple):
    """What came of a beat.

    Attributes:
        held: whether the lock exists.
        turn: whether we have the sweep turn, if we have asked for it.
        orders: the orders of operators, if we have asked for them; an error if there was no answer, or Redis
            refuses.
    """

    held: bool
    turn: bool = False
    orders: Standing | Unanswered | RedisRejected | None = None


class Lock:
    """The lock of one consumer.

    Args:
        options: name the consumer and the lifetime of the lock.
        beats: a connection without large replies, so that no beat has to wait.
        commands: the connection with which `probe` checks permissions.
    """

    def __init__(self, options: Options, *, beats: SharedConnection, commands: SharedConnection) -> None:
        self._options = options
        self._keys = options.keys
        self._me = options.consumer
        self._beats = beats
        self._commands = commands
        self._key = self._keys.lock(self._me)
        self._renewal = ("PEXPIRE", self._key, options.lock_ttl_ms)
        self._patience = Patience(options.lock_ttl)
        self._taken = time.time()
        self._says = lock_value.NOTHING
        self._said: Says | None = None  # what the lock says; None: not known
        self._kept = ("GET", self._keys.drain(self._me))
        self._away = True  # since the orders were read last: one to drain may have found no lock
        self._drains = False  # by order

    async def join(self, timeout: float, *, begin: str = "0") -> None:
        """Take the lock and register in the group.

        Args:
            timeout: seconds.
            begin: if the group does not exist yet, it delivers the entries after this one.
        """
        keys = [self._keys.lbs, self._key, self._keys.present]
        self._taken, says = time.time(), self._says
        value = lock_value.encode(self._options, says, self._taken)
        args = [self._keys.group, self._me, self._options.lock_ttl_ms, value, begin]
        script = scripts.load("join")
        self._said = None
        await self._patience.wait(timeout, lambda patience: self._beats.run(script, keys, args, timeout=patience))
        self._said, self._away = says, True

    async def probe(self, timeout: float) -> None:
        """Raise `RedisRejected` if a command that we will need is not permitted."""
        keys = [self._keys.lbs, self._key, self._keys.dead, self._keys.sweep]
        args = [self._keys.group, self._keys.control, f"{self._me}-probe", self._me]
        failed = await self._commands.run(scripts.load("probe"), keys, args, timeout=timeout)
        words = [word.decode(errors="replace") for word in failed]
        refused = error_mapping.map_probe(list(zip(words[::2], words[1::2], strict=True)))
        if refused is not None:
            raise refused

    async def beat(self, timeout: float) -> bool:
        """Renew the lock. False: the lock does not exist any more.

        It uses ``PEXPIRE`` and not ``SET``, because a full Redis refuses ``SET``, and the whole fleet would lapse.
        """
        return bool(
            await self._patience.wait(
                timeout, lambda patience: self._beats.request(*self._renewal, timeout=patience)
            )
        )

    async def renew(self, timeout: float, *, turn: float | None = None, orders: bool = False) -> Renewal:
        """Renew the lock, and ask for what else is wanted: all travels together.

        Args:
            timeout: seconds.
            turn: ask for the sweep turn, which Redis gives to one member in so many seconds. In a large fleet,
                asking for it alone would cost Redis more than the sweeps.
            orders: ask for the orders of operators.
        """
        asks: list[tuple[Any, ...]] = [self._renewal]
        if turn is not None:
            asks.append(turn_request(self._keys.sweep, self._me, turn))
        if orders:
            asks += [("GET", self._keys.paused), ("GET", self._key)]
            asks += [self._kept] if self._away else []
        renewed, *others = await self._patience.wait(
            timeout, lambda patience: self._beats.together(*asks, timeout=patience)
        )
        if isinstance(renewed, Exception):
            raise renewed
        won = _won(others.pop(0)) if turn is not None else False
        return Renewal(bool(renewed), won, self._standing(*others) if orders else None)

    def _standing(self, paused: Any, value: Any, kept: Any = None) -> Standing | Unanswered | RedisRejected:
        """The orders in the key of the pause, in our lock, and in the key that is for when we had none."""
        if isinstance(kept, RedisRejected):  # one that Redis does not permit us to read is none
            kept = None
        for reply in (paused, value, kept):
            if isinstance(reply, RedisRejected | Unanswered):
                return reply
            if isinstance(reply, Exception):
                return Unanswered(str(reply), maybe_executed=False)
        self._away = False
        ordered = value is not None and lock_value.describe(value).drain_ordered
        self._drains |= ordered or kept is not None
        return Standing(decode_pause(paused), self._drains)

    async def say(self, says: Says, timeout: float) -> None:
        """Have the lock say this, unless it does. From now on, `join` says it, too."""
        self._says = says
        if self._said == says:
            return
        self._said = None
        value = lock_value.encode(self._options, says, self._taken)
        there = await self._beats.run(scripts.load("say"), [self._key], [value], timeout=timeout)
        self._said = says if there else None

    async def leave(self, timeout: float) -> None:
        """Give up the lock, so that peers can claim our streams at once."""
        args = [self._me, self._keys.control]
        await self._beats.run(scripts.load("leave"), [self._key, self._keys.present], args, timeout=timeout)
        if self._drains:
            with contextlib.suppress(Unanswered, RedisRejected):  # it expires by itself
                await self._beats.request("DEL", self._keys.drain(self._me), timeout=timeout)


def _won(reply: Any) -> bool:
    """Whether we have the turn. A full Redis cannot store it: then everybody sweeps without it."""
    if isinstance(reply, Unanswered):
        return True
    if isinstance(reply, Exception):
        raise reply
    return reply is not None
