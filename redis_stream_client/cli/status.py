"""The command ``redis-stream-client status``: who the members are, and what waits."""

import json as json_lib
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from redis_stream_client import Fleet, StreamStatus
from redis_stream_client.cli.arguments import count, duration, flag, to_interval
from redis_stream_client.cli.connection import AnyRedis, run
from redis_stream_client.cli.document import document
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.exit_status import FAILED, OK
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.fleet_view import View, picture
from redis_stream_client.cli.names import shown_name
from redis_stream_client.cli.tally import Tally
from redis_stream_client.cli.target import Target
from redis_stream_client.terminal import screen
from redis_stream_client.terminal.glyphs import glyphs_for
from redis_stream_client.terminal.text import plural, printable

UNLIMITED = 10_000
"""Columns of an output that is no terminal."""


def status(
    *,
    watch: Annotated[bool, flag("look again and again, until Ctrl-C")] = False,
    interval: Annotated[
        float,
        Parameter(
            converter=to_interval,
            metavar="DURATION",
            show_default=lambda seconds: f"{seconds:g}s",
            help="between two looks",
        ),
    ] = 2.0,
    lag: Annotated[
        bool, flag("go through all streams, to say how far they are behind: about 1 s for 20,000")
    ] = False,
    no_lag: Annotated[bool, flag("with --watch, which does so again and again: leave it out")] = False,
    fail_if_behind: Annotated[
        float | None,
        duration(
            "exit with status 1 if a stream is that far behind, or cannot be read; standard error says which"
        ),
    ] = None,
    members: Annotated[int, count("the most members to show: those that matter most; all in JSON")] = 20,
    json: Annotated[
        bool, flag("print one JSON object, as described above; with --watch, one a line for each look")
    ] = False,
    target: Target,
) -> int:
    """Who the members are, what they own, what waits, and how far it is behind.

    Members are shown without the `redis-consumer-` that their ids begin with. Where they are too many, those that
    are dead and still have streams are shown, those that drain, and then those with the most streams; a line says
    what is left out.

    On a terminal, `--watch` is a live view, which also says who gained and who lost streams since the last look.
    An outage of Redis is shown, and it goes on. Without a terminal it prints some lines for each look.

    The JSON object has the attributes of `FleetStatus`, and `lag` and `late`. `lag` is null without `--lag`,
    otherwise it has the attributes of `Lag`. `late` is null without `--fail-if-behind`, otherwise it has `limit`
    in seconds, `streams` and `unread` as counts, and `worst` and `unreadable`, lists of at most 20 streams with
    the attributes of `StreamStatus`. Durations are seconds, times are Unix times, and names may be added.

    Exit status: 0 done, 1 `--fail-if-behind` found something, 2 it could not be looked at.
    """
    if watch and fail_if_behind is not None:
        raise Unusable("--fail-if-behind looks once: leave out --watch")
    if watch:
        from redis_stream_client.cli.watch import watch_fleet

        return run(
            target,
            lambda redis: watch_fleet(
                Fleet(redis, target.service),
                interval=interval,
                lag=not no_lag,
                most=members,
                as_json=json,
            ),
        )
    return run(target, lambda redis: _once(redis, target, lag, fail_if_behind, members, as_json=json))


async def _once(
    redis: AnyRedis, target: Target, lag: bool, limit: float | None, most: int, *, as_json: bool
) -> int:
    fleet = Fleet(redis, target.service)
    found = await fleet.status()
    tally = None
    if lag or limit is not None:
        tally = Tally(limit)
        async for stream in fleet.streams():
            tally.add(stream)
    if as_json:
        print(json_lib.dumps(document(found, tally)))
    else:
        show(View(found, tally=tally), most)
    if tally is None or limit is None or not (tally.late or tally.unread):
        return OK
    sys.stdout.flush()
    for line in _late(tally, limit):
        print(line, file=sys.stderr)
    return FAILED


def show(view: View, most: int) -> None:
    """Print the fleet once."""
    screen.tolerate(sys.stdout)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNLIMITED)
    with console.capture() as captured:
        console.print(picture(view, console.width, glyphs_for(sys.stdout.encoding), most=most))
    for line in captured.get().splitlines():
        print(line.rstrip())


def _late(tally: Tally, limit: float) -> list[str]:
    """Which streams are late or could not be read."""
    lines = []
    worst = tally.worst_late()
    for stream in worst:
        owner = "nobody" if stream.owner is None else shown_name(stream.owner, sys.stderr.encoding)
        lines.append(f"{_name(stream)} is {show_duration(stream.behind or 0)} behind; its owner: {owner}")
    if tally.late > len(worst):
        lines.append(f"{plural(tally.late - len(worst), 'more stream')} at least {show_duration(limit)} behind")
    lines += [
        f"{_name(stream)} could not be read: {printable(stream.unread or '', sys.stderr.encoding)}"
        for stream in tally.unreadable
    ]
    if tally.unread > len(tally.unreadable):
        lines.append(f"{plural(tally.unread - len(tally.unreadable), 'more stream')} could not be read")
    return lines


def _name(stream: StreamStatus) -> str:
    if stream.stream is None:
        return f"announcement {stream.lbs_id}"
    return printable(stream.stream, sys.stderr.encoding)
