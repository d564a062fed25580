"""Giving: which streams go to a peer that has fewer.

A handler whose stream is to go is drained, as at a deploy. Then the stream is released. This client leaves it to
its peers for a moment, and the one with the fewest takes it.
"""

import random
from collections.abc import Callable, Collection

from redis_stream_client._consumer.departures import Departures
from redis_stream_client._model.logs import Log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._run.handler_task import HandlerTask

AT_ONCE = 4
"""Handlers that wait for an entry stop so many at a time. The next one stops when one of these streams is
released, so a stream is without an owner for as long as a few take, and not for as long as hundreds do."""


class Giving:
    """Gives streams away, when the balancer says how many.

    Args:
        at_work: the handler tasks of this client.
        may_give: whether this is a time to give anything away.
        counters: how many were given is counted here.
    """

    def __init__(
        self, at_work: Collection[HandlerTask], *, log: Log, may_give: Callable[[], bool], counters: Counters
    ) -> None:
        self._log = log
        self._at_work = at_work
        self._may_give = may_give
        self._departures = Departures[HandlerTask](counters, self._stays)
        self._stopping: set[HandlerTask] = set()  # those that were in line, and whose turn it is

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
        at_rest = [each for each in chosen if each.lease.at_rest]
        at_work = [each for each in chosen if not each.lease.at_rest]
        self._departures.begin(at_work)
        for handler_task in at_work:
            handler_task.drain(given=True)
        self._departures.line_up(at_rest)
        self._stop_some()
        return len(chosen)

    def give_back(self, handler_task: HandlerTask) -> None:
        """An operator wants this stream to go elsewhere: stop its handler at its next step after a checkpoint."""
        if handler_task.may_be_stopped and handler_task not in self._departures:
            self._departures.begin((handler_task,))
            handler_task.drain(given=True)

    def ended(self, handler_task: HandlerTask) -> None:
        """The work on a stream has ended, and the stream was released, or is lost."""
        self._departures.ended(handler_task, released=handler_task.lease.lost == "released")
        self._stopping.discard(handler_task)
        self._stop_some()

    def stop(self) -> None:
        """Nothing goes to peers any more: the client drains, which concerns all handlers."""
        self._stopping.clear()
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

    def _stop_some(self) -> None:
        while len(self._stopping) < AT_ONCE and (handler_task := self._departures.next()) is not None:
            if handler_task.may_be_given:
                self._stopping.add(handler_task)
                handler_task.drain(given=True)
            else:
                self._departures.ended(handler_task, released=False)

    def _stays(self, handler_task: HandlerTask) -> None:
        """Let a handler go on that has had its time."""
        handler_task.undrain()
        self._stopping.discard(handler_task)
        self._stop_some()
        self._log.debug(
            "the handler of %s comes to no checkpoint; it keeps its stream",
            handler_task.lease.stream,
            about=handler_task.lease,
        )
