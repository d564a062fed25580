"""The roll call: which members live, and what each can bear. The sweeper and the balancer make it."""

from collections.abc import Sequence

from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._model.options import Options
from redis_stream_client._ownership.last_signs import LastSigns
from redis_stream_client._protocol.group import Group

LOOKS = 200
"""The most locks in one script call."""


class RollCall:
    """Looks at the locks of many members."""

    def __init__(
        self, *, options: Options, group: Group, peers: Peers, last_signs: LastSigns | None = None
    ) -> None:
        self._patience = options.patience
        self._group = group
        self._peers = peers
        self._last_signs = last_signs

    async def alive(self, consumers: Sequence[str]) -> dict[str, bool]:
        """Which of these live. What those can bear that are new is read, too."""
        alive: dict[str, bool] = {}
        for names in in_chunks(consumers, LOOKS):
            if all(map(self._peers.knows, names)):
                looked = await self._group.look(names, self._patience)
            else:
                holders = await self._group.holders(names, self._patience)
                for name, holder in zip(names, holders, strict=True):
                    if holder is not None:
                        self._peers.described(name, holder)
                        if self._last_signs is not None and holder.ttl_ms is not None:
                            self._last_signs.has_ttl(name, holder.ttl_ms / 1000)
                looked = [holder is not None for holder in holders]
            alive.update(zip(names, looked, strict=True))
            if self._last_signs is not None:
                for name in names:
                    if alive[name]:
                        self._last_signs.found_alive(name)
        return alive
