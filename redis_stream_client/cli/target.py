"""Which service a command is about, and where its Redis is: options that all commands have."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter, Token

from redis_stream_client.cli.failure import Unusable

DEFAULT_URL = "redis://localhost:6379"

GRAMMAR = """\
The URL of Redis is one of

    redis://[USER@]HOST[:PORT][/DB]                          one server, or any node of a cluster
    redis+cluster://[USER@]HOST[:PORT][,HOST[:PORT]...]      a cluster, by some of its nodes
    redis+sentinel://[USER@]HOST[:PORT][,...]/MASTER[/DB]    the master that these sentinels name
    unix://[USER@]/PATH[?db=DB]                              a socket

with `rediss` in place of `redis` for TLS, also to the sentinels, and with options of redis-py behind a `?`, such
as `?ssl_ca_certs=ca.pem&socket_timeout=2`. Ports are 6379, or 26379 for sentinels. The password belongs into the
environment, as `REDIS_PASSWORD` or within `REDIS_URL`, or into a file (`--password-file`), but not into `--redis`:
whoever is on the machine could read it in the list of processes. The sentinels' own one is
`REDIS_SENTINEL_PASSWORD`."""

_HELP_URL = (
    "where Redis is: redis://, rediss:// (TLS), redis+sentinel://, redis+cluster:// or unix://; see "
    "`redis-stream-client --help`"
)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL, which may hold a secret if it was not typed.

    Attributes:
        text: the URL.
        typed: whether it stood on the command line, where everybody can read it.
    """

    text: str
    typed: bool

    def __repr__(self) -> str:
        return f"Url(..., typed={self.typed})"


def parse_url(kind: type[Url], tokens: Sequence[Token]) -> Url:
    """The URL as it was given."""
    [token] = tokens
    typed = token.source == "cli"
    return kind(token.value if token.value or typed else DEFAULT_URL, typed)


RedisUrl = Annotated[
    Url,
    Parameter(
        name="--redis",
        env_var="REDIS_URL",
        converter=parse_url,
        accepts_keys=False,
        n_tokens=1,
        show_default=lambda url: url.text,
        metavar="URL",
        help=_HELP_URL,
    ),
]

PasswordFile = Annotated[
    Path | None,
    Parameter(
        metavar="PATH",
        help="file whose first line is the password; without it, REDIS_PASSWORD counts, unless REDIS_URL has one",
    ),
]


@Parameter(name="*", group=Group("Service", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service, and the Redis that has it."""

    service: Annotated[str, Parameter(env_var="REDIS_STREAM_SERVICE", metavar="NAME", help="name of the service")]
    redis: RedisUrl = Url(DEFAULT_URL, typed=False)
    password_file: PasswordFile = None

    def password(self) -> str | None:
        """The password from the file or the environment; None: at most the URL has one. Raises `Unusable`."""
        return read_password(self.password_file)


def read_password(file: Path | None) -> str | None:
    """The password from the file, or else from the environment. Raises `Unusable`."""
    if file is None:
        return os.environ.get("REDIS_PASSWORD") or None
    try:
        with file.open(encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Unusable(f"--password-file: cannot read {str(file)!r}: {why}") from None
    if not password:
        raise Unusable(f"--password-file: the first line of {str(file)!r} is empty")
    return password
