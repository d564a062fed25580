"""What happened between two looks at a fleet, in words."""

from collections.abc import Iterator, Sequence

from redis_stream_client import FleetMember, FleetStatus
from redis_stream_client.cli.names import shown_name
from redis_stream_client.terminal.glyphs import Glyphs
from redis_stream_client.terminal.text import plural, printable

NAMED = 4
"""Members of one kind that are named; the others are counted."""


def movements(before: FleetStatus, now: FleetStatus, glyphs: Glyphs) -> Iterator[str]:
    """One sentence for each kind of change; nothing, if nothing changed."""
    old = {member.id: member for member in before.members}
    new = {member.id: member for member in now.members}
    yield from _told("joined", [member for member in now.members if member.alive and member.id not in old])
    changed = [(old[member.id], member) for member in now.members if member.id in old]
    ended = [new for old, new in changed if old.alive and not new.alive]
    yield from _told("died", [member for member in ended if member.leases], with_streams=True)
    gone = [member for member in before.members if member.alive and member.id not in new]  # by whatever way
    yield from _told("gone", gone + [member for member in ended if not member.leases])
    yield from _told("came back", [new for old, new in changed if new.alive and not old.alive])
    yield from _told("draining", [new for old, new in changed if new.draining and not old.draining])
    moved = {
        id: change
        for id in [*new, *(id for id in old if id not in new)]
        if (change := _leases(new.get(id)) - _leases(old.get(id)))
    }
    if moved:
        ordered = sorted(moved, key=lambda id: (-abs(moved[id]), id))
        named = [f"{shown_name(id)} {glyphs.signed(moved[id])}" for id in ordered[:NAMED]]
        yield f"streams: {', '.join(named)}{_others(len(moved))}"
    if now.paused is not None and (before.paused is None or before.paused.reason != now.paused.reason):
        yield f"paused: {printable(now.paused.reason)}"
    if before.paused is not None and now.paused is None and all(part.what != "pause" for part in now.unread):
        yield "resumed"
    letters = (now.dead_letters or 0) - (before.dead_letters or 0)
    if None not in (now.dead_letters, before.dead_letters) and letters > 0:
        yield f"{plural(letters, 'new dead letter')}"


def _told(what: str, members: Sequence[FleetMember], *, with_streams: bool = False) -> Iterator[str]:
    if not members:
        return
    ordered = sorted(members, key=lambda member: (-member.leases, member.id))
    names = ", ".join(shown_name(member.id) for member in ordered[:NAMED])
    streams = sum(member.leases for member in members)
    held = f" with {plural(streams, 'stream')}" if with_streams and streams else ""
    yield f"{what}: {names}{_others(len(members))}{held}"


def _others(count: int) -> str:
    return f" and {plural(count - NAMED, 'other')}" if count > NAMED else ""


def _leases(member: FleetMember | None) -> int:
    return 0 if member is None else member.leases
