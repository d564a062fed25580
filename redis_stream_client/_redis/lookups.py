"""Look-ups that may be slow and that connecting waits for: addresses of host names, and credentials."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task

T = TypeVar("T")

REUSE = 3.0  # an answer that took t seconds is used again for REUSE * t seconds, so a quick look-up is repeated
LONGEST_REUSE = 30.0  # seconds
ABANDON = 5.0  # seconds for which a look-up goes on when nobody waits; the next attempt may need it


class Lookup(Generic[T]):
    """One look-up, shared by all who need its answer at the same time.

    It goes on if a caller gives up. So the next attempt waits for the same answer, and does not start from zero.
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
        """Note that the answer was of no use: look up again the next time."""
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
            asking.exception()  # marks it as retrieved, even if nobody waits

    def _abandon(self, asking: "asyncio.Task[T]") -> None:
        if not self._waiting and not asking.done():
            asking.cancel()


def _is_good(asked: "asyncio.Task[Any]", until: float) -> bool:
    return not asked.cancelled() and asked.exception() is None and clock.now() <= until


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run blocking work in its own daemon thread.

    It does not use the default executor of the event loop. ``asyncio.to_thread`` of the user may fill that, and
    then no connection could be opened.
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
        except Exception as error:  # noqa: BLE001 - any error goes to the waiter
            failure = error
        except BaseException as error:  # noqa: BLE001 - it must end only this thread
            failure = RuntimeError(repr(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
