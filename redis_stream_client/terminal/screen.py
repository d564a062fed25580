"""A screen that changes in place, and whether there is a terminal to show it on."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from io import TextIOWrapper
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.text import Text

FEWEST_NEWS = 3
MOST_NEWS = 12

Draw = Callable[[int, int], RenderableType]
"""Makes a picture of at most so many columns and lines."""


def tolerate(output: TextIO) -> None:
    """Have an output replace what it cannot encode: an arrow is no reason to fail."""
    if isinstance(output, TextIOWrapper):
        output.reconfigure(errors="replace")


def is_live(output: TextIO) -> bool:
    """Whether a picture can change in place there: it is a terminal that can move its cursor, and not the log of
    a continuous integration."""
    return output.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and not os.environ.get("CI")


class LiveScreen(AbstractContextManager["LiveScreen"]):
    """A picture that is drawn anew for each change, and below it the latest news, as many as have room.

    Args:
        whole: take the whole window, and give it back in the end; otherwise the picture stands below what was
            printed before. Only a whole window keeps its shape when its size changes.
        most_news: how many pieces of news are kept.
    """

    def __init__(self, *, whole: bool = False, most_news: int = MOST_NEWS) -> None:
        self.console: Console = Console(highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, screen=whole, vertical_overflow="crop")
        self._spare = 0 if whole else 1  # a line for the cursor
        self._news: deque[str] = deque(maxlen=most_news)

    def __enter__(self) -> "LiveScreen":
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def stop(self) -> None:
        """Leave the picture as it is; what is printed next stands below it."""
        self._live.stop()

    def news(self, text: str) -> None:
        """Something happened: it is shown with the next picture."""
        self._news.append(text)

    def show(self, draw: Draw) -> None:
        """Draw the picture in the window's present size."""
        width, height = self._measured()
        height -= self._spare
        kept = min(len(self._news), FEWEST_NEWS)
        picture = draw(width, max(1, height - kept - 1 if kept else height))
        lines = self.console.render_lines(picture, self.console.options.update_width(width), pad=False)
        room = min(len(self._news), max(0, height - len(lines) - 1))
        news = Text("\n".join([*self._news][-room:] if room else []), no_wrap=True, overflow="ellipsis")
        self._live.update(Group(picture, Text(), news) if room else picture, refresh=True)

    def _measured(self) -> tuple[int, int]:
        """The window's columns and lines. The console alone would ask standard input first."""
        with suppress(OSError, ValueError):
            size = ConsoleDimensions(*os.get_terminal_size(self.console.file.fileno()))
            if all(size):  # some terminals do not say
                self.console.size = size
        return self.console.size
