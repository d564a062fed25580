"""``status --watch``: a fleet that is looked at again and again."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Generator, Iterator
from datetime import datetime
from typing import NoReturn, Protocol

from rich.console import RenderableType
from rich.text import Text

from redis_stream_client import Fleet, FleetStatus, RedisStreamClientError
from redis_stream_client.cli.document import document
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.fleet_view import View, headline, lag_line, pause_line, picture
from redis_stream_client.cli.movements import movements
from redis_stream_client.cli.tally import Tally
from redis_stream_client.terminal import screen
from redis_stream_client.terminal.glyphs import Glyphs, glyphs_for
from redis_stream_client.terminal.screen import LiveScreen
from redis_stream_client.terminal.text import printable

LONG_WALK = 3.0
"""Seconds after which it is said how far a walk through the streams has come."""

TICK = 1.0
"""Seconds after which a picture is drawn anew because what it shows has grown older."""


class Watched:
    """What is known of the fleet."""

    def __init__(self, status: FleetStatus) -> None:
        self.status: FleetStatus = status
        self.seen: float = time.monotonic()
        self.before: FleetStatus | None = status
        self.tally: Tally | None = None
        self.tallied: float = 0.0
        """When the last walk through the streams ended."""
        self.walk: Tally | None = None
        self.walk_began: float = 0.0
        self.outage: str = ""

    def looked(self, status: FleetStatus) -> None:
        """There is a new look."""
        self.before, self.status, self.seen = self.status, status, time.monotonic()
        self.outage = ""

    def failed(self, why: str) -> bool:
        """There is none. Whether that is news."""
        news = not self.outage
        self.outage = why
        return news

    def view(self) -> View:
        """What is to be shown."""
        return View(self.status, self.before, self.tally, self._measured(), tuple(self._notes()))

    def _notes(self) -> Iterator[Text]:
        if self.outage:
            ago = show_duration(time.monotonic() - self.seen)
            yield Text(f"NO ANSWER since the last look, {ago} ago: {printable(self.outage)}", "bold red")

    def _measured(self) -> str:
        now = time.monotonic()
        parts = []
        if self.tally is not None and now - self.tallied >= LONG_WALK:
            parts.append(f"{show_duration(now - self.tallied)} ago")
        if self.walk is not None and now - self.walk_began >= LONG_WALK:
            parts.append(f"looking at all streams, {self.walk.streams:,} so far")
        return ", ".join(parts)


class Output(Protocol):
    """Where the fleet is shown."""

    def show(self, watched: Watched) -> None:
        """There was a look, or none."""
        ...

    def tell(self, what: str) -> None:
        """Something happened."""
        ...

    async def run(self, watched: Watched) -> None:
        """Keep what is shown up to date between the looks."""
        ...


class LiveOutput:
    """A live view in the whole window."""

    def __init__(self, live: LiveScreen, most: int, glyphs: Glyphs) -> None:
        self._live = live
        self._most = most
        self._glyphs = glyphs
        self._resized = asyncio.Event()

    def show(self, watched: Watched) -> None:
        """Draw it."""

        def draw(width: int, height: int) -> RenderableType:
            return picture(watched.view(), width, self._glyphs, most=self._most, height=height)

        self._live.show(draw)

    def tell(self, what: str) -> None:
        """Add it to the news."""
        self._live.news(f"{datetime.now():%H:%M:%S}  {what}")

    async def run(self, watched: Watched) -> None:
        """Draw again when the window has another size, and as time goes by."""
        if hasattr(signal, "SIGWINCH"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._resized.set)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._resized.wait()
            self._resized.clear()
            self.show(watched)


class PlainOutput:
    """Some lines for each look."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def show(self, watched: Watched) -> None:
        """Print how things are, and what has happened."""
        now = f"{datetime.now():%H:%M:%S}"
        view = watched.view()
        lines = [note.plain for note in view.notes] or [headline(view.status).plain]
        if view.status.paused is not None and not view.notes:
            lines.append(pause_line(view.status).plain)
        if view.tally is not None and not view.notes:
            lines.append(lag_line(view.tally, view.measured).plain)
        for line in [*lines, *self._told]:
            print(f"{now}  {line}")
        self._told.clear()
        sys.stdout.flush()

    def tell(self, what: str) -> None:
        """Print it with the next look."""
        self._told.append(what)

    async def run(self, watched: Watched) -> None:
        """Nothing: lines do not grow old."""


