"""A fleet as text: what it holds together, and the members that matter most."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from rich.console import Group, RenderableType
from rich.text import Text

from redis_stream_client import FleetMember, FleetStatus
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.names import shown_name
from redis_stream_client.cli.tally import Tally
from redis_stream_client.terminal.glyphs import Glyphs
from redis_stream_client.terminal.members import MemberRow, members_table
from redis_stream_client.terminal.text import plural, printable

COLUMNS = ("behind", "seen", "presence", "host", "pid", "version", "up", "weight", "most")
"""What is said of a member besides, the most important first."""

BESIDE = 2
"""Lines of the table that are no members: the space above it, and its headings."""

LONG_WAIT = 10.0
"""Seconds after which an announcement that nobody took looks like trouble."""


@dataclass(frozen=True, slots=True)
class View:
    """What is shown.

    Attributes:
        status: the fleet.
        before: the fleet at the look before, to show who gained and who lost; None: there was none.
        tally: how far the streams are behind; None: nobody has looked.
        measured: what to say about the tally's age, or why there is none yet.
        notes: what else is to be said, at the top.
    """

    status: FleetStatus
    before: FleetStatus | None = None
    tally: Tally | None = None
    measured: str = ""
    notes: Sequence[Text] = ()


def picture(view: View, width: int, glyphs: Glyphs, *, most: int, height: int | None = None) -> RenderableType:
    """The view, at most `width` columns wide.

    Args:
        view: what is shown.
        width: of the terminal.
        glyphs: the characters that it can show.
        most: the most members.
        height: of the terminal, which may have room for fewer; None: it scrolls.
    """
    status = view.status
    head = [*view.notes, headline(status)]
    if status.paused is not None:
        head.append(pause_line(status))
    if view.tally is not None:
        head.append(lag_line(view.tally, view.measured))
    elif view.measured:
        head.append(Text(view.measured, "dim"))
    head += [Text(f"not read: {unread.what}: {printable(unread.why)}", "yellow") for unread in status.unread]
    parts: list[RenderableType] = [*head]
    if status.members:
        if height is not None:
            room = height - sum(ceil(text.cell_len / width) for text in head) - BESIDE
            most = max(1, min(most, room if len(status.members) <= room else room - 1))
        shown = matter_most(status.members, most)
        before = {member.id: member.leases for member in view.before.members} if view.before is not None else None
        rows = [_row(member, view, before) for member in shown]
        parts += [Text(), members_table(rows, COLUMNS, width, glyphs, changes=view.before is not None)]
        if rest := left_out(status.members, shown):
            parts.append(Text(rest, "dim"))
    return Group(*parts)


def headline(status: FleetStatus) -> Text:
    """The fleet in one sentence."""
    dead = sum(not member.alive for member in status.members)
    text = Text(printable(status.service), "bold")
    text.append(f"  {plural(len(status.members) - dead, 'member')}", "not bold")
    if dead:
        text.append(f", {dead:,} dead", "not bold red")
    text.append(f", {plural(status.owned, 'stream')} owned", "not bold")
    if status.waiting:
        waited = status.oldest_waiting
        since = "" if waited is None else f", the oldest for {show_duration(waited)}"
        late = waited is not None and waited >= LONG_WAIT
        text.append(f", {status.waiting:,} waiting{since}", f"not bold {'red' if late else 'yellow'}")
    if status.orphaned:
        since = "" if status.orphaned_for is None else f", the oldest for {show_duration(status.orphaned_for)}"
        text.append(f", {status.orphaned:,} orphaned{since}", "not bold red")
    if status.dead_letters:
        text.append(f", {plural(status.dead_letters, 'dead letter')}", "not bold red")
    return text


def pause_line(status: FleetStatus) -> Text:
    """That the fleet is paused, since when and why; and how many members have not said so."""
    assert status.paused is not None
    text = Text(f"PAUSED for {show_duration(status.time - status.paused.since)}: ", "bold magenta")
    text.append(printable(status.paused.reason), "not bold")
    others = sum(member.alive and not member.paused for member in status.members)
    if others:
        text.append(f" ({plural(others, 'member')} may still take new streams)", "not bold red")
    return text


def lag_line(tally: Tally, measured: str = "") -> Text:
    """How far the streams are behind, in one sentence."""
    lag = tally.lag()
    if not lag.behind:
        text = Text(f"nothing to read in {plural(lag.streams, 'stream')}")
    else:
        worst = "-" if lag.stream is None else printable(lag.stream)
        entries = plural(lag.entries, "entry", "entries")
        text = Text(f"{show_duration(lag.behind)} behind in {worst}, ")
        text.append(f"{'more than ' if lag.more else ''}{entries} to read in {plural(lag.streams, 'stream')}")
    if lag.unread:
        text.append(f", {lag.unread:,} could not be read", "red")
    if measured:
        text.append(f" ({measured})", "dim")
    return text


def matter_most(members: Sequence[FleetMember], most: int) -> list[FleetMember]:
    """At most so many: dead ones that still have streams, those that drain, then those with the most streams; by
    their ids."""
    if len(members) > most:
        members = sorted(members, key=_rank)[:most]
    return sorted(members, key=lambda member: _natural(member.id))


def _natural(id: str) -> list[str | int]:
    """The order of people: 2 before 10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", id))]


def left_out(members: Sequence[FleetMember], shown: Sequence[FleetMember]) -> str:
    """What is not shown, as a sentence; empty: nothing."""
    ids = {member.id for member in shown}
    rest = [member for member in members if member.id not in ids]
    if not rest:
        return ""
    dead = sum(not member.alive for member in rest)
    streams = sum(member.leases for member in rest)
    others = f"and {plural(len(rest), 'more member')} with {plural(streams, 'stream')}"
    return f"{others}, {dead:,} of them dead" if dead else others


def _rank(member: FleetMember) -> tuple[bool, bool, int, str]:
    return member.alive or not member.leases, not member.draining, -member.leases, member.id


def _row(member: FleetMember, view: View, before: Mapping[str, int] | None) -> MemberRow:
    return MemberRow(
        name=shown_name(member.id),
        state=state_of(member),
        streams=member.leases,
        change=0 if before is None else member.leases - before.get(member.id, 0),
        cells=_cells(member, view),
    )


def state_of(member: FleetMember) -> str:
    """One word."""
    if not member.alive:
        return "dead"
    return "draining" if member.draining else "alive"


def _cells(member: FleetMember, view: View) -> list[str]:
    behind = ""
    if view.tally is not None and (lag := view.tally.members.get(member.id)) is not None:
        behind = show_duration(lag)
    up = "" if member.started is None else show_duration(view.status.time - member.started)
    weight = "" if member.weight in (None, 1) else f"{member.weight:g}"
    return [
        behind,
        show_duration(member.last_seen),
        "none" if member.presence is False and member.alive else "",
        "" if member.host is None else printable(member.host),
        "" if member.pid is None else str(member.pid),
        "" if member.version is None else printable(member.version),
        up,
        weight,
        "" if member.max_streams is None else f"{member.max_streams:,}",
    ]
