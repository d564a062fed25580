"""The directive `command-line`: what `redis-stream-client` and each of its commands say with `--help`."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from redis_stream_client import cli

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class CommandLine(SphinxDirective):
    """The help of one command, such as `dead list`; without a name that of the program."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Ask the program itself."""
        os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}
        words = self.arguments[0].split() if self.arguments else []
        said = io.StringIO()
        with redirect_stdout(said):
            status = cli.main([*words, "--help"])
        if status != 0:
            raise self.error(f"there is no command {' '.join(words)!r}")
        return [nodes.literal_block(said.getvalue(), said.getvalue(), language="none")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
