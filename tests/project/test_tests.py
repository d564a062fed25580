"""The tests mirror the rooms: whoever opens a module finds its tests by name, and no test reaches inside."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import redis_stream_client

PACKAGE = Path(redis_stream_client.__file__).parent
TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent

ROOMS = sorted(path.name for path in PACKAGE.glob("_[a-z]*") if path.is_dir())
"""Private rooms. The tests of `_leases` are in `tests/leases/`."""

OTHERS = {"cli", "demo", "faults", "harness", "project", "proof", "public", "telemetry", "terminal", "testing"}
"""Folders of tests that mirror no private room."""

WITHOUT_TESTS = {
    "_consumer.parts": "it puts the parts together; every test with a client does so",
    "_leases.events": "dataclasses; `public/test_client.py` matches them",
    "_model.orders": "dataclasses; `public/test_fleet_orders.py` asserts them",
    "_model.leaving": "durations; `consumer/test_session_leaving.py` holds leaving to them",
    "_model.version": "one constant; `cli/test_demo.py` has the command line print it",
    "_protocol.replies": "dataclasses; the tests of each stub compare them",
    "_ownership.redis_backend": "it hands each call on; `testing/test_contract.py` tests what a lease promises",
}
"""Modules without tests by their name, and why."""

ABOUT_NO_MODULE = {
    "public/test_permissions.py": "commands and keys that a user's ACL rule must allow, for all modules",
    "redis/test_facts.py": "it tests the servers, not the package",
}
"""Test files that are named after no module, and why."""

FILES = sorted(TESTS.rglob("*.py"))
TEST_FILES = [path for path in FILES if path.name.startswith("test_")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def named(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def modules(room: str) -> set[str]:
    return {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}


def module_of(path: Path, known: set[str]) -> str | None:
    """The module that a test file is named after, with or without more words: the longest name that fits."""
    name = path.stem.removeprefix("test_")
    fitting = [module for module in known if name == module or name.startswith(f"{module}_")]
    return max(fitting, key=len, default=None)


def test_files(folder: str) -> list[Path]:
    return [path for path in TEST_FILES if path.parent == TESTS / folder]


test_files.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_tests_by_its_name(room: str) -> None:
    known = modules(room)
    tested = {module_of(path, known) for path in test_files(room.removeprefix("_"))}
    missing = {f"{room}.{module}" for module in known if module not in tested}
    assert missing == {name for name in WITHOUT_TESTS if name.startswith(f"{room}.")}


@pytest.mark.parametrize("room", [*ROOMS, "cli", "demo", "telemetry", "terminal"])
def test_every_test_file_of_a_room_is_named_after_a_module(room: str) -> None:
    known = modules(room)
    strangers = {named(path) for path in test_files(room.removeprefix("_")) if module_of(path, known) is None}
    assert strangers - ABOUT_NO_MODULE.keys() == set()


def test_the_public_tests_are_named_after_public_modules() -> None:
    known = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    strangers = {named(path) for path in test_files("public") if module_of(path, known) is None}
    assert strangers - ABOUT_NO_MODULE.keys() == set()


def test_the_exceptions_are_still_there() -> None:
    assert [name for name in ABOUT_NO_MODULE if not (TESTS / name).exists()] == []
    known = {f"{room}.{module}" for room in ROOMS for module in modules(room)}
    assert set(WITHOUT_TESTS) <= known


def test_each_test_lies_in_a_room() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TEST_FILES}
    assert folders == {room.removeprefix("_") for room in ROOMS} | OTHERS


def test_each_test_file_says_what_it_holds() -> None:
    headers = {path: (ast.get_docstring(TREES[path]) or "").split("\n\n")[0] for path in TEST_FILES}
    assert [named(path) for path, header in headers.items() if not header.endswith((".", ":"))] == []


# Nobody reaches into private parts. Ruff's SLF001 finds `object._part`; here is what it does not see.

NAMEDTUPLE = {"_fields", "_field_defaults"}
"""Public names, which have an underscore so that no field's name is one of them."""


def private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name not in NAMEDTUPLE


REACHING = ("getattr", "setattr", "delattr", "hasattr", "object")
"""Functions that take an object and the name of an attribute; `patch.object` is one."""


def reaches(tree: ast.Module) -> list[int]:
    """The lines that name a private part in a string, or import a private name of the package."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("redis_stream_client"):
            found += [node.lineno for alias in node.names if private(alias.name) and alias.name not in ROOMS]
        if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found += [node.lineno] if function in REACHING and private(node.args[1].value) else []
    return found


def test_the_search_finds_what_there_is() -> None:
    lines = [
        'getattr(session, "_beats")',
        'monkeypatch.setattr(Sweeper, "_sleep", fail)',
        'patch.object(a, "_b", c)',
    ]
    lines += ["from redis_stream_client._leases.table import _private", 'getattr(session, "beats")']
    assert sorted(reaches(ast.parse("\n".join(lines)))) == [1, 2, 3, 4]


def test_no_test_reaches_into_private_parts() -> None:
    assert [f"{named(path)}:{line}" for path in FILES for line in reaches(TREES[path])] == []
    excused = re.compile(r"#\s*noqa:.*\bSLF")
    assert [named(path) for path in FILES if excused.search(path.read_text(encoding="utf-8"))] == []


def test_no_test_and_no_benchmark_is_excused() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "SLF" in lint["select"]
    excused = [path for path, rules in lint["per-file-ignores"].items() if "SLF" in rules or "SLF001" in rules]
    assert [path for path in excused if path.startswith(("tests", "benchmarks", "examples"))] == []


# What names tests names such as there are.


@pytest.mark.parametrize(
    "file", [".ci/run", "noxfile.py", "CONTRIBUTING.md", "README.md", "tests/README.md", "benchmarks/README.md"]
)
def test_the_tests_that_are_named_exist(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    paths = set(re.findall(r"\btests(?:/\w+)+(?:\.py)?(?![\w{.])", text)) - {"tests/README"}
    missing = {path for path in paths if not (ROOT / path).exists()}
    if file == "tests/README.md":
        paths = set(re.findall(r"`([\w/]+/\w+\.py)(?:::\w+)?`", text))
        missing |= {path for path in paths if not any((where / path).exists() for where in (TESTS, PACKAGE))}
    assert missing == set()


def test_each_tool_is_in_the_readme() -> None:
    tools = (
        (TESTS / "README.md").read_text(encoding="utf-8").partition("\n## The tools\n")[2].partition("\n## ")[0]
    )
    tools_there = {path.name for path in (TESTS / "harness").glob("[a-z]*.py")}
    named_there = set(re.findall(r"`(\w+\.py)`", tools)) - {"conftest.py"}
    assert named_there == {name for name in tools_there if not name.startswith("test_")}
