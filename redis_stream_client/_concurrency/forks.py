"""Which process this is. A fork copies the program's objects, but not what they stand for.

A child has copies of a joined client's event loop, connections and lock, and whatever it does with them happens to
its parent. So a client knows where it joined, and its copy elsewhere does nothing.
"""

import os
import weakref
from typing import Any, Protocol

_here = (os.getpid(), 0)
_members: "weakref.WeakSet[Member]" = weakref.WeakSet()
_inherited: list[Any] = []


class Member(Protocol):
    """What belongs to one process."""

    def inherited(self) -> None:
        """This is a copy of it, in a child."""
        ...


def here() -> tuple[int, int]:
    """This process. The count of forks tells apart those whose ids are equal, each in a namespace of its own.

    Python says when it has forked, so that the system need not be asked for each operation: in a sandbox that
    takes as long as half of what a checkpoint does here.
    """
    return _here


def watch(member: Member) -> None:
    """Have a member told when it finds itself in a child."""
    _members.add(member)


def _forked() -> None:
    global _here
    _here = (os.getpid(), _here[1] + 1)
    # For ever: collecting a connection closes it, and takes its socket out of the selector that the parent shares.
    copies = list(_members)
    _inherited.extend(copies)
    for copy in copies:
        copy.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
