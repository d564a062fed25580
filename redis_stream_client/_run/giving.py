"""Giving: which streams go to a peer that has fewer.

A handler whose stream is to go is drained, as at a deploy. Then the stream is released. This client leaves it to
its peers for a moment, and the one with the fewest takes it.
"""

import asyncio
import random
from collections.abc import Callable, Collection

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.on_their_way import OnTheirWay
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
        self._counters = counters
        self._going = OnTheirWay[HandlerTask]()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def going(self) -> int:
        """How many streams are to go, and still are ours."""
        return len(self._going)

    def give(self, count: int) -> int:
        """Have the handlers of up to `count` streams stop at their next step after a checkpoint. Returns how many
        will."""
        if count <= 0 or not self._may_give():
            return 0
        chosen = self._choose(count)
        for handler_task in chosen:
            self._going.begin(handler_task)
            handler_task.drain()
        self._changed()
        return len(chosen)

    def ended(self, handler_task: HandlerTask) -> None:
        """The work on a stream has ended, and the stream was released, or is lost."""
        if handler_task in self._going:
            self._counters.streams_given += handler_task.lease.lost == "released"
        self._going.ended(handler_task)
        self._changed()

    def stop(self) -> None:
        """Nothing goes to peers any more: the client drains, which concerns all handlers."""
        self._going = OnTheirWay()
        self._changed()

    # Inside.

    def _choose(self, count: int) -> list[HandlerTask]:
        """Those first that wait for an entry: they lose nothing. Then those that have nothing to checkpoint."""
        waiting: list[HandlerTask] = []
        others: list[HandlerTask] = []
        for each in self._at_work:
            if len(waiting) == count:
                return waiting  # there may be thousands
            if each.may_be_given and self._going.able(each):
                (waiting if each.lease.at_rest else others).append(each)
        others.sort(key=lambda each: (each.lease.reading is None, not each.lease.settled, random.random()))
        return waiting + others[: count - len(waiting)]

    def _changed(self) -> None:
        self._counters.streams_going = len(self._going)
        due = self._going.next_overdue
        if self._timer is None and due < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - clock.now()), self._look)
        elif self._timer is not None and due == float("inf"):
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Let the handlers go on that have had their time."""
        self._timer = None
        for handler_task in self._going.overdue():
            handler_task.undrain()
            log.debug("the handler of %s comes to no checkpoint; it keeps its stream", handler_task.lease.stream)
        self._changed()
