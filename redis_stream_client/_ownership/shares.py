"""Shares: how many streams each member should have, who wants some, and who gives some up. Pure functions.

Nobody decides for others. All members compute the same from the same loads. Whoever has too little asks, and each
of the others knows what its part of the answer is.
"""

import heapq
import math
from collections.abc import Mapping
from typing import NamedTuple

STEP = 1 / 20
"""Of its streams a member gives up so many at a time."""

ROUNDING = 1e-9
"""A share that is so little below a whole number is that number."""


class Load(NamedTuple):
    """What a member has, and what it can bear.

    Attributes:
        streams: how many it owns.
        weight: how much of the work it takes, in proportion to the others.
        limit: the most streams that it takes; None: no limit, or not known.
    """

    streams: int
    weight: float = 1.0
    limit: int | None = None


def fair_shares(loads: Mapping[str, Load], released: int = 0) -> dict[str, int]:
    """How many streams each member should have: its share by weight, rounded up or down, and no more than its
    limit.

    Who has more than its share rounded down is rounded up first, so that as few streams as possible must move.
    Those come first that have the least: what moves should come from the tallest.

    Args:
        loads: the live members that take streams.
        released: how many streams nobody owns, besides theirs.
    """
    total = sum(load.streams for load in loads.values()) + released
    fair = {name: math.floor(exact + ROUNDING) for name, exact in _exact_shares(loads, total).items()}
    open_to_more = [name for name, load in loads.items() if load.limit is None or fair[name] < load.limit]

    def order(name: str) -> tuple[bool, float, int, str]:
        streams, weight, _ = loads[name]
        return (streams <= fair[name], (fair[name] + 1) / weight, streams, name)

    rest = total - sum(fair.values())
    for name in sorted(open_to_more, key=order)[:rest]:
        fair[name] += 1
    return fair


def _exact_shares(loads: Mapping[str, Load], total: int) -> dict[str, float]:
    """Shares by weight that add up to `total`. What a member's limit leaves over goes to the others."""
    shares: dict[str, float] = {}
    left = dict(loads)
    while left:
        weights = math.fsum(load.weight for load in left.values())
        rest = total - sum(shares.values())
        exact = {name: rest * load.weight / weights for name, load in left.items()}
        full = [name for name, load in left.items() if load.limit is not None and exact[name] >= load.limit]
        if not full:
            shares.update(exact)
            break
        for name in full:
            shares[name] = left.pop(name).limit or 0
    return shares


def threshold(share: float, *, drifted: bool = False) -> float:
    """How far from its share a member must be before anything moves: clearly further than by chance.

    Streams that come and end at random make a difference of about the square root of the share. After a change of
    membership, twice as much is clearly further, or a third of the share. If nobody has come or gone since the
    fleet was even, chance has made it uneven; in a large fleet somebody is often off by three times as much. So it
    takes four times as much.
    """
    chance = math.sqrt(share)
    return max(2.0, 4 * chance if drifted else min(2 * chance, share / 3))


def wish(loads: Mapping[str, Load], me: str, *, asking: bool, released: int = 0, drifted: bool = False) -> int:
    """How many streams this member should ask for.

    Nobody begins to ask unless somebody is clearly off its share, this member or another one; see `threshold`.

    Args:
        loads: the live members that take streams.
        me: this member.
        asking: it asks already, and goes on until it has its share.
        released: how many streams nobody owns. This member takes them without asking.
        drifted: see `threshold`.
    """
    fair = fair_shares(loads, released)
    short = fair[me] - loads[me].streams
    if asking or short <= 0:
        return max(0, short)
    short = max(0, short - released)
    if short >= threshold(fair[me], drifted=drifted):
        return short
    too_tall = any(
        load.streams - fair[name] >= threshold(fair[name], drifted=drifted) for name, load in loads.items()
    )
    return short if too_tall else 0


def allot(loads: Mapping[str, Load], wishes: Mapping[str, int], released: int = 0) -> dict[str, int]:
    """How many streams each member should give up now, for those that ask.

    The tallest give first, by streams for their weight. So each stream that moves makes the fleet more even.
    Nobody comes below its share, and nobody gives more than `step` at a time: if the tallest one cannot give, for
    reasons that we do not know, others do.

    Args:
        loads: the live members that take streams.
        wishes: how many streams each of those wants that ask.
        released: how many streams nobody owns.
    """
    fair = fair_shares(loads, released)
    wanted = sum(
        max(0, min(streams, fair[taker] - loads[taker].streams))
        for taker, streams in wishes.items()
        if taker in loads
    )
    left = {
        name: min(load.streams - fair[name], step(load.streams))
        for name, load in loads.items()
        if load.streams > fair[name]
    }
    tallest = [(-loads[name].streams / loads[name].weight, name) for name in left]
    heapq.heapify(tallest)
    gives: dict[str, int] = {}
    while tallest and wanted > 0:
        name = heapq.heappop(tallest)[1]
        gives[name] = gives.get(name, 0) + 1
        wanted -= 1
        if gives[name] < left[name]:
            height = (loads[name].streams - gives[name]) / loads[name].weight
            heapq.heappush(tallest, (-height, name))
    return gives


def step(streams: int) -> int:
    """How many of so many streams a member may have on their way to others at a time."""
    return max(1, math.ceil(streams * STEP))
