"""The command line: ``redis-stream-client COMMAND``. A command imports its own code, and only when it runs."""

import os
import sys
from collections.abc import Sequence

from redis_stream_client.cli.exit_status import FAILED, INTERRUPTED, UNUSABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    Status 0 means success, 1 that a check failed, 2 that the command cannot run as asked; a command that was
    interrupted returns 128 + the signal's number.
    """
    try:
        from redis_stream_client.cli import app
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("redis_stream_client"):
            raise
        print(
            f'redis-stream-client: the command line needs {missing.name}: pip install "redis-stream-client[cli]"',
            file=sys.stderr,
        )
        return UNUSABLE
    try:
        status = app.perform(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output is gone, which the interpreter's last flush must not meet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status