class JsonOutput(PlainOutput):
    """A JSON object for each look; none while Redis does not answer, which standard error says."""

    def show(self, watched: Watched) -> None:
        """Print it."""
        if watched.outage:
            print(f"no answer: {printable(watched.outage, sys.stderr.encoding)}", file=sys.stderr, flush=True)
        else:
            print(json.dumps(document(watched.status, watched.tally)), flush=True)

    def tell(self, what: str) -> None:
        """Nothing: who reads this compares the objects."""


async def watch_fleet(fleet: Fleet, *, interval: float, lag: bool, most: int, as_json: bool) -> int:
    """Look at the fleet until somebody ends it. Raises the errors of the first look."""
    watched = Watched(await fleet.status())
    glyphs = glyphs_for(sys.stdout.encoding)
    with contextlib.ExitStack() as stack:
        ended = stack.enter_context(_ended_by_signals())
        output: Output
        if as_json:
            output = JsonOutput()
        elif screen.is_live(sys.stdout):
            screen.tolerate(sys.stdout)
            output = LiveOutput(stack.enter_context(LiveScreen(whole=True)), most, glyphs)
        else:
            screen.tolerate(sys.stdout)
            output = PlainOutput()
        output.show(watched)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(output.run(watched))
                if lag:
                    tasks.create_task(_measure(fleet, watched, interval))
                await _look(fleet, watched, output, interval, glyphs)
        except BaseExceptionGroup as failures:  # such as a broken pipe, which the caller knows
            raise failures.exceptions[0] from None
        except asyncio.CancelledError:
            if not ended:
                raise
    return 128 + ended[0]


@contextlib.contextmanager
def _ended_by_signals() -> Generator[list[int]]:
    """Have these signals cancel the task, so that the window becomes what it was; the list says which one did."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    ended: list[int] = []

    def end(number: int) -> None:
        ended.append(number)
        task.cancel()

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    with contextlib.ExitStack() as stack:
        for number in numbers:
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, end, number)
                stack.callback(loop.remove_signal_handler, number)
        yield ended


async def _look(fleet: Fleet, watched: Watched, output: Output, interval: float, glyphs: Glyphs) -> NoReturn:
    """Look once for each interval, and say what has happened in between."""
    while True:
        await asyncio.sleep(interval)
        try:
            status = await fleet.status()
        except RedisStreamClientError as error:
            if watched.failed(str(error)):
                output.tell("Redis does not answer")
        else:
            if watched.outage:
                output.tell(f"Redis answers again, after {show_duration(time.monotonic() - watched.seen)}")
            for what in movements(watched.status, status, glyphs):
                output.tell(what)
            watched.looked(status)
        output.show(watched)


async def _measure(fleet: Fleet, watched: Watched, interval: float) -> NoReturn:
    """Go through all streams, again and again, and rest as long as that took, so that it costs a large fleet's
    Redis no more than half of what one walk does."""
    while True:
        watched.walk, watched.walk_began = Tally(), time.monotonic()
        with contextlib.suppress(RedisStreamClientError):  # that there is no answer, `_look` says
            async for stream in fleet.streams():
                watched.walk.add(stream)
            watched.tally, watched.tallied = watched.walk, time.monotonic()
        took = time.monotonic() - watched.walk_began
        watched.walk = None
        await asyncio.sleep(max(interval, took))
