"""The command ``redis-stream-client demo``: watch the library do its job."""

import argparse
import sys
from collections.abc import Callable

from redis_stream_client.cli.exit_status import UNUSABLE

MOST_STREAMS = 500
WORKERS = range(3, 17)
LOCK_TTL = (0.2, 10.0)

_DESCRIPTION = """\
Watch the library do its job: worker processes share data streams whose numbered entries keep coming. One worker is
killed, another one is frozen and woken again, and then a rolling restart replaces all others, one by one. Sessions
follow, which sleep while nothing comes and wake with the next message, and more workers are killed. In the end
every entry is accounted for, and the exit status says whether each had its effect exactly once and in order. It
takes some 35 seconds. Without --redis it starts a Valkey server of its own, and ends it."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "demo",
        help="see a fleet survive a killed worker, a frozen one, and a rolling restart",
        description=_DESCRIPTION,
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
        "--sessions",
        type=_count(0, MOST_STREAMS),
        default=200,
        metavar="N",
        help="data streams that sleep and wake in the end, %(default)s by default; 0 leaves them out",
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
        default=10.0,
        metavar="S",
        help="seconds after which a worker that is frozen counts as dead, %(default)g by default",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    from redis_stream_client.demo import run as demo
    from redis_stream_client.demo.settings import CannotRun, Settings

    settings = Settings(
        arguments.workers, arguments.streams, arguments.redis, arguments.lock_ttl, arguments.sessions
    )
    try:
        return demo.run(settings)
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
