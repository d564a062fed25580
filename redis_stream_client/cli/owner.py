"""The command ``redis-stream-client owner``: who has a stream, and how far behind it is."""

import dataclasses
import json as json_lib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from redis_stream_client import Fleet, StreamStatus
from redis_stream_client.cli.arguments import flag
from redis_stream_client.cli.connection import AnyRedis, run
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.exit_status import FAILED, OK
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.target import Target
from redis_stream_client.terminal.text import plural, printable


def owner(
    stream: Annotated[str, Parameter(help="name of the data stream")],
    /,
    *,
    json: Annotated[
        bool, flag("print one JSON object, with the attributes of `StreamStatus`, or null if it is not announced")
    ] = False,
    target: Target,
) -> int:
    """Who owns a stream, and how far behind it is.

    Exit status: 0 it is announced, whether it has an owner or waits for one; 1 it is not announced: it may sleep,
    be finished, or be among the dead letters; 2 it could not be looked at.
    """
    return run(target, lambda redis: _print(redis, target, stream, as_json=json))


async def _print(redis: AnyRedis, target: Target, stream: str, *, as_json: bool) -> int:
    try:
        found = await Fleet(redis, target.service).owner(stream)
    except ValueError as error:
        raise Unusable(str(error)) from None
    if as_json:
        print(json_lib.dumps(None if found is None else dataclasses.asdict(found)))
    elif found is None:
        print(f"{printable(stream, sys.stderr.encoding)} is not announced", file=sys.stderr)
    else:
        for name, text in facts(found):
            print(f"{name:<11} {text}")
    return FAILED if found is None else OK


def facts(stream: StreamStatus) -> Iterator[tuple[str, str]]:
    """What is known of a stream, by name."""
    yield "stream", "-" if stream.stream is None else printable(stream.stream)
    if stream.owner is None:
        yield "owner", "none yet: it waits"
    else:
        dead = "" if stream.owner_alive else " (dead: a living member will claim it)"
        yield "owner", printable(stream.owner) + dead
    yield "announced", f"{stream.lbs_id}, {_time(int(stream.lbs_id.partition('-')[0]) / 1000)}"
    yield "deliveries", f"{stream.deliveries:,}" + (f", attempt {stream.attempts}" if stream.attempts > 1 else "")
    if stream.unread is not None:
        yield "not read", printable(stream.unread)
    elif not stream.behind:
        yield "behind", "nothing to read"
    else:
        entries = plural(stream.entries or 0, "entry", "entries")
        yield "behind", f"{show_duration(stream.behind)}, {'more than ' if stream.more else ''}{entries} to read"
    yield "checkpoint", stream.checkpoint or "none"
    if stream.failures or stream.error:
        since = "" if stream.failing_since is None else f" since {_time(stream.failing_since)}"
        yield "failing", f"{plural(stream.failures, 'failure')}{since}: {printable(stream.error or '-')}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
