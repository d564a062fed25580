"""All commands under one roof, and what becomes of their mistakes.

The library is cyclopts: beside typer it starts a command in half the time, writes completion scripts that start no
Python at all, and brings no compiled dependency.
"""

import re
import sys
from collections.abc import Sequence
from itertools import count
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from redis_stream_client import __version__
from redis_stream_client.cli.exit_status import FAILED, OK, UNUSABLE
from redis_stream_client.cli.failure import NotThere, Unusable
from redis_stream_client.cli.target import GRAMMAR

NAME = "redis-stream-client"

_HELP = f"""\
See and steer a fleet of consumers of Redis streams.

{GRAMMAR}

Durations are written as `30s`, `5m`, `1h30m`, or as a number of seconds. Exit status: 0 done, 1 a check failed or
something was not there, 2 the command cannot do what was asked, 130 interrupted.
"""

app: App = App(
    name=NAME,
    help=_HELP,
    version=f"{NAME} {__version__}",
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
_order = count()
for _name, _path in (
    ("status", "status:status"),
    ("streams", "streams:streams"),
    ("owner", "owner:owner"),
    ("drain", "orders:drain"),
    ("evict", "orders:evict"),
    ("release", "orders:release"),
    ("pause", "orders:pause"),
    ("resume", "orders:resume"),
    ("dead", "dead:app"),
    ("demo", "demo:demo"),
):
    app.command(f"redis_stream_client.cli.{_path}", name=_name, sort_key=next(_order))

Shell = Annotated[
    Literal["bash", "zsh", "fish"] | None, Parameter(help="the shell; by default the one that this runs in")
]


@app.command(name="--show-completion", group="Completion")
def show_completion(shell: Shell = None, /) -> int:
    """Print the script that completes commands and options in a shell."""
    print(app.generate_completion(shell=_shell(shell)), end="")
    return OK


@app.command(name="--install-completion", group="Completion")
def install_completion(shell: Shell = None, /) -> int:
    """Install that script for this user; the shell's next session has it."""
    try:
        where = app.install_completion(shell=_shell(shell))
    except OSError as error:
        raise Unusable(f"cannot install the completion: {error}") from None
    print(f"installed in {where}; start a new shell")
    return OK


def _shell(given: Literal["bash", "zsh", "fish"] | None) -> Literal["bash", "zsh", "fish"]:
    if given is not None:
        return given
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        found = detect_shell()
    except ShellDetectionError:
        raise Unusable("which shell? give bash, zsh or fish") from None
    if found == "powershell":
        raise Unusable("there is no completion for PowerShell; give bash, zsh or fish")
    return found


def perform(argv: Sequence[str]) -> int:
    """Run a command, and print why it cannot be run; return its exit status."""
    command = ""
    try:
        names, *_ = app.parse_commands(list(argv))
        command = names[0] if names else ""
        if not command or command in app.help_flags:
            app.resolved_commands()  # the list says what they do, which stands in their modules
        function, bound, _ = app.parse_args(list(argv))
        status: object = function(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        return _said(command, _without_secrets(_mistake(error)), UNUSABLE)
    except Unusable as error:
        return _said(command, str(error), UNUSABLE)
    except NotThere as error:
        return _said(command, str(error), FAILED)
    if isinstance(status, int):
        return status
    asked = {*app.help_flags, *app.version_flags} & {*argv}
    return OK if asked else UNUSABLE  # the help, because there was no command


def _said(command: str, why: str, status: int) -> int:
    from redis_stream_client.terminal.text import printable

    prog = f"{NAME} {command}" if command and not command.startswith("-") else NAME
    print(f"{prog}: {printable(why, sys.stderr.encoding)}", file=sys.stderr)
    return status


def _mistake(error: CycloptsError) -> str:
    """What is wrong with the arguments, in one line."""
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.msg is None:
        name = error.argument.name
        variables = error.argument.parameter.env_var
        if error.keyword is not None:
            return f"{error.keyword} needs a value"
        instead = f"; give it, or set {' or '.join(variables)}" if variables else ""
        _, mistyped, suggestion = str(error).partition(" Did you mean ")
        return f"{name} is missing{instead}{'. Did you mean ' if mistyped else ''}{suggestion}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected: {' '.join(error.unused_tokens)}"
    return " ".join(str(error).split())


def _without_secrets(text: str) -> str:
    """The text without the passwords of the URLs that it repeats."""
    return re.sub(r"://\S*@", "://***@", text)
