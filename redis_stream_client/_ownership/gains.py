"""Gains: says in the log, and to the observer, which streams this client owns now, and from whom it has them."""

from collections import Counter
from typing import NamedTuple

from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model import announcement
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import GainedBy
from redis_stream_client._ownership.last_signs import LastSigns
from redis_stream_client._protocol.replies import Delivered

LOGGED = 10
"""The most streams of one dead owner that have a line each at INFO."""

REMEMBERED = 1_000
"""The most dead owners whose lines are counted."""


class Origin(NamedTuple):
    """Where streams come from.

    Attributes:
        how: how this client came by them.
        owner: the consumer from which they were claimed, dead or `NOBODY`; None: nobody had them, or that is not
            known.
    """

    how: GainedBy
    owner: str | None = None

    @property
    def previous(self) -> str | None:
        """The dead consumer from which they were claimed."""
        return None if self.owner == NOBODY else self.owner

    @property
    def died(self) -> int:
        """The attempt of a dead owner: it counts even if it left no record."""
        return int(self.previous is not None)

    @property
    def given_back(self) -> bool:
        """Whether their last owner has given them back."""
        return self.owner == NOBODY


ANNOUNCED = Origin("announced")
FOUND = Origin("audit")


class _FenceOf:
    """The fence of a lease, made only if the line is written: a lease keeps its text from then on."""

    __slots__ = ("_lease",)

    def __init__(self, lease: LeaseState) -> None:
        self._lease = lease

    def __str__(self) -> str:
        return self._lease.fence_text


class Gains:
    """Tells of streams that were gained: each with its fence, and the owner from which it comes.

    What is announced, or was released, is told at DEBUG: a busy fleet gains thousands of these. Of what is claimed
    from one dead owner, the first `LOGGED` streams are told at INFO, the rest at DEBUG. After a take-over
    `claimed` counts these in one line.

    Args:
        log: the log of the consumer.
        observation: is told of each gain.
        last_signs: since when dead owners are dead. Given with `observation`.
    """

    def __init__(
        self, *, log: Log, observation: Observation | None = None, last_signs: LastSigns | None = None
    ) -> None:
        self._log = log
        self._observation = observation
        self._last_signs = last_signs
        self._named = Counter[str]()  # of each dead owner: how many streams have a line
        self._unnamed = Counter[str]()  # how many have none since `claimed`

    def gained(self, lease: LeaseState, origin: Origin, entry: Delivered) -> None:
        """This client owns a stream."""
        silent_for: float | None = None
        if self._observation is not None:
            silent_for = self._silent_for(origin, entry)
        if origin.previous is None:
            how = _RELEASED if origin.given_back else origin.how
            self._log.debug("gained %s (fence %s): %s", lease.stream, _FenceOf(lease), how, about=lease)
        else:
            self._tell(lease, origin.previous)
        if self._observation is not None:
            carrier = announcement.carrier_of(entry.fields)
            self._observation.gained(
                lease, origin.how, previous=origin.previous, silent_for=silent_for, carrier=carrier
            )

    def claimed(self, owner: str) -> None:
        """A number of streams was claimed from this owner. Say how many have no line."""
        if unnamed := self._unnamed.pop(owner, 0):
            self._log.info("gained %d more streams from %s", unnamed, owner, extra={"previous_owner": owner})

    def _tell(self, lease: LeaseState, previous: str) -> None:
        tell = self._log.info
        if self._named[previous] < LOGGED:
            if len(self._named) > REMEMBERED:
                self._named.clear()
                self._unnamed.clear()
            self._named[previous] += 1
        else:
            self._unnamed[previous] += 1
            tell = self._log.debug
        whose = (lease.stream, _FenceOf(lease), previous)
        tell("gained %s (fence %s) from %s", *whose, about=lease, extra={"previous_owner": previous})

    def _silent_for(self, origin: Origin, entry: Delivered) -> float | None:
        if origin.given_back:
            return entry.idle_ms / 1000 if entry.idle_ms is not None else None
        if origin.previous is None or self._last_signs is None:
            return None
        self._last_signs.found_dead(origin.previous)
        return self._last_signs.silent_for(origin.previous)


_RELEASED = "it was released"
