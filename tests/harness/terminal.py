"""A pseudo-terminal for the tests: a program or this process writes to it, and a thread reads what is shown."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

PATIENCE = 30.0


class Terminal:
    """A window of some columns and lines.

    Attributes:
        its_end: the file descriptor that programs get as their terminal.
    """

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self._reading, self.its_end = pty.openpty()
        self._shown = bytearray()
        self._more = threading.Condition()
        self.resize(columns, lines)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        os.close(self._reading)

    @property
    def text(self) -> str:
        """All that was shown so far, with its control sequences."""
        with self._more:
            return self._shown.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size; the programs that it controls get SIGWINCH."""
        termios.tcsetwinsize(self.its_end, (lines, columns))

    def take_control(self) -> None:
        """In a program that is about to start: make this its controlling terminal, so that Ctrl-C reaches it, even
        if whoever runs the tests has them ignore it, as a shell does in the background."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(self.its_end, termios.TIOCSCTTY, 0)

    def type(self, text: str) -> None:
        """Type on its keyboard."""
        os.write(self._reading, text.encode())

    def wait_for(self, text: str) -> str:
        """Wait until this text was shown; return all that was shown."""
        return self.wait_until(lambda shown: text in shown, repr(text))

    def wait_until(self, condition: Callable[[str], bool], description: str) -> str:
        """Wait until what was shown is so; return all of it."""
        deadline = time.monotonic() + PATIENCE
        with self._more:
            while not condition(shown := self._shown.decode(errors="replace")):
                if not self._more.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"not shown: {description}, but in the end {shown[-2000:]!r}")
            return shown

    def close(self) -> str:
        """Close our handle of its end, and return all that was shown until the programs have closed theirs."""
        if self.its_end >= 0:
            os.close(self.its_end)
            self.its_end = -1
        self._thread.join(PATIENCE)
        return self.text

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._reading, 65536)
            except OSError:  # Linux's way to say that the other end was closed
                return
            if not data:
                return
            with self._more:
                self._shown += data
                self._more.notify_all()
