"""The consumer lock in Redis: take it, renew it, give it up. While it exists, no peer takes our streams."""

from redis_stream_client._model.options import Options
from redis_stream_client._protocol import lock_value, scripts
from redis_stream_client._protocol.base import Patience
from redis_stream_client._protocol.group import turn_request
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered


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

    async def join(self, timeout: float, *, begin: str = "0") -> None:
        """Take the lock and register in the group.

        Args:
            timeout: seconds.
            begin: if the group does not exist yet, it delivers the entries after this one.
        """
        keys = [self._keys.lbs, self._key, self._keys.present]
        args = [self._keys.group, self._me, self._options.lock_ttl_ms, lock_value.encode(self._options), begin]
        script = scripts.load("join")
        await self._patience.wait(timeout, lambda patience: self._beats.run(script, keys, args, timeout=patience))

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

    async def beat_and_turn(self, lifetime: float, timeout: float) -> tuple[bool, bool]:
        """Renew the lock, and ask for the sweep turn. Redis gives it to one member in `lifetime` seconds.

        Both travel together. In a large fleet, asking for the turn alone would cost Redis more than the sweeps.
        """
        asking = turn_request(self._keys.sweep, self._me, lifetime)
        renewed, won = await self._patience.wait(
            timeout, lambda patience: self._beats.together(self._renewal, asking, timeout=patience)
        )
        if isinstance(renewed, Exception):
            raise renewed
        if isinstance(won, Unanswered):  # a full Redis cannot store the turn: sweep without it
            return bool(renewed), True
        if isinstance(won, Exception):
            raise won
        return bool(renewed), won is not None

    async def leave(self, timeout: float) -> None:
        """Give up the lock, so that peers can claim our streams at once."""
        args = [self._me, self._keys.control]
        await self._beats.run(scripts.load("leave"), [self._key, self._keys.present], args, timeout=timeout)
