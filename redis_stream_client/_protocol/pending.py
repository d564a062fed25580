"""Looking at pending entries and their owners. No owner changes here; pending entries that were trimmed are
removed."""

from collections.abc import Sequence
from typing import Any

from redis_stream_client._model.entry import GREATEST
from redis_stream_client._model.options import Options
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import (
    PAGE,
    SEEN_BYTES,
    ReplySizes,
    behind,
    decode_name,
    encode_name,
    sized,
)
from redis_stream_client._protocol.replies import Delivered, Fields, Look, Orphans
from redis_stream_client._redis.connection import SharedConnection


class Pending:
    """The pending entries of the group, seen by one consumer."""

    def __init__(self, options: Options, *, commands: SharedConnection, sizes: ReplySizes) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._commands = commands
        self._sizes = sizes

    async def mine(self, after: str | None, timeout: float) -> Look[tuple[str, int]]:
        """A page of the entries that are pending for us: (LBS id, delivery count)."""

        async def send(size: int, patience: float) -> tuple[int, Any]:
            reply = await self._commands.request(
                "XPENDING", self._keys.lbs, self._keys.group, behind(after), "+", size, self._me, timeout=patience
            )
            return size, reply

        size, reply = await sized(self._sizes.pending, timeout, send)
        found = [(lbs_id.decode(), deliveries) for lbs_id, _, _, deliveries in reply]
        more = len(found) == size and found[-1][0] != GREATEST
        return Look(found, found[-1][0] if more else None)

    async def orphans(self, owner: str, after: str | None, timeout: float) -> Orphans:
        """A page of the entries that are pending for a dead consumer."""
        keys: list[str | bytes] = [self._keys.lbs, encode_name(self._keys.lock(owner))]

        async def send(size: int, patience: float) -> Any:
            args = [self._keys.group, encode_name(owner), behind(after), PAGE, size]
            return await self._commands.run(scripts.load("orphans"), keys, args, timeout=patience)

        reply = await sized(self._sizes.announcements, timeout, send)
        if reply[0] == b"alive":
            return Orphans([], None, alive=True)
        entries = [Delivered(i.decode(), deliveries, fields) for i, deliveries, fields in reply[2:]]
        return Orphans(entries, reply[1].decode() or None, alive=False)

    async def inspect(self, lbs_ids: Sequence[str], timeout: float) -> list[str]:
        """The owner of each entry; '' if it is not pending or does not exist any more.

        The last ids may be left out.
        """

        async def send(size: int, patience: float) -> Any:
            args = [self._keys.group, SEEN_BYTES, *lbs_ids[:size]]
            return await self._commands.run(scripts.load("inspect"), [self._keys.lbs], args, timeout=patience)

        return [decode_name(owner) for owner in await sized(self._sizes.owners, timeout, send)]

    async def standing(self, lbs_id: str, timeout: float) -> tuple[str, int] | None:
        """The owner of an entry and its delivery count. None: it is not pending."""
        reply = await self._commands.request(
            "XPENDING", self._keys.lbs, self._keys.group, lbs_id, lbs_id, 1, timeout=timeout
        )
        return (decode_name(reply[0][1]), reply[0][3]) if reply else None

    async def announcement(self, lbs_id: str, timeout: float) -> Fields | None:
        """The fields of an announcement; None if it is not in the stream."""
        reply = await self._commands.request("XRANGE", self._keys.lbs, lbs_id, lbs_id, timeout=timeout)
        return reply[0][1] if reply else None
