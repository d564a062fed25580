"""The scripts: each says at its head which keys and arguments it takes, and what it returns."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import redis_stream_client
from redis_stream_client._protocol import scripts

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from tests.harness.connection import Connection

FOLDER = files(redis_stream_client) / "_protocol" / "lua"
SCRIPTS = sorted((file for file in FOLDER.iterdir() if file.name.endswith(".lua")), key=lambda file: file.name)


@pytest.fixture(params=SCRIPTS, ids=lambda file: file.name.removesuffix(".lua"))
def script(request: pytest.FixtureRequest) -> Traversable:
    file: Traversable = request.param
    return file


def head_and_body(script: Traversable) -> tuple[str, str]:
    lines = script.read_text(encoding="utf-8").splitlines()
    length = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line[2:] for line in lines[:length]), "\n".join(lines[length:])


def section(head: str, name: str) -> str:
    """What the header says about KEYS, ARGV or Returns, with the lines that continue it."""
    found = re.search(rf"^ {name}(?P<text> +.*(?:\n {{3,}}.*)*)", head, re.MULTILINE)
    return found["text"] if found else ""


def numbered(text: str) -> set[int]:
    """The numbers of the items `1 something   2 something else`."""
    return {int(number) for number in re.findall(r"(?:^|\s\s|\n)\s*(\d+) (?=\S)", text)}


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 10


def test_a_script_is_headed_by_its_name_and_what_it_does(script: Traversable) -> None:
    head, _ = head_and_body(script)
    name = script.name.removesuffix(".lua")
    assert re.match(rf" {name}: \S", head)
    assert re.search(r"^\.? *Returns? ", head, re.MULTILINE)


@pytest.mark.parametrize("table", ["KEYS", "ARGV"])
def test_every_key_and_argument_that_a_script_uses_is_listed_and_no_other(script: Traversable, table: str) -> None:
    head, body = head_and_body(script)
    said = section(head, table)
    used = {int(number) for number in re.findall(rf"{table}\[(\d+)\]", body)}
    assert bool(said) == (table in body)
    if numbered(said):
        assert numbered(said) == used
    else:
        assert not used  # a list, which is gone through


def test_a_script_touches_declared_keys_only(script: Traversable) -> None:
    _, body = head_and_body(script)
    calls = re.findall(r"(?:redis\.p?call|try)\('([A-Z]+)', ([^,)]+)(?:, ([^,)]+))?", body)
    assert calls
    for command, first, second in calls:
        if command in ("TIME", "PUBLISH", "PUBSUB", "INFO"):
            continue
        key = {"XGROUP": second, "XINFO": second, "XREADGROUP": "KEYS"}.get(command, first)
        assert re.match(r"KEYS\b|unpack\(KEYS\b|lock(_of)?\b", key), f"{command} {key}"


def loads(function: ast.AST) -> list[str]:
    """The scripts that a function loads."""
    return [
        call.args[0].value
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "scripts.load"
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    ]


def test_every_script_has_one_stub_which_bears_its_name() -> None:
    stubs: list[tuple[str, str]] = []
    for module in Path(redis_stream_client.__file__).parent.rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        functions = [*tree.body, *(node for part in classes for node in part.body)]
        for function in functions:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                stubs += [(script, function.name.lstrip("_")) for script in loads(function)]
    names = [file.name.removesuffix(".lua") for file in SCRIPTS]
    assert sorted(stubs) == [(name, name) for name in names]


async def test_a_server_knows_a_script_by_the_name_that_is_computed_here(
    redis: Connection, script: Traversable
) -> None:
    loaded = scripts.load(script.name.removesuffix(".lua"))
    assert (await redis.script_load(loaded.text)) in (loaded.sha, loaded.sha.encode())
