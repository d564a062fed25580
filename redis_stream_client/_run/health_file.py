"""The health file: its time says that a client is live, its text whether it is ready.

All work on the disk is done in threads of our own: a disk may hang, and then the client must go on.
"""

import asyncio
import contextlib
import errno
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import anyio

from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._model.logs import Log
from redis_stream_client._redis.lookups import in_thread
from redis_stream_client._redis.outage import Outages
from redis_stream_client._redis.wordings import Wording
from redis_stream_client._run.answers import NOT_READY, READY, Answer

REMOVAL = 0.1
"""Seconds that the end of `run()` waits until the file is removed. On a disk that hangs, a thread goes on."""

HANGS = "the disk does not answer"

PATIENCE = 5.0
"""Seconds after which a disk that does not answer counts as one that refuses."""

FAILURES = (OSError, RuntimeError)
"""What the disk may answer; and that no thread can be started."""

HEALTH_FILE = Wording(
    "health file",
    "the health file %(path)s cannot be written",
    "whoever looks at it may take this client for dead; look at the disk",
    "the health file %(path)s is written again",
)


class HealthFile:
    """Keeps a file up to date, from `start` to `close`.

    It appears when the client has joined. Its time is renewed while the client is live, and its text changes when
    the client gets ready or unready. A probe that looks at its age, or whether it is there, does not restart a
    fleet because Redis is away, or because the fleet is paused.

    What is written replaces the file as a whole, and never goes through a symbolic link. If the disk is full or
    read-only, the log says so, and nothing else happens.

    Args:
        path: where it lies. Each process has a file of its own.
        interval: seconds between two renewals.
        live: whether the client is live.
        ready: whether it is ready.
        log: the log of the client.
    """

    def __init__(
        self,
        path: Path,
        interval: float,
        *,
        live: Callable[[], Answer],
        ready: Callable[[], Answer],
        log: Log,
    ) -> None:
        self._interval = interval
        self._live = live
        self._ready = ready
        self._outages = Outages(log)
        self._outage = self._outages.watch(HEALTH_FILE, lambda: {"path": str(path)}, failures=1)
        self._disk = _Disk(path)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Remove a file that was left behind by a process that was killed.

        Raises:
            FileExistsError: something else lies there.
        """
        try:
            await self._do(self._disk.clear)
        except FileExistsError:
            raise
        except FAILURES as error:
            self._failed(error)

    def start(self) -> None:
        """The client has joined: keep the file up to date from now on."""
        self._task = start_task(self._keep(), "redis_stream_client health file")

    def look(self) -> None:
        """Something has changed: do not wait until the interval is over."""
        self._changed.set()

    async def close(self) -> None:
        """Remove the file. If the wait is cancelled, that goes on in its thread."""
        self._outages.close()
        if self._task is not None:
            self._task.cancel()
        with anyio.move_on_after(REMOVAL, shield=True), contextlib.suppress(*FAILURES):
            await in_thread(self._disk.remove, "redis_stream_client health file")

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            if self._live().ok:
                await self._renew(self._ready().text)
            await wait_for(self._changed, self._interval)

    async def _renew(self, text: str) -> None:
        try:
            await self._do(lambda: self._disk.renew(text))
        except FAILURES as error:
            self._failed(error)
            return
        self._outage.answered()

    async def _do(self, work: Callable[[], None]) -> None:
        """Do something in a thread. It goes on there if it takes too long, or if the wait is cancelled."""
        try:
            async with asyncio.timeout(PATIENCE):
                await in_thread(work, "redis_stream_client health file")
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, HANGS) from None

    def _failed(self, error: Exception) -> None:
        self._outage.failed(getattr(error, "strerror", None) or error)


class _Disk:
    """What is done in threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._removed = False
        self._written: tuple[int, ...] | None = None  # by which we know the file that we have written
        self._text = ""

    def clear(self) -> None:
        """Remove what an earlier process has left behind, and nothing else."""
        with self._alone(), contextlib.suppress(FileNotFoundError):
            if not _is_health_file(self._path):
                where = str(self._path)
                raise FileExistsError(
                    f"health_file={where!r}: something else lies there; remove it, or choose another path"
                )
            self._path.unlink()

    def renew(self, text: str) -> None:
        """Renew the time of the file, and have it contain this text."""
        with self._alone():
            if self._removed:
                return
            there = self._is_there()
            if there:  # even if the disk is full, and a new text cannot be written
                self._written = _touch(self._path)
            if not there or text != self._text:
                self._replace(text)

    def remove(self) -> None:
        """Remove the file, for good."""
        with self._lock:
            self._removed = True
            if self._is_there():
                self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """If a thread is stuck on the disk, others do not queue up behind it."""
        if not self._lock.acquire(blocking=False):
            raise OSError(errno.ETIMEDOUT, HANGS)
        try:
            yield
        finally:
            self._lock.release()

    def _is_there(self) -> bool:
        """Whether the file is there that we have written, and no other one."""
        try:
            return self._written is not None and self._written == _identity(self._path)
        except FileNotFoundError:
            return False

    def _replace(self, text: str) -> None:
        # A new file, which nobody else can have put there, takes the place of what is there, even of a link.
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        new = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
            new.chmod(0o644)  # a probe may run as another user
            written = _touch(new)
            new.replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        self._written, self._text = written, text


def _touch(path: Path) -> tuple[int, ...]:
    """Renew the time of our file. Returns its identity."""
    now = time.time_ns()
    if os.utime in os.supports_follow_symlinks:
        os.utime(path, ns=(now, now), follow_symlinks=False)
    else:
        os.utime(path, ns=(now, now))
    return _identity(path)


def _identity(path: Path) -> tuple[int, ...]:
    """What tells our file from others, which may get the inode of one that was removed: its time, too. We set that
    to a nanosecond; the system itself sets coarser ones."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mode, found.st_mtime_ns


def _is_health_file(path: Path) -> bool:
    """Whether a health file lies there, or an empty one. Raises ``FileNotFoundError`` if there is nothing."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        text = file.read(100)
    return not text or text.startswith((f"{READY}\n".encode(), NOT_READY.encode()))
