"""A server whose clock a test can set: libfaketime between the server and the system's clock."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.servers import Server

DEBIAN = ("/usr/lib", "*/faketime/libfaketime.so.1")


def libfaketime() -> Path | None:
    """Where the library is: in the Python package of that name, or in Debian's."""
    package = importlib.util.find_spec("libfaketime")
    places = [Path(place) for place in package.submodule_search_locations or ()] if package else []
    found = [file for place in places for file in place.rglob("libfaketime.so.1")]
    return next(iter([*found, *Path(DEBIAN[0]).glob(DEBIAN[1])]), None)


class ClockedServer(Server):
    """A server that believes what it is told about the time of day. Its other clocks never jump."""

    def jump(self, seconds: float) -> None:
        """Set its clock forward or back, from what it is."""
        self._offset += seconds
        self._write()

    def start(self) -> None:
        """Start with the system's time. Skips the test where no clock can be set."""
        library = libfaketime()
        if library is None:
            pytest.skip("NOT TESTED with a real clock: libfaketime is missing")
        self._environment = [
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]
        self._offset = 0.0
        self._write()
        if not self._starts_with_it():
            pytest.skip(f"NOT TESTED with a real clock: {self.binary.name} does not start with {library}")
        super().start()
        if not self._jumps():
            pytest.skip(f"NOT TESTED with a real clock: {library} has no effect on {self.binary.name}")

    def _command_line(self) -> list[str]:
        return ["env", *self._environment, *super()._command_line()]

    @property
    def _file(self) -> Path:
        return self.directory / "clock"

    def _write(self) -> None:
        """In one step, since the server may read at any time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._offset:+.6f}\n")
        new.rename(self._file)

    def _starts_with_it(self) -> bool:
        """Some allocators ask for the time before the library is ready to tell it."""
        try:
            asked = subprocess.run(
                ["env", *self._environment, self.binary.path, "--version"],
                capture_output=True,
                check=False,
                timeout=5,
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0 and b"libfaketime" not in asked.stderr

    def _jumps(self) -> bool:
        self.jump(86_400)
        ahead = int(self.command("TIME")[0]) - time.time()
        self.jump(-86_400)
        return ahead > 86_000
