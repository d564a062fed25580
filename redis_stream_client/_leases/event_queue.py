"""The events that wait for the user, and what is still on offer. Pure state: no I/O, no clock of its own.

Nothing here is dropped (guarantee G4): a stream that was lost before its `StreamAdded` was handed out takes
that event with it, since the user never heard of it; expiries are kept per stream, the newest state, not
per notification.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from redis_stream_client._leases.events import Event, ExpiredStream, StreamAdded, StreamDisowned, StreamExpired
from redis_stream_client._leases.lease import Lease, lease_of
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.keys import NOBODY


@dataclass(slots=True)
class _Offer:
    """An orphan that was, or will be, offered to the user."""

    payload: ExpiredStream
    pause: float  # seconds until it is offered again after it was read
    due: float | None = None  # when it is offered again; None while it lies unread


class EventQueue:
    """Unread events in the order they are handed out: losses first, since they say *stop*."""

    def __init__(self, first_pause: float, longest_pause: float) -> None:
        self._first_pause = first_pause
        self._longest_pause = max(first_pause, longest_pause)
        self._disowned: deque[StreamDisowned] = deque()
        self._unread: OrderedDict[str, LeaseState | None] = OrderedDict()  # by LBS id; None: an offer
        self._unread_added = 0
        self._offers: dict[str, _Offer] = {}
        self._reader: asyncio.Future[None] | None = None

    # What the client's tasks put in.

    def added(self, lease: LeaseState) -> None:
        """A stream that arrived."""
        self.withdraw(lease.lbs_id)
        self._unread[lease.lbs_id] = lease
        self._unread_added += 1
        self._wake()

    def lost(self, lease: LeaseState, reason: LossReason) -> None:
        """A lease that was lost: tell the user, should the user have heard of it."""
        self.unadd(lease)
        if lease.handed_out:
            self._disowned.append(StreamDisowned(lease_of(lease), reason))
            self._wake()

    def unadd(self, lease: LeaseState) -> None:
        """A lease that has ended, one way or another, takes its unread event with it."""
        if self._unread.get(lease.lbs_id) is lease:
            del self._unread[lease.lbs_id]
            self._unread_added -= 1

    def forget(self, lease: Lease) -> None:
        """A lease that nobody knows of: no event about its loss."""
        self._disowned = deque(event for event in self._disowned if event.payload is not lease)

    def offer(self, payload: ExpiredStream, now: float) -> bool:
        """An orphan was seen. Returns whether this is news to the user."""
        offer = self._offers.get(payload.lbs_id)
        if offer is None:
            offer = self._offers[payload.lbs_id] = _Offer(payload, self._first_pause)
        elif (offer.payload.previous_owner, offer.payload.deliveries) != (
            payload.previous_owner,
            payload.deliveries,
        ):  # it had another owner since: start anew
            offer.payload = payload
            offer.pause = self._first_pause
        elif offer.due is None or now < offer.due:
            return False
        offer.due = None
        self._unread[payload.lbs_id] = None
        self._wake()
        return True

    def hold_back(self, payload: ExpiredStream, until: float) -> None:
        """Offer an orphan only from `until` on, should no peer have taken it by then."""
        self._offers[payload.lbs_id] = _Offer(payload, self._first_pause, until)

    def withdraw(self, lbs_id: str) -> None:
        """An orphan has an owner again, or is gone."""
        offer = self._offers.pop(lbs_id, None)
        if offer is not None and offer.due is None:
            del self._unread[lbs_id]

    def withdraw_absent(self, owner: str, present: Iterable[str], known: Iterable[str]) -> None:
        """A complete look at `owner`'s orphans found only `present`: of the offers `known` before the look,
        the others are no longer orphans of this owner."""
        still_there = set(present)
        for lbs_id in known:
            offer = self._offers.get(lbs_id)
            if offer and owner_of(offer.payload) == owner and lbs_id not in still_there:
                self.withdraw(lbs_id)

    # What the client's tasks look at.

    @property
    def unread_added(self) -> int:
        """How many streams arrived and were not handed out yet."""
        return self._unread_added

    @property
    def unread(self) -> int:
        """How many events wait."""
        return len(self._disowned) + len(self._unread)

    def offered(self, owner: str) -> list[str]:
        """The LBS ids of the offers that were made for `owner`'s orphans."""
        return [lbs_id for lbs_id, offer in self._offers.items() if owner_of(offer.payload) == owner]

    def held_back(self, owner: str, now: float) -> list[str]:
        """The LBS ids of `owner`'s orphans that this client leaves to its peers for now."""
        return [
            lbs_id
            for lbs_id, offer in self._offers.items()
            if offer.due is not None and offer.due > now and owner_of(offer.payload) == owner
        ]

    def owners_to_recheck(self, now: float) -> tuple[set[str], set[str]]:
        """The owners of offers that are due again, and of offers that lie unread."""
        due: set[str] = set()
        unread: set[str] = set()
        for offer in self._offers.values():
            if offer.due is None:
                unread.add(owner_of(offer.payload))
            elif now >= offer.due:
                due.add(owner_of(offer.payload))
        return due, unread

    # What the user takes out.

    def take(self, now: float) -> Event | None:
        """The next event, or None. Handing out is one step: a cancelled reader loses nothing."""
        if self._disowned:
            return self._disowned.popleft()
        if not self._unread:
            return None
        lbs_id, lease = self._unread.popitem(last=False)
        if lease is not None:
            self._unread_added -= 1
            lease.handed_out = True
            return StreamAdded(lease_of(lease))
        offer = self._offers[lbs_id]
        offer.due = now + offer.pause
        offer.pause = min(offer.pause * 2, self._longest_pause)
        return StreamExpired(offer.payload)

    async def wait(self) -> None:
        """Wait until `take` has something, or until `end`; not at all where something lies unread. One reader at a
        time.

        So a reader may stop taking wherever it likes: it is told again of what is left.
        """
        if self.unread:
            await asyncio.sleep(0)
            return
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    @property
    def being_read(self) -> bool:
        """Whether a reader waits."""
        return self._reader is not None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def end(self) -> None:
        """Wake the reader for the last time."""
        self._wake()


def owner_of(payload: ExpiredStream) -> str:
    """The consumer that an orphan is pending for."""
    return payload.previous_owner or NOBODY
