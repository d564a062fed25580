"""What the user sees while it runs: a live table on a terminal, plain lines everywhere else."""

import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from redis_stream_client.demo.settings import INSTALL, CannotRun

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

SYMBOLS = "123456789ABCDEFGHIJKLMNOPQRSTUV"
"""What stands for the streams of each worker."""

FINISHED = 0
ORPHAN = -1
ASLEEP = -2
NOT_OWNED = {FINISHED: "✓", ORPHAN: "·", ASLEEP: "z"}

COLORS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")
STATES = {"alive": "green", "killed": "red", "frozen": "blue", "woken": "yellow", "draining": "magenta"}
NAME_WIDTH = 10
NEWS_LINES = 12
FEWEST_NEWS_LINES = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One worker."""

    number: int
    name: str
    state: str
    lock: str
    streams: int
    effects: int
    taken: int
    refused: int


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown.

    Attributes:
        rows: the workers.
        owners: for each stream its owner's number, or else one of `FINISHED` and `ORPHAN`.
        sessions: for each session its owner's number, or else one of `ASLEEP` and `ORPHAN`.
    """

    rows: Sequence[Row]
    owners: Sequence[int]
    sessions: Sequence[int] = ()


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a run."""

    def news(self, text: str) -> None:
        """Something happened."""
        ...

    def show(self, view: View) -> None:
        """This is how things are."""
        ...

    def summary(self, lines: Sequence[str], verdict: str, *, passed: bool) -> None:
        """This is how it ended."""
        ...


class PlainDisplay:
    """One line for each piece of news."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def news(self, text: str) -> None:
        """Print it, with the time."""
        print(f"{time.monotonic() - self._started:6.2f} s  {text}", flush=True)

    def show(self, view: View) -> None:
        """Nothing: a table does not scroll."""

    def summary(self, lines: Sequence[str], verdict: str, *, passed: bool) -> None:
        """Print it."""
        print("", *lines, *([""] if lines else []), verdict, sep="\n", flush=True)


class LiveDisplay:
    """A table that changes in place, and below it the last pieces of news."""

    def __init__(self) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            raise CannotRun(f"the live table needs rich: {INSTALL}, or set NO_COLOR=1 for plain lines") from None
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)
        self._started = time.monotonic()
        self._news: deque[str] = deque(maxlen=NEWS_LINES)
        self._view = View((), ())

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._refresh()
        self._live.__exit__(kind, error, traceback)

    def news(self, text: str) -> None:
        """Add it below the table, which is drawn when `show` is called."""
        self._news.append(f"{time.monotonic() - self._started:6.2f} s  {text}")
        if not self._view.rows:
            self._refresh()

    def show(self, view: View) -> None:
        """Redraw the table."""
        self._view = view
        self._refresh()

    def summary(self, lines: Sequence[str], verdict: str, *, passed: bool) -> None:
        """Print it below what was shown last."""
        self._live.stop()
        self._console.print("", *lines, *([""] if lines else []), sep="\n", markup=False, soft_wrap=True)
        self._console.print(verdict, style="bold green" if passed else "bold red", markup=False)

    def _refresh(self) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table, shared, lines = self._table(), Table.grid(), 0
        for name, numbers in (("streams", self._view.owners), ("sessions", self._view.sessions)):
            if numbers or name == "streams":
                shared.add_row(f"{name:{NAME_WIDTH}}", _map(numbers))
                lines += 1 + len(numbers) // max(1, self._console.width - NAME_WIDTH)
        taken = len(self._view.rows) + lines + 5
        room = min(NEWS_LINES, max(FEWEST_NEWS_LINES, self._console.height - taken))
        news = Text("\n".join([*self._news][-room:]), no_wrap=True, overflow="ellipsis")
        self._live.update(Group(table, Text(), shared, Text(), news), refresh=True)

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("worker")
        for title, width in (("state", 8), ("lock", 4)):
            table.add_column(title, min_width=width)
        for title in ("streams", "effects", "taken over", "refused"):
            table.add_column(title, justify="right")
        for row in self._view.rows:
            table.add_row(
                Text(f"{_symbol(row.number)} {row.name}", style=_color(row.number)),
                Text(row.state, style=STATES.get(row.state, "")),
                row.lock,
                *(f"{count:,}" for count in (row.streams, row.effects, row.taken, row.refused)),
            )
        return table


def choose(output: TextIO) -> Display:
    """The live table, if there is a terminal to show it on and nobody said no. Raises `CannotRun`."""
    if isinstance(output, TextIOWrapper):
        output.reconfigure(errors="replace")  # an arrow that cannot be encoded is no reason to fail
    plain = os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") in (None, "dumb")
    if plain or not output.isatty():
        return PlainDisplay()
    return LiveDisplay()


def _map(numbers: Sequence[int]) -> "Text":
    """Each stream as its owner's symbol."""
    from rich.text import Text

    text = Text(overflow="fold")
    for number in numbers:
        if number in NOT_OWNED:
            text.append(NOT_OWNED[number], "dim")
        else:
            text.append(_symbol(number), _color(number))
    return text


def _symbol(number: int) -> str:
    return SYMBOLS[(number - 1) % len(SYMBOLS)]


def _color(number: int) -> str:
    return COLORS[(number - 1) % len(COLORS)]
