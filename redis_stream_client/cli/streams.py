"""The command ``redis-stream-client streams``: one line for each announced stream."""

import dataclasses
import json as json_lib
import shutil
import sys
from typing import Annotated

from cyclopts import Parameter

from redis_stream_client import Fleet, StreamStatus
from redis_stream_client.cli.arguments import count, duration, flag
from redis_stream_client.cli.connection import AnyRedis, run
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.exit_status import OK
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.names import full_name, shown_name
from redis_stream_client.cli.target import Target
from redis_stream_client.terminal.text import clip, clip_middle, printable

HEADINGS = ("STREAM", "OWNER", "BEHIND", "ENTRIES", "DELIVERIES", "FAILURES", "TROUBLE")
WIDE = {"STREAM": 32, "OWNER": 28, "BEHIND": 12, "ENTRIES": 8, "DELIVERIES": 10, "FAILURES": 8, "TROUBLE": 0}
NARROW = {"STREAM": 18, "OWNER": 16, "BEHIND": 10, "TROUBLE": 0}
TINY = {"STREAM": 14, "OWNER": 11, "BEHIND": 10}
"""Widths of the columns. They do not depend on what comes, because lines are written as it comes."""

WIDE_FROM, NARROW_FROM = 120, 60
"""Columns that a terminal must have for them."""

NUMBERS = {"BEHIND", "ENTRIES", "DELIVERIES", "FAILURES"}


def streams(
    *,
    behind: Annotated[
        float | None, duration("only streams that are at least so far behind, and those that cannot be read")
    ] = None,
    owner: Annotated[
        str | None,
        Parameter(
            metavar="CONSUMER",
            help="only streams of this consumer, with or without the `redis-consumer-` that its id begins with",
        ),
    ] = None,
    limit: Annotated[int | None, count("at most so many lines; standard error says if there are more")] = None,
    json: Annotated[bool, flag("print one JSON object a line, with the attributes of `StreamStatus`")] = False,
    target: Target,
) -> int:
    """The announced streams, the oldest announcement first: those that wait, are owned, or are orphaned.

    Lines are written as they come, 250 at a time, and a million streams take about a minute and no more memory
    than a thousand. Streams that sleep are not announced. A dead owner is marked with `!`: a living member
    will claim its stream.

    Exit status: 0 done, 2 it could not be looked at.
    """
    return run(target, lambda redis: _print(redis, target, behind, owner, limit, as_json=json))


async def _print(
    redis: AnyRedis, target: Target, behind: float | None, owner: str | None, limit: int | None, *, as_json: bool
) -> int:
    fleet = Fleet(redis, target.service)
    try:
        if owner is not None:
            owner = full_name(owner, await fleet.status())
        found = fleet.streams(owner=owner, behind=behind)
    except ValueError as error:
        raise Unusable(str(error)) from None
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    written = 0
    async for stream in found:
        if written == limit:
            print(f"only the first {limit:,} were asked for: there are more", file=sys.stderr)
            break
        if as_json:
            print(json_lib.dumps(dataclasses.asdict(stream)))
        else:
            if not written:
                print(line(dict(zip(HEADINGS, HEADINGS, strict=True)), room))
            print(line(cells(stream), room))
        written += 1
    if not written and not as_json:
        print("no such streams" if behind is not None or owner is not None else "no streams are announced")
    return OK


def cells(stream: StreamStatus) -> dict[str, str]:
    """What the table says of a stream, by the headings."""
    owner = "-" if stream.owner is None else shown_name(stream.owner)
    trouble = [
        "" if stream.unread is None else f"not read: {stream.unread}",
        f"attempt {stream.attempts}" if stream.attempts > 1 else "",
        stream.error or "",
    ]
    return {
        "STREAM": "-" if stream.stream is None else printable(stream.stream),
        "OWNER": owner if stream.owner is None or stream.owner_alive else f"!{owner}",
        "BEHIND": "-" if stream.behind is None else show_duration(stream.behind),
        "ENTRIES": "-" if stream.entries is None else f"{stream.entries:,}{'+' if stream.more else ''}",
        "DELIVERIES": f"{stream.deliveries:,}",
        "FAILURES": f"{stream.failures:,}",
        "TROUBLE": printable("; ".join(filter(None, trouble))),
    }


def line(texts: dict[str, str], room: int | None) -> str:
    """One line of the table, for a terminal with `room` columns; None: it is none, and nothing is cut."""
    widths = WIDE if room is None or room >= WIDE_FROM else NARROW if room >= NARROW_FROM else TINY
    parts = []
    for heading, width in widths.items():
        text = texts[heading]
        if room is not None and width:
            text = clip_middle(text, width)
        parts.append(text.rjust(width) if heading in NUMBERS else text.ljust(width))
    shown = "  ".join(parts).rstrip()
    return shown if room is None else clip(shown, room)
