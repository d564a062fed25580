"""Presence in Redis: declare it, take it back, and watch that of the peers."""

from collections.abc import Sequence
from typing import Any, Literal, cast

from redis_stream_client._model.options import Options
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import Patience, decode_name, encode_name
from redis_stream_client._protocol.replies import Absent, Watch
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.script import Script

Declared = Literal["present", "absent", "lapsed"]


class PresenceScripts:
    """The scripts about presence.

    Args:
        options: name the consumer and the lifetime of its lock.
        db: index of the database, which is part of the names of channels.
        beats: the connection without large replies: no command delays a withdrawal on it.
    """

    def __init__(self, options: Options, *, db: int, beats: SharedConnection) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._lock_ttl_ms = options.lock_ttl_ms
        self._lock = self._keys.lock(self._me)
        self._channel = self._keys.presence_channel(self._me, db)
        self._channels = self._keys.presence_channel("", db)
        self._beats = beats
        self._patience = Patience(options.lock_ttl)

    async def present(self, nonce: int, grace: float, timeout: float) -> Declared:
        """Declare our presence: from now on peers may take us for dead if they have not seen our subscription for
        `grace` seconds."""
        keys = [self._lock, self._keys.present]
        args = [self._me, self._channel, max(1, round(grace * 1000)), nonce, self._keys.control]
        reply: bytes = await self._run(scripts.load("present"), keys, args, timeout)
        return cast("Declared", reply.decode())

    async def withdraw(self, timeout: float) -> bool:
        """Take our declaration back, and renew the lock. False: the lock does not exist any more."""
        keys = [self._lock, self._keys.present]
        args = [self._me, self._lock_ttl_ms]
        return bool(await self._run(scripts.load("withdraw"), keys, args, timeout))

    async def watch(self, nonce: int, tenure: float, timeout: float) -> Watch:
        """Look who is absent, if nobody else watches; then we do, for `tenure` seconds."""
        keys = [self._lock, self._keys.watch, self._keys.present]
        args = [self._me, max(1, round(tenure * 1000)), self._channels, nonce]
        what, *rest = await self._run(scripts.load("watch"), keys, args, timeout)
        words = rest[1:]
        absent = tuple(
            Absent(decode_name(name), grace / 1000, declaration)
            for name, grace, declaration in zip(words[::3], words[1::3], words[2::3], strict=True)
        )
        return Watch(what.decode(), rest[0] if rest else 0, absent)

    async def depose(self, nonce: int, victims: Sequence[Absent], timeout: float) -> list[str]:
        """Delete the locks of those that are still absent, and have not declared anew since. Returns their
        names."""
        locks = [encode_name(self._keys.lock(victim.consumer)) for victim in victims]
        keys: list[str | bytes] = [self._lock, self._keys.present, *locks]
        args: list[str | bytes | int] = [self._me, self._channels, nonce, self._keys.control]
        for victim in victims:
            args += [encode_name(victim.consumer), victim.declaration]
        return [decode_name(name) for name in await self._run(scripts.load("depose"), keys, args, timeout)]

    async def _run(self, script: Script, keys: Sequence[str | bytes], args: Sequence[Any], timeout: float) -> Any:
        return await self._patience.wait(
            timeout, lambda patience: self._beats.run(script, keys, args, timeout=patience)
        )
