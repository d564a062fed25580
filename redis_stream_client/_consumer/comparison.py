"""Listings for the comparison: what Redis has pending for us, page by page."""

from collections.abc import Awaitable, Callable, Sequence

from redis_stream_client._protocol.pending import Pending


async def pending_for_us(
    pending: Pending, patience: float, *, between: Callable[[], Awaitable[bool]] | None = None
) -> dict[str, int] | None:
    """All entries that are pending for us: delivery counts by LBS id.

    Args:
        pending: the stubs to ask.
        patience: timeout of each page, in seconds.
        between: called between two pages; if it returns False, the result is None.
    """
    found: dict[str, int] = {}
    last: str | None = None
    while True:
        page = await pending.mine(last, patience)
        found.update(page.found)
        last = page.last
        if last is None:
            return found
        if between is not None and not await between():
            return None


async def owners_of(pending: Pending, lbs_ids: Sequence[str], patience: float) -> list[str]:
    """The owner of each entry now; '' if it is gone."""
    owners: list[str] = []
    while len(owners) < len(lbs_ids):
        owners += await pending.inspect(lbs_ids[len(owners) :], patience)
    return owners
