"""The command line: ``redis-stream-client COMMAND``. A command adds its own parser, and imports its own code."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from redis_stream_client import __version__
from redis_stream_client.cli import dead

OK = 0
FAILED = 1
UNUSABLE = 2  # as argparse: what was asked for cannot be done
INTERRUPTED = 130

MOST_STREAMS = 500
WORKERS = range(3, 17)
LOCK_TTL = (0.2, 5.0)

_DEMO = """\
Watch the library do its job: worker processes share data streams whose numbered entries keep coming. One worker is
killed, another one is frozen and woken again, and then a rolling restart replaces all others, one by one. In the
end every entry is accounted for, and the exit status says whether each had its effect exactly once and in order.
It takes some 15 seconds. Without --redis it starts a Valkey server of its own, and ends it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    Status 0 means success, 1 that a check failed, 2 that the command cannot run as asked; a command that was
    interrupted returns 128 + the signal's number.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help, --version, or a mistake that argparse has described
        return end.code if isinstance(end.code, int) else UNUSABLE
    command: Callable[[argparse.Namespace], int] | None = getattr(arguments, "command", None)
    if command is None:
        parser.print_help()
        return UNUSABLE
    try:
        status = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output is gone, which the interpreter's last flush must not meet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without the passwords of the URLs that it was given."""

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"://\S*@", "://***@", message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="redis-stream-client", description="Redis Streams for a fleet of asyncio consumers.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    dead.add(commands)
    _add_demo(commands)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="see a fleet survive a killed worker, a frozen one, and a rolling restart",
        description=_DEMO,
    )
    parser.add_argument(
        "--workers",
        type=_count(WORKERS.start, WORKERS.stop - 1, " (one is killed, one frozen, and one must be left)"),
        default=4,
        metavar="N",
        help="worker processes, %(default)s by default and at least 3: one is killed, one frozen",
    )
    parser.add_argument(
        "--streams",
        type=_count(1, MOST_STREAMS),
        default=24,
        metavar="N",
        help="data streams that they share, %(default)s by default",
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="use this Redis or Valkey, 6.2 or newer, instead of an embedded one. All keys have a name of the "
        "demo's own and are deleted afterwards; the server's notify-keyspace-events keeps the flags Kx",
    )
    parser.add_argument(
        "--lock-ttl",
        type=_lock_ttl,
        default=2.0,
        metavar="S",
        help="seconds after which a silent worker is taken for dead, %(default)g by default",
    )
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from redis_stream_client.demo.run import run
    from redis_stream_client.demo.settings import CannotRun, Settings

    settings = Settings(arguments.workers, arguments.streams, arguments.redis, arguments.lock_ttl)
    try:
        return run(settings)
    except CannotRun as error:
        print(f"redis-stream-client demo: {error}", file=sys.stderr)
        return UNUSABLE


def _count(least: int, most: int, why: str = "") -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}{why}")
        return value

    return parse


def _lock_ttl(text: str) -> float:
    least, most = LOCK_TTL
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} s is not between {least:g} s and {most:g} s")
    return value
