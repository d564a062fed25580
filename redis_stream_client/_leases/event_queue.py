"""The queue of events that the user has not read yet, and the offers. Pure state: no I/O, no clock of its own.

The queue drops no event (guarantee G4). If a stream is lost before the user has read its `StreamAdded`, that event
goes too, and the user hears of neither. There is one offer for each stream, with its newest state, and not one for
each notification.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from redis_stream_client._leases.events import (
    Event,
    ExpiredStream,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamWanted,
)
from redis_stream_client._leases.lease import Lease, lease_of
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.keys import NOBODY


@dataclass(slots=True)
class _Offer:
    """An orphan (a stream without a live owner) that the client offers to the user, now or later."""

    payload: ExpiredStream
    pause: float  # seconds from reading the offer to the next one
    due: float | None = None  # time of the next offer; None while it is unread


class EventQueue:
    """Unread events, in the order in which the user gets them: losses first, because they mean *stop*, then what
    peers want."""

    def __init__(self, first_pause: float, longest_pause: float) -> None:
        self._first_pause = first_pause
        self._longest_pause = max(first_pause, longest_pause)
        self._disowned: deque[StreamDisowned] = deque()
        self._wanted: dict[LeaseState, None] = {}  # in this order
        self._unread: OrderedDict[str, LeaseState | None] = OrderedDict()  # by LBS id; None: an offer
        self._unread_added = 0
        self._offers: dict[str, _Offer] = {}
        self._reader: asyncio.Future[None] | None = None

    # What the client's tasks put in.

    def added(self, lease: LeaseState) -> None:
        """Queue the event of a new stream."""
        self.withdraw(lease.lbs_id)
        self._unread[lease.lbs_id] = lease
        self._unread_added += 1
        self.wake()

    def lost(self, lease: LeaseState, reason: LossReason) -> None:
        """Queue the event of a lost lease, if the user has received that lease."""
        self.unadd(lease)
        if lease.handed_out:
            self._disowned.append(StreamDisowned(lease_of(lease), reason))
            self.wake()

    def want(self, lease: LeaseState) -> None:
        """Queue the event that a peer could take this stream. It is withdrawn when the lease ends."""
        self._wanted[lease] = None
        self.wake()

    def unwant(self, lease: LeaseState) -> None:
        """Withdraw this event, if it is unread."""
        self._wanted.pop(lease, None)

    def unadd(self, lease: LeaseState) -> None:
        """Remove the unread events of a lease that has ended."""
        self.unwant(lease)
        if self._unread.get(lease.lbs_id) is lease:
            del self._unread[lease.lbs_id]
            self._unread_added -= 1

    def forget(self, lease: Lease) -> None:
        """Remove the event about the loss of a lease that the user never received."""
        self._disowned = deque(event for event in self._disowned if event.payload is not lease)

    def offer(self, payload: ExpiredStream, now: float, *, wait: float = 0.0) -> bool:
        """Offer an orphan; one that is new, after `wait` seconds, if no peer has taken it by then. Returns whether
        this gives the user a new event."""
        offer = self._offers.get(payload.lbs_id)
        new = payload.lbs_id not in self._unread
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
        else:
            new = False
        if new and wait > 0:
            offer.due = now + wait
            return False
        offer.due = None
        self._unread[payload.lbs_id] = None
        self.wake()
        return True

    def hold_back(self, payload: ExpiredStream, until: float) -> None:
        """Offer an orphan at `until`, if no peer has taken it by then."""
        self._offers[payload.lbs_id] = _Offer(payload, self._first_pause, until)

    def let_go(self, owner: str, now: float) -> None:
        """Hold none of this owner's orphans back any longer."""
        for offer in self._offers.values():
            if offer.due is not None and owner_of(offer.payload) == owner:
                offer.due = min(offer.due, now)

    def withdraw(self, lbs_id: str) -> None:
        """Withdraw the offer of a stream that has an owner again, or is gone."""
        offer = self._offers.pop(lbs_id, None)
        if offer is not None and offer.due is None:
            del self._unread[lbs_id]

    def withdraw_absent(self, owner: str, present: Iterable[str], known: Iterable[str]) -> None:
        """A complete search has found only the orphans `present` of `owner`: withdraw all others of the offers
        that were `known` before the search."""
        still_there = set(present)
        for lbs_id in known:
            offer = self._offers.get(lbs_id)
            if offer and owner_of(offer.payload) == owner and lbs_id not in still_there:
                self.withdraw(lbs_id)

    # What the client's tasks look at.

    @property
    def unread_added(self) -> int:
        """How many `StreamAdded` events are unread."""
        return self._unread_added

    @property
    def unread(self) -> int:
        """How many events are unread."""
        return len(self._disowned) + len(self._wanted) + len(self._unread)

    def offered(self, owner: str) -> list[str]:
        """The LBS ids of all offers of this owner's orphans."""
        return [lbs_id for lbs_id, offer in self._offers.items() if owner_of(offer.payload) == owner]

    def held_back(self, owner: str, now: float) -> list[str]:
        """The LBS ids of this owner's orphans that this client leaves to its peers for now."""
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
        """The next event, or None. Taking it is one synchronous step, so a cancelled reader loses nothing."""
        if self._disowned:
            return self._disowned.popleft()
        if self._wanted:
            wanted = next(iter(self._wanted))
            del self._wanted[wanted]
            return StreamWanted(lease_of(wanted))
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
        """Wait until there is an unread event, or until `end`. Only one reader at a time.

        Returns at once while an event is unread, so a reader may stop taking events at any point.
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

    def wake(self) -> None:
        """Wake the reader, though there may be no event."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def end(self) -> None:
        """Wake the reader for the last time."""
        self.wake()


def owner_of(payload: ExpiredStream) -> str:
    """The consumer that an orphan is pending for."""
    return payload.previous_owner or NOBODY
