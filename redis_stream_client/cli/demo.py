"""The command ``redis-stream-client demo``: watch the library do its job."""

from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import Parameter, Token

from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.target import PasswordFile, Url, parse_url, read_password

MOST_STREAMS = 500
WORKERS = range(3, 17)
LOCK_TTL = (0.2, 10.0)


def _count(least: int, most: int, why: str = "") -> Callable[[type[int], Sequence[Token]], int]:
    def convert(kind: type[int], tokens: Sequence[Token]) -> int:
        text = tokens[0].value
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise ValueError(f"{value} is not between {least} and {most}{why}")
        return value

    return convert


def _lock_ttl(kind: type[float], tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    least, most = LOCK_TTL
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None
    if not least <= value <= most:
        raise ValueError(f"{text} s is not between {least:g} s and {most:g} s")
    return value


def demo(
    *,
    workers: Annotated[
        int,
        Parameter(
            converter=_count(
                WORKERS.start, WORKERS.stop - 1, " (one is killed, one frozen, and one must be left)"
            ),
            metavar="N",
            help="worker processes, at least 3: one is killed, one frozen",
        ),
    ] = 4,
    streams: Annotated[
        int, Parameter(converter=_count(1, MOST_STREAMS), metavar="N", help="data streams that they share")
    ] = 24,
    sessions: Annotated[
        int,
        Parameter(
            converter=_count(0, MOST_STREAMS),
            metavar="N",
            help="data streams that sleep and wake in the end; 0 leaves them out",
        ),
    ] = 200,
    redis: Annotated[
        Url | None,
        Parameter(
            converter=parse_url,
            accepts_keys=False,
            n_tokens=1,
            metavar="URL",
            help="use this Redis or Valkey, 6.2 or newer, instead of an embedded one: redis://, rediss:// or "
            "unix://. All keys have a name of the demo's own and are deleted afterwards; the server's "
            "notify-keyspace-events keeps the flags Kx",
        ),
    ] = None,
    password_file: PasswordFile = None,
    lock_ttl: Annotated[
        float,
        Parameter(
            converter=_lock_ttl, metavar="S", help="seconds after which a worker that is frozen counts as dead"
        ),
    ] = 10.0,
) -> int:
    """See a fleet survive a killed worker, a frozen one, and a rolling restart.

    Worker processes share data streams whose numbered entries keep coming. One worker is killed, another one is
    frozen and woken again, and then a rolling restart replaces all others, one by one. Sessions follow, which
    sleep while nothing comes and wake with the next message, and more workers are killed.

    In the end every entry is accounted for, and the exit status says whether each had its effect exactly once and
    in order. It takes some 35 seconds. Without `--redis` it starts a Valkey server of its own, and ends it.
    """
    from redis_stream_client.cli.connection import full_url
    from redis_stream_client.demo import run
    from redis_stream_client.demo.settings import CannotRun, Settings

    url = None
    if redis is not None:
        url = full_url(redis, read_password(password_file), prefer=password_file is not None)
    try:
        return run.run(Settings(workers, streams, url, lock_ttl, sessions))
    except CannotRun as error:
        raise Unusable(str(error)) from None
