"""Where every task of a process waits: what to look at when a stream stands still."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def stacks() -> str:
    """The tasks of the running loop, each with the lines at which it and all that it awaits stand."""
    found = Counter(
        f"{task.get_name().rstrip('0123456789')}: {' > '.join(_lines(task.get_coro()))}"
        for task in asyncio.all_tasks()
    )
    return "\n".join(f"{count} x {where}" for where, count in sorted(found.items()))


def _lines(awaited: Any) -> Iterator[str]:
    """Follow what a coroutine awaits. `Task.get_stack()` names nothing but the coroutine itself."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        frame = frame or getattr(awaited, "gi_frame", None)
        if frame is None:
            yield f"<{type(awaited).__name__}>"
            return
        yield f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
