"""What the user sees while it runs: a live table on a terminal, plain lines everywhere else."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from redis_stream_client.terminal import screen
from redis_stream_client.terminal.glyphs import glyphs_for
from redis_stream_client.terminal.members import MemberRow, members_table
from redis_stream_client.terminal.screen import LiveScreen

SYMBOLS = "123456789ABCDEFGHIJKLMNOPQRSTUV"
"""What stands for the streams of each worker."""

FINISHED = 0
ORPHAN = -1
ASLEEP = -2

COLORS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")
COLUMNS = ("lock", "effects", "taken over", "refused")
NAME_WIDTH = 10


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
        self._live = LiveScreen()
        self._glyphs = glyphs_for(sys.stdout.encoding)
        self._started = time.monotonic()
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
        self._live.show(self._draw)
        self._live.__exit__(kind, error, traceback)

    def news(self, text: str) -> None:
        """Add it below the table, which is drawn when `show` is called."""
        self._live.news(f"{time.monotonic() - self._started:6.2f} s  {text}")
        if not self._view.rows:
            self._live.show(self._draw)

    def show(self, view: View) -> None:
        """Redraw the table."""
        self._view = view
        self._live.show(self._draw)

    def summary(self, lines: Sequence[str], verdict: str, *, passed: bool) -> None:
        """Print it below what was shown last."""
        self._live.stop()
        console = self._live.console
        console.print("", *lines, *([""] if lines else []), sep="\n", markup=False, soft_wrap=True)
        console.print(verdict, style="bold green" if passed else "bold red", markup=False)

    def _draw(self, width: int, height: int) -> RenderableType:
        rows = [
            MemberRow(
                name=f"{_symbol(row.number)} {row.name}",
                state=row.state,
                streams=row.streams,
                cells=(row.lock, *(f"{count:,}" for count in (row.effects, row.taken, row.refused))),
                style=_color(row.number),
            )
            for row in self._view.rows
        ]
        shared = Table.grid()
        for name, numbers in (("streams", self._view.owners), ("sessions", self._view.sessions)):
            if numbers or name == "streams":
                shared.add_row(f"{name:{NAME_WIDTH}}", self._map(numbers))
        return Group(members_table(rows, COLUMNS, width, self._glyphs, of="worker"), Text(), shared)

    def _map(self, numbers: Sequence[int]) -> Text:
        """Each stream as its owner's symbol."""
        not_owned = {FINISHED: self._glyphs.done, ORPHAN: self._glyphs.orphan, ASLEEP: self._glyphs.asleep}
        text = Text(overflow="fold")
        for number in numbers:
            if number in not_owned:
                text.append(not_owned[number], "dim")
            else:
                text.append(_symbol(number), _color(number))
        return text


def choose(output: TextIO) -> Display:
    """The live table, if there is a terminal to show it on and nobody said no."""
    screen.tolerate(output)
    if os.environ.get("NO_COLOR") or not screen.is_live(output):
        return PlainDisplay()
    return LiveDisplay()


def _symbol(number: int) -> str:
    return SYMBOLS[(number - 1) % len(SYMBOLS)]


def _color(number: int) -> str:
    return COLORS[(number - 1) % len(COLORS)]
