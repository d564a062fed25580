"""The table of members: a line for each, with a bar for its streams."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from redis_stream_client.terminal.glyphs import Glyphs
from redis_stream_client.terminal.text import clip_middle

STATES = {
    "alive": "green",
    "dead": "red",
    "killed": "red",
    "frozen": "blue",
    "woken": "yellow",
    "draining": "magenta",
}
"""The color of each state."""

GAP = 2
WIDEST_BAR = 40
NARROWEST_BAR = 4
NARROWEST_NAME = 12
WHOLE_NAME = 28
"""A name that is not longer is not cut to make room for a column."""

STATE, MOVE = 8, 4
"""The least widths of a state and a change, so that the columns behind do not jump aside for a longer one."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member.

    Attributes:
        name: what it is called; its middle is left out where there is no room.
        state: one word; see `STATES`.
        streams: how many it owns.
        change: how many more than at the last look.
        cells: what the columns behind say, the most important first: where there is no room, the last ones are
            left out.
        style: of its name and its bar.
    """

    name: str
    state: str
    streams: int
    change: int = 0
    cells: Sequence[str] = ()
    style: str = ""


def members_table(
    rows: Sequence[MemberRow],
    titles: Sequence[str],
    width: int,
    glyphs: Glyphs,
    *,
    of: str = "member",
    changes: bool = False,
) -> Table:
    """The table, at most `width` columns wide. Bars, long names, columns and all names give way, in that order.

    Args:
        rows: the members.
        titles: the headings of `MemberRow.cells`.
        width: of the terminal.
        glyphs: the characters that it can show.
        of: the heading of the names.
        changes: have a column for `MemberRow.change`.
    """
    counts = [f"{row.streams:,}" for row in rows]
    moves = [glyphs.signed(row.change) for row in rows]
    state = max(STATE, _widest([row.state for row in rows]))
    fixed = state + max(len("streams"), _widest(counts)) + 2 * GAP
    move = max(MOVE, _widest(moves)) if changes else 0
    fixed += move + GAP if changes else 0
    name = max(len(of), _widest([row.name for row in rows]))
    kept = _columns(rows, titles, width - fixed - min(name, WHOLE_NAME) - GAP - NARROWEST_BAR)
    fixed += sum(_width_of(rows, titles, column) + GAP for column in kept)
    name = max(NARROWEST_NAME, min(name, width - fixed - GAP - NARROWEST_BAR))
    bar = max(0, min(WIDEST_BAR, width - fixed - name - GAP))
    most = max((row.streams for row in rows), default=0)

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False)
    table.add_column(of, no_wrap=True)
    table.add_column("state", min_width=state, no_wrap=True)
    table.add_column("streams", justify="right", no_wrap=True)
    if changes:
        table.add_column("", justify="right", min_width=move, no_wrap=True)
    table.add_column("", min_width=bar, no_wrap=True)
    for column in kept:
        table.add_column(titles[column], justify="right", no_wrap=True)
    for row, count, change in zip(rows, counts, moves, strict=True):
        table.add_row(
            Text(clip_middle(row.name, name), style=row.style),
            Text(row.state, style=STATES.get(row.state, "")),
            count,
            *([Text(change, style="green" if row.change > 0 else "red")] if changes else []),
            Text(glyphs.bar(row.streams, most, bar), style=row.style or STATES.get(row.state, "")),
            *(Text(row.cells[column]) for column in kept),
        )
    return table


def _widest(texts: Sequence[str]) -> int:
    return max(map(len, texts), default=0)


def _width_of(rows: Sequence[MemberRow], titles: Sequence[str], column: int) -> int:
    return max(len(titles[column]), _widest([row.cells[column] for row in rows]))


def _columns(rows: Sequence[MemberRow], titles: Sequence[str], room: int) -> list[int]:
    """Those that fit into `room`, and say something."""
    kept = []
    for column in range(len(titles)):
        if not any(row.cells[column] for row in rows):
            continue
        room -= _width_of(rows, titles, column) + GAP
        if room < 0:
            break
        kept.append(column)
    return kept
