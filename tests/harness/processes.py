"""Child processes of the tests, which never outlive them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """Make a `preexec_fn` that has the kernel kill the child when its parent dies, however it dies.

    The child hears SIGINT, too, also where a shell that started the tests in its background had them ignore it.

    Linux only; elsewhere None, and only an orderly end of the tests takes the children along. The "parent"
    is the *thread* that starts the child: what is started from a short-lived thread dies with that thread.
    """
    if sys.platform != "linux":
        return None
    # Both looked up here: between fork and exec a child of a threaded process should do next to nothing.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before prctl was in force
            os._exit(1)

    return in_child
