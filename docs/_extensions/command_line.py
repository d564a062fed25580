"""The directive `command-line`: what `redis-stream-client` and each of its commands say with `--help`.

Every command that the help of another one lists must have a directive of its own.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from redis_stream_client import cli

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

log = logging.getLogger(__name__)
NAME = re.compile(r"│ ([a-z][\w-]*)(?=  | +│)")
shown: set[str] = set()
listed: set[str] = set()


class CommandLine(SphinxDirective):
    """The help of one command, such as `dead list`; without a name that of the program."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Ask the program itself."""
        os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
        words = self.arguments[0].split() if self.arguments else []
        said = io.StringIO()
        with redirect_stdout(said):
            status = cli.main([*words, "--help"])
        if status != 0:
            raise self.error(f"there is no command {' '.join(words)!r}")
        text = "\n".join(line.rstrip() for line in said.getvalue().splitlines())
        commands = text.partition("─ Commands ─")[2].partition("╰")[0]
        shown.add(" ".join(words))
        listed.update(" ".join([*words, name]) for name in NAME.findall(commands))
        return [nodes.literal_block(text, text, language="none")]


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of commands that have no directive."""
    if shown:
        for command in sorted(listed - shown):
            log.warning("the command %s is in no page", command, type="api", subtype="command")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("command-line", CommandLine)
    app.connect("env-check-consistency", complete)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
