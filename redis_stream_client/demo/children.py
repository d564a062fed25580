"""Child processes that never outlive the demo."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """Make a ``preexec_fn`` that has the kernel kill the child when the demo dies, however it dies.

    Linux only. Elsewhere None: the demo ends its children in every orderly way out, and workers end by
    themselves when their standard input does.
    """
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec a child should do next to nothing.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before prctl was in force
            os._exit(1)

    return in_child
