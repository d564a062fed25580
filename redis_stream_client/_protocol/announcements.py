"""Reading announcements from the load balancer stream. What Redis delivers to us is ours from that moment."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model.entry import order
from redis_stream_client._model.options import Options
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import ReplySizes, encode_name, sized
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.replies import Delivered, Share
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered


class Announcements:
    """The announcements that wait for an owner.

    Args:
        options: name the consumer.
        reads: a connection that may block.
        beats: a connection without large replies, to read the server's clock.
        deliveries: raises the fence of entries that are delivered a second time.
        sizes: how much to ask for at once.
    """

    def __init__(
        self,
        options: Options,
        *,
        reads: SharedConnection,
        beats: SharedConnection,
        deliveries: Deliveries,
        sizes: ReplySizes,
    ) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._lock = self._keys.lock(self._me)
        self._reads = reads
        self._beats = beats
        self._deliveries = deliveries
        self._sizes = sizes
        self._newest: tuple[int, int] | None = None

    @property
    def newest(self) -> str:
        """The newest entry that Redis has delivered to us; "0" if none."""
        return "{}-{}".format(*self._newest) if self._newest else "0"

    async def read(self, block: float, timeout: float) -> list[Delivered]:
        """Wait up to `block` seconds for one announcement. Redis serves blocked consumers in turn."""
        reply = await self._reads.request(
            "XREADGROUP", "GROUP", self._keys.group, self._me,
            "COUNT", 1, "BLOCK", max(1, round(block * 1000)),
            "STREAMS", self._keys.lbs, ">",
            timeout=timeout,
        )  # fmt: skip
        return await self._delivered(reply[0][1] if reply else (), timeout)

    async def nudge(self, timeout: float) -> None:
        """Make Redis end the blocking reads that are due. The reply comes after that of our own read."""
        await self._reads.request("PING", timeout=timeout)

    async def share(self, most: int, patient: bool, others: Sequence[str], timeout: float) -> Share | None:
        """Read waiting announcements, up to our fair share by weight. None: our lock does not exist."""
        names = [encode_name(other) for other in others]
        keys: list[str | bytes] = [self._keys.lbs, self._lock]
        keys += [encode_name(self._keys.lock(other)) for other in others]

        async def send(size: int, patience: float) -> Any:
            args = [self._keys.group, self._me, most, size, int(patient), *names]
            return await self._reads.run(scripts.load("share"), keys, args, timeout=patience)

        reply = await sized(self._sizes.announcements, timeout, send)
        if reply[0] == b"lapsed":
            return None
        waiting, members, entries, satisfied = reply
        return Share(await self._delivered(entries, timeout), waiting, members, bool(satisfied))

    async def server_time(self, timeout: float) -> float:
        """The server's clock, in seconds since the epoch."""
        seconds, microseconds = await self._beats.request("TIME", timeout=timeout)
        return int(seconds) + int(microseconds) / 1e6

    async def _delivered(self, entries: Sequence[Any], timeout: float) -> list[Delivered]:
        """The entries that ``XREADGROUP`` gave us, all with delivery count 1.

        An entry that is not newer than an earlier one was delivered before: somebody has created the group again,
        or Redis has lost writes. Then the clock replaces the count, as in `rescue`, so that the new fence is
        greater than all before.
        """
        delivered = [Delivered(lbs_id.decode(), 1, fields or ()) for lbs_id, fields in entries]
        if not delivered:
            return delivered
        before, last = self._newest, order(delivered[-1].lbs_id)
        self._newest = max(last, before or last)
        if before is None or before < order(delivered[0].lbs_id):
            return delivered
        again: list[Delivered] = []
        try:
            now = int(1000 * await self.server_time(timeout))
            for some in in_chunks(delivered):  # together, since all entries of a large group may come again
                repeated = [entry for entry in some if order(entry.lbs_id) <= before]
                lifts = (self._deliveries.lift(entry.lbs_id, 1, now, timeout) for entry in repeated)
                outcomes = await gather(*lifts, name="redis_stream_client lifting")
                lifted = {
                    entry.lbs_id for entry, outcome in zip(repeated, outcomes, strict=True) if outcome == "lifted"
                }
                for entry in some:
                    if order(entry.lbs_id) > before:
                        again.append(entry)
                    elif entry.lbs_id in lifted:
                        again.append(replace(entry, deliveries=now))
        except Unanswered as error:  # the delivery itself was executed
            raise Unanswered(str(error), maybe_executed=True, elsewhere=error.elsewhere) from error
        return again
