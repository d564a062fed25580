"""Forks: telling a process from its forked child.

A child has copies of a joined client's event loop and connections, and whatever it does with them happens to its
parent. So a client knows in which process it joined, and its copy in a child does nothing.
"""

import os
import weakref
from typing import Any, Protocol

_here = (os.getpid(), 0)
_members: "weakref.WeakSet[Member]" = weakref.WeakSet()
_inherited: list[Any] = []


class Member(Protocol):
    """An object that belongs to one process."""

    def inherited(self) -> None:
        """Called in a forked child, on the copy of the object."""
        ...


def here() -> tuple[int, int]:
    """This process: its id, and the number of forks, since processes in different namespaces may have the same id.

    Python tells us about a fork, so that we need no system call for each operation. In a sandbox that call takes
    half as long as all that a checkpoint does in this process.
    """
    return _here


def watch(member: Member) -> None:
    """Call `inherited` on the copy of this object in each forked child."""
    _members.add(member)


def _forked() -> None:
    global _here
    _here = (os.getpid(), _here[1] + 1)
    # Keep it for ever: to collect a connection would close it, and remove its socket from the selector that the
    # child shares with its parent.
    copies = list(_members)
    _inherited.extend(copies)
    for copy in copies:
        copy.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
