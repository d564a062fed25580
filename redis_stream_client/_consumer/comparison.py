"""What Redis says is ours, page by page, for comparison with the leases that this client knows of."""

from collections.abc import Awaitable, Callable, Sequence

from redis_stream_client._protocol.pending import Pending


async def pending_for_us(
    pending: Pending, patience: float, *, between: Callable[[], Awaitable[bool]] | None = None
) -> dict[str, int] | None:
    """Everything that is pending for us: delivery counts by LBS id.

    Args:
        pending: where to look.
        patience: seconds for each page.
        between: called between two pages. None is returned as soon as it returns False.
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
    """Who owns each entry now; '' where it is gone."""
    owners: list[str] = []
    while len(owners) < len(lbs_ids):
        owners += await pending.inspect(lbs_ids[len(owners) :], patience)
    return owners
