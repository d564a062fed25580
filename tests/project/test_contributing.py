"""CONTRIBUTING.md is true: its rooms are those of the structure test, and its commands and files exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.harness.documents import ROOT
from tests.project.test_structure import GROUND, MAY_IMPORT

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, re.MULTILINE)
PACKAGE = ROOT / "redis_stream_client"


def rooms() -> Iterator[tuple[str, set[str]]]:
    """Every room of the table, with the rooms that it may import."""
    table = TEXT.partition("## The rooms")[2].partition("\n## ")[0]
    for names, _, imported in re.findall(r"^\| (`.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            yield name, set(re.findall(r"`(\w+)`", imported)) | (GROUND if "the ground" in imported else set())


def test_the_rooms_are_those_of_the_structure_test() -> None:
    tested = {room: {imported.partition(".")[0] for imported in may} for room, may in MAY_IMPORT.items()}
    in_words = {room: tested.pop(room) for room in ("cli", "demo", "telemetry", "__main__") if room in tested}
    assert dict(rooms()) == tested
    assert "`cli`, `demo` and `telemetry` import public names only." in TEXT
    assert not [name for may in in_words.values() for name in may if name.startswith("_")]


def test_every_room_of_the_package_is_named() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {name for name in folders if f"`{name}`" not in TEXT} == set()


def test_the_commands_are_those_of_nox_and_of_the_readme() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session", noxfile, re.MULTILINE))
    for command in COMMANDS:
        program, *words = shlex.split(command, comments=True)
        if program == "nox":
            named = words[1 : words.index("--") if "--" in words else None]
            assert words[0] == "-s"
            assert {name.partition("(")[0] for name in named} <= sessions, command
    assert 'pip install -e ".[dev]"' in COMMANDS
    assert "(CONTRIBUTING.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b((?:tests|_\w+|redis_stream_client)/[\w/.]+)", TEXT))))
def test_the_files_that_it_names_exist(path: str) -> None:
    assert (ROOT / path).exists() or (PACKAGE / path).exists() or path.endswith(("/test_", "/lua/")), path


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_hooks_have_the_tools_of_the_continuous_integration() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    if not config.exists():
        pytest.skip("a source distribution has no hooks")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = set(re.findall(r"(?:ruff|codespell|proselint)==[\w.]+", config.read_text(encoding="utf-8")))
    assert pinned == set(project["optional-dependencies"]["lint"])
