"""The command line: ``redis-stream-client COMMAND``. A command adds its own parser, and imports its own code."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from redis_stream_client import __version__
from redis_stream_client.cli import dead, demo
from redis_stream_client.cli.exit_status import FAILED, INTERRUPTED, UNUSABLE


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
    demo.add(commands)
