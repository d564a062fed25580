"""Runs programs of the documents one after the other in one process: `python -m tests.harness.run_programs FILE`.

The file holds JSON: the port of a Redis, and pages, each a list of pieces: `{"name": …, "text": …}`. A piece with
a name is a program: it begins with an empty Redis, and in a namespace of its own. One without a name goes on in
the namespace of its page, and may `await`. What comes out is JSON, too: the lines that each has printed, its
traceback among them.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import json
import logging
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import redis


class PrintedErrors:
    """Whatever ends its block is printed, as the interpreter does."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> bool:
        if error is not None:
            traceback.print_exception(error, file=sys.stdout)
        return True


def run(text: str, name: str, namespace: dict[str, Any], loop: asyncio.Runner | None) -> None:
    """Run one piece. With a loop, its statements may `await`."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if loop else 0
    code = compile(text, name, "exec", flags, dont_inherit=True)
    if loop is not None and code.co_flags & inspect.CO_COROUTINE:
        loop.run(types.FunctionType(code, namespace)())
    else:
        exec(code, namespace)


def printed(text: str, name: str, namespace: dict[str, Any], loop: asyncio.Runner | None) -> list[str]:
    """Run one piece; return what it printed, with its traceback if it has failed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), PrintedErrors():
        run(text, name, namespace, loop)
    return said.getvalue().splitlines()


def main() -> None:
    """Run all pieces of all pages."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    outputs: list[list[list[str]]] = []
    with redis.Redis(port=task["port"]) as server:
        for page in task["pages"]:
            shared: dict[str, Any] = {"__name__": "__main__"}
            outputs.append([])
            server.flushall()
            with asyncio.Runner() as loop:
                for piece in page:
                    name = piece["name"]
                    namespace = {"__name__": "__main__"} if name else shared
                    if name:
                        server.flushall()
                    outputs[-1].append(
                        printed(piece["text"], name or "snippet", namespace, None if name else loop)
                    )
                    del namespace
                    gc.collect()
                    for handler in list(logging.root.handlers):
                        logging.root.removeHandler(handler)
                        handler.close()
    sys.stdout.write(json.dumps(outputs))


if __name__ == "__main__":
    main()
