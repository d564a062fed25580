"""Answers that connecting waits for and that may be slow: addresses of names, and credentials."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task

T = TypeVar("T")

REUSE = 3.0  # an answer is used again for so many times the seconds that it took: a quick one is asked for anew
LONGEST_REUSE = 30.0  # seconds
ABANDON = 5.0  # seconds that a question goes on when nobody waits any more: the next attempt may


class Lookup(Generic[T]):
    """One question, asked once for all who want its answer at the same time.

    It outlives those who are less patient than its source is slow: the next attempt waits for the same answer,
    and does not begin from zero.
    """

    def __init__(self, what: str, source: Callable[[], Awaitable[T]]) -> None:
        self._what = what
        self._source = source
        self._asking: asyncio.Task[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = 0
        self._good_until = 0.0

    async def get(self) -> T:
        """The answer. Raises whatever the source raises, and ``RuntimeError`` if that was cancelled."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or loop is not self._loop or (asking.done() and not _is_good(asking, self._good_until)):
            asking = self._ask(loop)
        self._waiting += 1
        try:
            await asyncio.wait((asking,))
        finally:
            self._waiting -= 1
            if asking is self._asking and not asking.done() and not self._waiting:
                loop.call_later(ABANDON, self._abandon, asking)
        if asking.cancelled():
            raise RuntimeError(f"{self._what} was cancelled")
        return asking.result()

    def doubt(self) -> None:
        """The answer led nowhere: ask anew the next time."""
        if self._asking is not None and self._asking.done():
            self._asking = None

    def _ask(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Task[T]":
        self._loop = loop
        self._waiting = 0
        self._asking = start_task(self._answer(), f"redis_stream_client {self._what}")
        self._asking.add_done_callback(self._answered)
        return self._asking

    async def _answer(self) -> T:
        asked_at = clock.now()
        answer = await self._source()
        now = clock.now()
        self._good_until = now + min(LONGEST_REUSE, REUSE * (now - asked_at))
        return answer

    def _answered(self, asking: "asyncio.Task[T]") -> None:
        if not asking.cancelled():
            asking.exception()  # counts as seen, also when nobody waits

    def _abandon(self, asking: "asyncio.Task[T]") -> None:
        if not self._waiting and not asking.done():
            asking.cancel()


def _is_good(asked: "asyncio.Task[Any]", until: float) -> bool:
    return not asked.cancelled() and asked.exception() is None and clock.now() <= until


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run what blocks in a daemon thread of its own.

    Not in the event loop's default executor: the user's ``asyncio.to_thread`` fills that, and then no connection
    could be opened.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except StopIteration as error:  # a future cannot hold it
            failure = RuntimeError(repr(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
            failure = error
        except BaseException as error:  # noqa: BLE001 - it ends this thread, and no other
            failure = RuntimeError(repr(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
