"""Giving: which streams go to a peer that has fewer.

A handler whose stream is to go is drained, as at a deploy. Then the stream is released. This client leaves it to
its peers for a moment, and the one with the fewest takes it.
"""

import random
from collections.abc import Callable, Collection

from redis_stream_client._consumer.departures import Departures
from redis_stream_client._model.logs import log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._run.handler_task import HandlerTask


class Giving:
    """Gives streams away, when the balancer says how many.

    Args:
        at_work: the handler tasks of this client.
        may_give: whether this is a time to give anything away.
        counters: how many were given is counted here.
    """

    def __init__(
        self, at_work: Collection[HandlerTask], *, may_give: Callable[[], bool], counters: Counters
    ) -> None:
        self._at_work = at_work
        self._may_give = may_give
        self._departures = Departures[HandlerTask](counters, self._stays)

    @property
    def going(self) -> int:
        """How many streams are to go, and still are ours."""
        return len(self._departures)

    def give(self, count: int) -> int:
        """Have the handlers of up to `count` streams stop at their next step after a checkpoint. Returns how many
        will."""
        if count <= 0 or not self._may_give():
            return 0
        chosen = self._choose(count)
        self._departures.begin(chosen)
        for handler_task in chosen:
            handler_task.drain()
        return len(chosen)

    def ended(self, handler_task: HandlerTask) -> None:
        """The work on a stream has ended, and the stream was released, or is lost."""
        self._departures.ended(handler_task, released=handler_task.lease.lost == "released")

    def stop(self) -> None:
        """Nothing goes to peers any more: the client drains, which concerns all handlers."""
        self._departures.clear()

    # Inside.

    def _choose(self, count: int) -> list[HandlerTask]:
        """Those first that wait for an entry: they lose nothing. Then those that have nothing to checkpoint."""
        waiting: list[HandlerTask] = []
        others: list[HandlerTask] = []
        for each in self._at_work:
            if len(waiting) == count:
                return waiting  # there may be thousands
            if each.may_be_given and self._departures.able(each):
                (waiting if each.lease.at_rest else others).append(each)
        others.sort(key=lambda each: (each.lease.reading is None, not each.lease.settled, random.random()))
        return waiting + others[: count - len(waiting)]

    def _stays(self, handler_task: HandlerTask) -> None:
        """Let a handler go on that has had its time."""
        handler_task.undrain()
        log.debug("the handler of %s comes to no checkpoint; it keeps its stream", handler_task.lease.stream)
