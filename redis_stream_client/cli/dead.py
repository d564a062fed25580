"""The command ``redis-stream-client dead``: list dead letters, put them back, discard them."""

import json as json_lib
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import App, Parameter, Token

from redis_stream_client import DeadLetter, DeadLetters, StreamGone
from redis_stream_client.cli.connection import run
from redis_stream_client.cli.exit_status import FAILED, OK
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.target import Target
from redis_stream_client.dead_letters import require_id
from redis_stream_client.terminal.text import clip, printable

WIDEST = 60  # characters of a column of the table, but for the last one
HEADINGS = ("ID", "BURIED (UTC)", "DELIVERIES", "STREAM", "POSITION", "LAST ENTRY", "ERROR", "REASON")

app: App = App(
    name="dead",
    help="""List dead letters, put them back or discard them.

Dead letters are announcements that could not be processed; they are kept in the stream `{SERVICE-input}:dead`.

Exit status: 0 done, 1 a letter was not there or cannot be put back, 2 nothing (more) could be done.""",
)

Action = Callable[[DeadLetters, DeadLetter | str], Awaitable[str]]
"""Does something to one letter, and says what. Raises `_NotDone`."""


class _NotDone(Exception):
    """Why nothing was done to a letter."""


def _letter_id(kind: object, tokens: Sequence[Token]) -> str:
    return require_id(tokens[0].value)


Id = Annotated[str, Parameter(converter=_letter_id, metavar="ID", help="id of a letter, as listed")]
All = Annotated[bool, Parameter(name="--all", help="all that are there now")]


@app.command(name="list")
def list_letters(
    *,
    json: Annotated[
        bool,
        Parameter(
            help="print one JSON object a line, with all fields; bytes that are not UTF-8 become U+DC80 to U+DCFF"
        ),
    ] = False,
    target: Target,
) -> int:
    """List them, oldest first."""
    return run(target, lambda redis: _list(DeadLetters(redis, target.service), as_json=json))


@app.command
def put_back(*ids: Id, everything: All = False, target: Target) -> int:
    """Announce their streams again, and remove the letters."""
    return _to_each(_put_back, ids, target, everything=everything)


@app.command
def discard(*ids: Id, everything: All = False, target: Target) -> int:
    """Remove them for good."""
    return _to_each(_discard, ids, target, everything=everything)


def _to_each(action: Action, ids: Sequence[str], target: Target, *, everything: bool) -> int:
    if everything == bool(ids):
        raise Unusable("give either the letters' ids or --all")
    return run(target, lambda redis: _each(DeadLetters(redis, target.service), action, ids, everything=everything))


async def _list(letters: DeadLetters, *, as_json: bool) -> int:
    if as_json:
        async for letter in letters:
            print(_json(letter))
        return OK
    rows = [HEADINGS, *[_row(letter) async for letter in letters]]
    if len(rows) == 1:
        print("no dead letters")
        return OK
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if room is None else clip(line, room))
    return OK


def _row(letter: DeadLetter) -> Sequence[str]:
    """A letter in words that fill one line each, and are safe to be shown by a terminal."""
    buried = f"{letter.time:%Y-%m-%d %H:%M:%S}"
    names = (letter.stream, letter.position, letter.last_entry, letter.error_type)
    columns = ("-" if name is None else clip(printable(name), WIDEST) for name in names)
    return letter.id, buried, str(letter.deliveries), *columns, printable(letter.reason)


def _json(letter: DeadLetter) -> str:
    document = {
        "id": letter.id,
        "time": letter.time.isoformat(),
        "reason": letter.reason,
        "lbs_id": letter.lbs_id,
        "consumer": letter.consumer,
        "deliveries": letter.deliveries,
        "stream": letter.stream,
        "info": letter.info,
        "position": letter.position,
        "last_entry": letter.last_entry,
        "error_type": letter.error_type,
        "error": letter.error,
        "failures": letter.failures,
        "deaths": letter.deaths,
        "failing_since": letter.failing_since,
        "fields": [[word.decode(errors="surrogateescape") for word in pair] for pair in letter.fields],
    }
    try:
        return json_lib.dumps(document, allow_nan=False)
    except (ValueError, RecursionError):  # a number or a depth that JSON can say and a Python writer cannot
        return json_lib.dumps(document | {"info": None})


async def _each(letters: DeadLetters, action: Action, ids: Sequence[str], *, everything: bool) -> int:
    """Do the action to each letter, and print the result."""
    status = OK
    async for letter in letters if everything else _named(ids):
        id = letter.id if isinstance(letter, DeadLetter) else letter
        try:
            print(id, "", await action(letters, letter), flush=True)
        except _NotDone as why:
            print(id, "", printable(str(why)), file=sys.stderr)
            status = FAILED  # this one was not there, or cannot be put back
    return status


async def _named(ids: Sequence[str]) -> AsyncIterator[str]:
    for id in dict.fromkeys(ids):
        yield id


async def _put_back(letters: DeadLetters, letter: DeadLetter | str) -> str:
    found = letter if isinstance(letter, DeadLetter) else await letters.get(letter)
    if found is None:
        raise _NotDone("not there")
    try:
        lbs_id = await letters.put_back(found)
    except StreamGone:
        raise _NotDone("not there") from None
    except ValueError as error:
        raise _NotDone(f"not put back: {error}") from None
    return f"put back as {lbs_id}: {printable(found.stream or '')}"


async def _discard(letters: DeadLetters, letter: DeadLetter | str) -> str:
    if not await letters.discard(letter):
        raise _NotDone("not there")
    return "discarded"
