"""The probes of `run()`: a health file and a health port, for as long as it runs."""

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.lifecycle import Lifecycle
from redis_stream_client._model.logs import Log
from redis_stream_client._run import answers
from redis_stream_client._run.answers import Answer
from redis_stream_client._run.health_file import HealthFile
from redis_stream_client._run.probe_server import ProbeServer

REUSE = 1.0
"""Seconds for which a look at the health serves all probes: with 10,000 leases it takes 10 ms, and who asks on the
port may do so as often as it likes. What is stuck has been so for longer than that."""


class Probes:
    """Answers the probes of one client in `run()`. Without a file and a port it does nothing.

    Args:
        lifecycle: the client.
        draining: whether `run()` drains.
        health_file: see `RedisStreamClient.run`.
        health_port: likewise.
        health_host: likewise.

    Raises:
        TypeError, ValueError: an argument is not allowed.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        draining: Callable[[], bool],
        *,
        health_file: str | os.PathLike[str] | None,
        health_port: int | None,
        health_host: str,
    ) -> None:
        self._lifecycle = lifecycle
        self._draining = draining
        self._joined = False
        self._looked: tuple[float, Answer] | None = None
        self._path, port, host = _path(health_file), _port(health_port), _host(health_host)
        self._file: HealthFile | None = None
        self._server: ProbeServer | None = None
        if port is not None:
            self._server = ProbeServer(host, port, {"/livez": self._live, "/readyz": self._ready})

    @property
    def port(self) -> int | None:
        """The port that is open now."""
        return self._server.port if self._server is not None else None

    async def open(self) -> None:
        """Open the port, and remove the file of an earlier process, before joining.

        Raises:
            OSError: the port is in use, or something that is no health file lies where the file should be.
        """
        if self._server is not None:
            await self._server.open()
        try:
            if self._path is not None:
                self._file = self._make_file(self._path)
                await self._file.open()
        except BaseException:
            await self.close()
            raise

    def joined(self) -> None:
        """The client has joined, and its handlers start."""
        self._joined = True
        if self._file is not None:
            self._file.start()

    def look(self) -> None:
        """The client may not be ready any more: say so at once."""
        if self._file is not None:
            self._file.look()

    async def close(self) -> None:
        """Close the port, and remove the file. If the wait is cancelled, both happen all the same."""
        if self._server is not None:
            self._server.close()
        if self._file is not None:
            await self._file.close()

    def _live(self) -> Answer:
        lifecycle = self._lifecycle
        closed = lifecycle.closed and not self._draining()  # the end of a drain closes it, too
        return answers.live(failure=lifecycle.failure, closed=closed)

    def _ready(self) -> Answer:
        live = self._live()
        if not live.ok:
            return Answer(False, f"{answers.NOT_READY}: {live.text}")
        now, lifecycle = clock.now(), self._lifecycle
        if self._looked is None or now >= self._looked[0] + REUSE or self._draining() or not lifecycle.alive:
            parts = lifecycle.parts
            self._looked = (
                now,
                answers.ready(
                    lifecycle.health(),
                    joined=self._joined,
                    draining=self._draining(),
                    full=parts is not None and not parts.capacity.free,
                ),
            )
        return self._looked[1]

    def _make_file(self, path: Path) -> HealthFile:
        options = self._lifecycle.options  # as they are in the process that joins
        log = Log(service=options.keys.service, consumer=options.consumer)
        return HealthFile(path, options.pace / 2, live=self._live, ready=self._ready, log=log)


def _path(value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or isinstance(path := os.fspath(value), bytes):
        raise TypeError(f"health_file must be a path or None, not {type(value).__name__}")
    if not path or "\0" in path or not Path(path).name or not _encodable(path):
        raise ValueError(f"health_file must be the path of a file, not {path!r}")
    return Path(path).absolute()  # whatever the program makes its working directory later


def _encodable(path: str) -> bool:
    try:
        return bool(os.fsencode(path))
    except UnicodeEncodeError:
        return False


def _port(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"health_port must be an int or None, not {type(value).__name__}")
    if not 0 <= value <= 65535:
        raise ValueError(f"health_port must be between 0 and 65535, not {value}")
    return value


def _host(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"health_host must be a str, not {type(value).__name__}")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(
            f"health_host must be an IP address, such as '127.0.0.1' or '0.0.0.0', not {value!r}"
        ) from None
    return value
