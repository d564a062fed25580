"""Fixtures of the tests of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.commands import VARIABLES, CommandLine

if TYPE_CHECKING:
    from tests.harness.servers import Server


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment say nothing about Redis."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def command(server: Server, service: str, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Give what runs commands about `service` on `server`."""
    return CommandLine(capsys, server.url, service)
