"""A contender in a fresh process of its own, on an event loop of its own: `python -m benchmarks.apart …`.

What was imported, cached and collected for one contender then says nothing about the next, and uvloop and asyncio
do not mix.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from tests.harness.processes import die_with_parent
from tests.harness.workers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.scenario import Contender, Sample

LAST_WORDS = 2_000
"""Characters of what a process said that failed."""


async def apart(work: Callable[..., Coroutine[Any, Any, Sample]], loop: str = "asyncio", **case: Any) -> Sample:
    """What `work(**case)` measures in a process of its own; `loop` is asyncio or uvloop.

    `work` is a function of a module's top level, `case` is JSON. Cancelling it kills the process.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.apart", work.__module__, work.__qualname__, loop, json.dumps(case)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    try:
        said, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"it failed: {complaints.decode(errors='replace')[-LAST_WORDS:]}")
    measured: dict[str, float] = json.loads(said.splitlines()[-1])
    return measured


def contender(work: Callable[..., Coroutine[Any, Any, Sample]], loop: str = "asyncio", **always: Any) -> Contender:
    """`work` as a contender: it is called in a process of its own with a case, and with `always` as well."""

    async def measured(**case: Any) -> Sample:
        return await apart(work, loop, **always, **case)

    return measured


def main(module: str, name: str, loop: str, case: str) -> None:
    """Run one contender and print what it measured."""
    logging.getLogger("redis_stream_client").setLevel(logging.CRITICAL)
    work = getattr(importlib.import_module(module), name)
    factory = None
    if loop == "uvloop":
        import uvloop  # here, so that no other process has it

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        measured = runner.run(work(**json.loads(case)))
    print(json.dumps(dict(measured)))


if __name__ == "__main__":
    main(*sys.argv[1:])
