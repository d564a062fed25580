"""The command ``redis-stream-client dead``: list dead letters, put them back, discard them."""

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import AskError, RedisError

from redis_stream_client import RedisRejected, RedisStreamClientError, StreamGone
from redis_stream_client.cli.exit_status import FAILED, OK, UNUSABLE
from redis_stream_client.dead_letters import DeadLetter, DeadLetters, require_id

WIDEST = 60  # characters of a column of the table, but for the last one
HEADINGS = ("ID", "BURIED (UTC)", "DELIVERIES", "STREAM", "POSITION", "LAST ENTRY", "ERROR", "REASON")

_DESCRIPTION = """\
Dead letters are announcements that could not be processed; they are kept in the stream {SERVICE-input}:dead.
Exit status: 0 done, 1 a letter was not there or cannot be put back, 2 nothing (more) could be done."""

Action = Callable[[DeadLetters, DeadLetter | str], Awaitable[str]]
"""Does something to one letter, and says what. Raises `_NotDone`."""


class _NotDone(Exception):
    """Why nothing was done to a letter."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parsers."""
    dead = commands.add_parser(
        "dead", help="list dead letters, put them back or discard them", description=_DESCRIPTION
    )
    actions = dead.add_subparsers(title="actions", metavar="ACTION", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--redis",
        metavar="URL",
        default="redis://localhost:6379",
        help="redis://, rediss:// or unix://, %(default)s by default; in a cluster, any of its nodes",
    )
    where.add_argument("--service", metavar="NAME", required=True, help="name of the service")
    listing = actions.add_parser("list", parents=[where], help="list them, oldest first")
    listing.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a line, with all fields; bytes that are not UTF-8 become U+DC80 to U+DCFF",
    )
    listing.set_defaults(perform=_list)
    for name, action, help_text in (
        ("put-back", _put_back, "announce their streams again, and remove the letters"),
        ("discard", _discard, "remove them for good"),
    ):
        parser = actions.add_parser(name, parents=[where], help=help_text)
        parser.add_argument("ids", metavar="ID", nargs="*", type=_id, help="id of a letter, as listed")
        parser.add_argument("--all", action="store_true", help="all that are there now")
        parser.set_defaults(perform=_each, action=action)
    dead.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    if "ids" in arguments and arguments.all == bool(arguments.ids):
        return _unusable("give either the letters' ids or --all")
    try:
        redis = _connect(arguments.redis)
        letters = DeadLetters(redis, arguments.service)
    except ValueError as error:
        return _unusable(str(error))
    return asyncio.run(_perform(arguments, redis, letters))


async def _perform(arguments: argparse.Namespace, redis: Redis, letters: DeadLetters) -> int:
    async with redis:
        try:
            if not await _is_elsewhere(letters):
                return await _performed(arguments, letters)
            async with contextlib.aclosing(RedisCluster.from_url(arguments.redis)) as cluster:
                return await _performed(arguments, DeadLetters(cluster, arguments.service))
        except (RedisStreamClientError, RedisError) as error:
            return _unusable(str(error))


async def _is_elsewhere(letters: DeadLetters) -> bool:
    """Whether this is a node of a cluster, and another one has the letters. Raises what else is wrong."""
    try:
        await letters.count()
    except RedisRejected as error:
        reply = error.__cause__
        if isinstance(reply, AskError) or str(reply).startswith(("MOVED ", "ASK ")):  # so before redis-py 8
            return True
        raise
    return False


async def _performed(arguments: argparse.Namespace, letters: DeadLetters) -> int:
    status: int = await arguments.perform(letters, arguments)
    return status


def _connect(url: str) -> Redis:
    """A client. What was wrong with the URL is not repeated: any part of it may be a part of a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("what is before the @ ends at a /, ? or #")
        redis = Redis.from_url(url)
        redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # not opened: a check
    except (ValueError, TypeError, RedisError):
        raise ValueError(
            "--redis: not a usable URL; it must begin with redis://, rediss:// or unix://, and special characters "
            "in user name and password must be percent-encoded"
        ) from None
    return redis


async def _list(letters: DeadLetters, arguments: argparse.Namespace) -> int:
    if arguments.json:
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
        print(line if room is None else _clip(line, room))
    return OK


def _row(letter: DeadLetter) -> Sequence[str]:
    """A letter in words that fill one line each, and are safe to be shown by a terminal."""
    buried = f"{letter.time:%Y-%m-%d %H:%M:%S}"
    names = (letter.stream, letter.position, letter.last_entry, letter.error_type)
    columns = ("-" if name is None else _clip(_printable(name), WIDEST) for name in names)
    return letter.id, buried, str(letter.deliveries), *columns, _printable(letter.reason)


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
        return json.dumps(document, allow_nan=False)
    except (ValueError, RecursionError):  # a number or a depth that JSON can say and a Python writer cannot
        return json.dumps(document | {"info": None})


async def _each(letters: DeadLetters, arguments: argparse.Namespace) -> int:
    """Do the action to each letter, and print the result."""
    status = OK
    action: Action = arguments.action
    async for letter in _chosen(letters, arguments):
        id = letter.id if isinstance(letter, DeadLetter) else letter
        try:
            print(id, "", await action(letters, letter), flush=True)
        except _NotDone as why:
            print(id, "", _printable(str(why)), file=sys.stderr)
            status = FAILED  # this one was not there, or cannot be put back
    return status


async def _chosen(letters: DeadLetters, arguments: argparse.Namespace) -> AsyncIterator[DeadLetter | str]:
    for id in dict.fromkeys(arguments.ids):
        yield id
    if arguments.all:
        async for letter in letters:
            yield letter


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
    return f"put back as {lbs_id}: {_printable(found.stream or '')}"


async def _discard(letters: DeadLetters, letter: DeadLetter | str) -> str:
    if not await letters.discard(letter):
        raise _NotDone("not there")
    return "discarded"


def _id(text: str) -> str:
    try:
        return require_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _unusable(why: str) -> int:
    print(f"redis-stream-client dead: {_printable(why)}", file=sys.stderr)
    return UNUSABLE


def _printable(text: str) -> str:
    """The text in one line without control characters, in the characters that standard output has."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
