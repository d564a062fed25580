"""Stale announcements: the hash of the newest ones forgets what is not outstanding any more.

Each member forgets what it finishes. What is left over was trimmed, or finished by a member of an older version or
without the permission. It does no harm, because what the hash says is verified, but it takes room. So the hash is
looked through while it has more announcements than the stream. To look each of them up costs Redis a command.
"""

from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._protocol.group import Group

PAGES = 20  # the most pages in one turn
WORTHWHILE = 1 / 4  # the part of a page that must be stale to look at the next one in the same turn


class StaleAnnouncements:
    """Looks through the hash, a page in each turn to tidy up, or more pages where much is stale."""

    def __init__(self, *, log: Log, options: Options, group: Group) -> None:
        self._log = log
        self._patience = options.patience
        self._group = group
        self._cursor = "0"
        self._warned = False

    async def forget(self) -> None:
        """Look at the next page or pages. Raises what the stubs raise."""
        for _ in range(PAGES):
            page = await self._group.prune(self._cursor, self._patience)
            self._cursor = page.cursor
            if page.problem and not self._warned:
                self._warned = True
                self._log.warning(
                    "announcements that are finished cannot be forgotten, and take room: %s", page.problem
                )
            if page.cursor == "0" or page.forgotten < WORTHWHILE * page.looked:
                return
