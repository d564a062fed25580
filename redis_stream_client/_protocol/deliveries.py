"""Changing the owner or the fence of delivered entries: claim, adopt, finish, release, bury.

Each change is a compare-and-set: the owner and the delivery count must be those that the caller expects.
"""

from collections.abc import Sequence
from typing import Any

from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.options import Options
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import ReplySizes, decode_name, encode_name, flat, sized
from redis_stream_client._protocol.replies import Adopted, Delivered, Refusal, Taken, Won
from redis_stream_client._redis.connection import SharedConnection


class Deliveries:
    """Entries that were delivered to us, or that we claim from others."""

    def __init__(self, options: Options, *, commands: SharedConnection, sizes: ReplySizes) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._lock = self._keys.lock(self._me)
        self._commands = commands
        self._sizes = sizes

    async def claim(self, lbs_id: str, owner: str, timeout: float) -> Won | Refusal:
        """Take one entry from `owner`, if `owner` is dead."""
        keys: list[str | bytes] = [self._keys.lbs, self._lock, encode_name(self._keys.lock(owner))]
        args = [self._keys.group, self._me, encode_name(owner), lbs_id, self._keys.control]
        reply = await self._commands.run(scripts.load("claim"), keys, args, timeout=timeout)
        match reply:
            case [b"won", deliveries, fields, idle_ms]:
                return Won(deliveries, fields, idle_ms)
            case [b"owner", current, deliveries]:
                return Refusal("owner", decode_name(current), deliveries)
            case [b"alive", current]:
                return Refusal("alive", decode_name(current))
            case [b"gone"]:
                return Refusal("gone")
        return Refusal("lapsed")

    async def claim_many(
        self,
        owner: str,
        n: int,
        timeout: float,
        *,
        level_with: Sequence[str] | None = None,
        but: Sequence[str] = (),
    ) -> Taken | Refusal:
        """Take up to `n` entries of `owner`, if it is dead.

        Args:
            owner: the dead consumer, or `NOBODY`.
            n: the most entries to take.
            timeout: seconds.
            level_with: the other consumers of the group: take no more than brings us level with the live ones.
                None: take all that is there.
            but: LBS ids to leave alone.

        A repeated call takes more. So after a lost reply, audit.
        """
        others = list(level_with or ())
        names = [encode_name(other) for other in others]
        keys: list[str | bytes] = [self._keys.lbs, self._lock]
        keys += [encode_name(self._keys.lock(consumer)) for consumer in (owner, *others)]

        async def send(size: int, patience: float) -> Any:
            args = [
                self._keys.group, self._me, encode_name(owner), n, size, self._keys.control,
                int(level_with is not None), len(but), *but, *names,
            ]  # fmt: skip
            return await self._commands.run(scripts.load("claim_many"), keys, args, timeout=patience)

        reply = await sized(self._sizes.announcements, timeout, send)
        if reply[0] == b"won":
            entries = [Delivered(i.decode(), *rest) for i, *rest in reply[3:]]
            return Taken(entries, reply[1], bool(reply[2]))
        return Refusal("alive", owner) if reply[0] == b"alive" else Refusal("lapsed")

    async def adopt(self, entries: Sequence[tuple[str, int]], timeout: float) -> Adopted | None:
        """Give a new fence to entries that are pending for us with these counts. None: our lock does not exist.

        Leaves out entries that were trimmed, or that have another owner or count now.
        """
        keys = [self._keys.lbs, self._lock]

        async def send(size: int, patience: float) -> Any:
            args = [self._keys.group, self._me, size, *flat(entries)]
            return await self._commands.run(scripts.load("adopt"), keys, args, timeout=patience)

        reply = await sized(self._sizes.announcements, timeout, send)
        if reply == [b"lapsed"]:
            return None
        adopted = [
            Delivered(lbs_id, result[0], result[1])
            for (lbs_id, _), result in zip(entries, reply, strict=False)
            if len(result) == 2
        ]
        return Adopted(adopted, len(entries) - len(reply))

    async def lift(self, lbs_id: str, deliveries: int, to: int, timeout: float) -> str:
        """Raise the delivery count after a loss of writes. Returns ``lifted``, ``gone`` or the current owner."""
        args = [self._keys.group, self._me, lbs_id, deliveries, to]
        reply: bytes = await self._commands.run(scripts.load("lift"), [self._keys.lbs], args, timeout=timeout)
        return decode_name(reply)

    async def done(self, entries: Sequence[tuple[str, int, str]], timeout: float) -> list[str]:
        """Acknowledge and delete: ids, counts and streams. Returns for each ``done``, ``gone`` or the current
        owner."""
        keys = [self._keys.lbs, self._keys.announced]
        args = [self._keys.group, self._me, *flat(entries)]
        reply = await self._commands.run(scripts.load("done"), keys, args, timeout=timeout)
        return [decode_name(result) for result in reply]

    async def supersede(self, lbs_id: str, deliveries: int, stream: str, newer: str, timeout: float) -> str:
        """Acknowledge and delete in favour of the announcement `newer`. Returns ``done``; ``over``: that is not
        there any more; ``gone``; or the current owner."""
        keys = [self._keys.lbs, self._keys.announced]
        args = [self._keys.group, self._me, lbs_id, deliveries, stream, newer]
        reply: bytes = await self._commands.run(scripts.load("supersede"), keys, args, timeout=timeout)
        return decode_name(reply)

    async def release(self, entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
        """Make the entries pending for `NOBODY`. Returns for each ``released``, ``gone`` or the current owner."""
        args = [self._keys.group, self._me, NOBODY, self._keys.control, *flat(entries)]
        reply = await self._commands.run(scripts.load("release"), [self._keys.lbs], args, timeout=timeout)
        return [decode_name(result) for result in reply]

    async def withhold(
        self, entries: Sequence[tuple[str, int, str, int]], timeout: float, *, restore: bool = False
    ) -> list[str]:
        """Have producers announce these streams anew from now on. With `restore`: no more.

        Args:
            entries: LBS id, delivery count and name of each stream, and the number of the attempt, which grows.
            timeout: seconds.
            restore: take it back.

        Returns:
            For each ``withheld`` or ``restored``; ``newer``: it was announced again, and nothing was changed;
            ``gone``; or the current owner.
        """
        args = [self._keys.group, self._me, "restore" if restore else "withhold", *flat(entries)]
        keys = [self._keys.lbs, self._keys.announced]
        reply = await self._commands.run(scripts.load("withhold"), keys, args, timeout=timeout)
        return [decode_name(result) for result in reply]

    async def bury(
        self, lbs_id: str, deliveries: int, reason: str, timeout: float, *, details: str = "", stream: str = ""
    ) -> str:
        """Move an entry to the dead letters. Returns ``buried``, ``gone`` or the current owner."""
        keys = [self._keys.lbs, self._keys.dead, self._keys.announced]
        args = [self._keys.group, self._me, lbs_id, deliveries, reason, details, stream]
        reply: bytes = await self._commands.run(scripts.load("bury"), keys, args, timeout=timeout)
        return decode_name(reply)
