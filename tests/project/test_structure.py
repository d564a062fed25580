"""The plan of the package: which room may import which, that no import runs in a circle, where Redis commands are
named, and that nobody reaches into another object's private parts.

A room is a folder of the package, or one of its public modules. A test that fails here names the line to change:
hand the thing in as a parameter, or move it to a room that both may import. `MAY_IMPORT` is the plan itself.
"""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import redis_stream_client

NAME = "redis_stream_client"
PACKAGE = Path(redis_stream_client.__file__).parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"

GROUND = {"_model", "_concurrency"}
PUBLIC = {"", "client", "producer", "dead_letters", "fleet", "testing"}
"""What users import; so do the command line and the demo, which have no key to a private room."""

MAY_IMPORT = {
    "_model": set[str](),
    "_concurrency": set[str](),
    "_redis": GROUND,
    "_leases": GROUND,
    "_protocol": GROUND | {"_redis", "_leases"},
    "_streams": GROUND | {"_redis", "_leases", "_protocol"},
    "_ownership": GROUND | {"_redis", "_leases", "_protocol", "_streams"},
    "_consumer": GROUND | {"_redis", "_leases", "_protocol", "_streams", "_ownership"},
    "_run": GROUND | {"_redis", "_leases", "_protocol", "_streams", "_ownership", "_consumer"},
    "client": GROUND | {"_redis", "_leases", "_protocol", "_streams", "_ownership", "_consumer", "_run"},
    "producer": GROUND | {"_redis", "_leases", "_protocol"},
    "dead_letters": GROUND | {"_redis", "_leases", "_protocol"},
    "fleet": GROUND | {"_redis", "_leases", "_protocol"},
    "testing": GROUND
    | {"_leases", "_redis.pooled", "_run.handler", "_run.handler_task", "_run.outcome", "_run.watchdogs"},
    "telemetry": PUBLIC,
    "terminal": set[str](),
    "demo": PUBLIC | {"terminal"},
    "cli": PUBLIC | {"terminal", "demo"},
    "__main__": {"cli"},
}
"""Of each room: the rooms, and of some the modules, that it may import. Of its own room each may import all.

The rooms stand from the ground up, so what a room may import stands above it here.
"""

SPEAK_REDIS = {"_redis", "_protocol", "_streams", "producer", "dead_letters", "fleet", "testing"}
"""Where Redis commands are named: rooms that speak Redis, and public modules that ask it something alone."""

COMMANDS = {
    "ACL", "ASKING", "AUTH", "CLIENT", "CLUSTER", "CONFIG", "DEL", "DISCARD", "ECHO", "EVAL", "EVALSHA",
    "EXEC", "EXISTS", "EXPIRE", "FCALL", "FLUSHALL", "FLUSHDB", "FUNCTION", "GET", "HDEL", "HELLO", "HGET",
    "HGETALL", "HKEYS", "HMGET", "HSET", "INCR", "INFO", "KEYS", "LATENCY", "MEMORY", "MGET", "MONITOR",
    "MULTI", "PERSIST", "PEXPIRE", "PEXPIREAT", "PING", "PSUBSCRIBE", "PTTL", "PUBLISH", "PUNSUBSCRIBE", "QUIT",
    "READONLY", "REPLICAOF", "RESET", "ROLE", "SCAN", "SCRIPT", "SELECT", "SENTINEL", "SET", "SLOWLOG", "SPUBLISH",
    "SSUBSCRIBE", "SUBSCRIBE", "TIME", "TTL", "TYPE", "UNLINK", "UNSUBSCRIBE", "UNWATCH", "WAIT", "WATCH",
    "XACK", "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XGROUP", "XINFO", "XLEN", "XPENDING", "XRANGE",
    "XREAD", "XREADGROUP", "XREVRANGE", "XSETID", "XTRIM",
}  # fmt: skip


class Import(NamedTuple):
    """One module of ours that another one imports, also where it does so for types only or in a function."""

    module: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its name, without the package's own; the package itself has an empty one."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
SOURCES = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}


def imports(module: str) -> list[Import]:
    found: list[Import] = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(module, node.lineno)}: name the package in full"
            assert node.module is not None
            for alias in node.names:
                inner = ours(f"{node.module}.{alias.name}")
                outer = ours(node.module)
                if outer is not None:
                    found.append(Import(inner if inner in MODULES else outer, node.lineno))
        elif isinstance(node, ast.Import):
            found += [Import(name, node.lineno) for a in node.names if (name := ours(a.name)) is not None]
    return found


def ours(name: str) -> str | None:
    """The name of a module within the package; None for one that is not of the package."""
    first, _, rest = name.partition(".")
    return rest if first == NAME else None


def room(module: str) -> str:
    return module.split(".")[0]


def where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(PACKAGE.parent)}:{line}"


def allowed(module: str, imported: str) -> bool:
    own = room(module)
    if own in (room(imported), ""):  # the package's face shows what the rooms made
        return True
    return room(imported) in MAY_IMPORT[own] or imported in MAY_IMPORT[own]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    for imported, line in imports(module):
        if not allowed(module, imported):
            may = ", ".join(sorted(name or "the package itself" for name in MAY_IMPORT[room(module)]))
            pytest.fail(f"{where(module, line)} imports {imported}; {room(module)} may import {may or 'nothing'}")


def test_every_room_is_in_the_plan_and_imports_only_rooms_below_it() -> None:
    assert {room(module) for module in MODULES} - {""} == set(MAY_IMPORT)
    below: set[str] = set()
    for name, may in MAY_IMPORT.items():
        upwards = {room(imported) for imported in may} - below - PUBLIC
        assert not upwards, f"{name} stands below {', '.join(upwards)}"
        below.add(name)


def test_no_import_runs_in_a_circle() -> None:
    graph = {module: {imported for imported, _ in imports(module)} - {""} for module in MODULES if module}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = error.args[1]  # each is imported by the next
        lines = [
            f"{where(module, line)} imports {imported}"
            for imported, module in pairwise(circle)
            for line in [next(line for name, line in imports(module) if name == imported)]
        ]
        pytest.fail("a circle, also if some are for types only:\n" + "\n".join(lines))


@pytest.mark.parametrize("name", ["_leases", "_model", "_concurrency"])
def test_what_knows_no_redis_imports_none(name: str) -> None:
    for module, tree in TREES.items():
        if room(module) != name:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                redis = {name for name in names if name.split(".")[0] in ("redis", "hiredis")}
                assert not redis, f"{where(module, node.lineno)} imports {redis}"


def test_model_and_concurrency_never_import_each_other() -> None:
    for module in MODULES:
        for imported, line in imports(module):
            if room(module) in GROUND:
                assert room(imported) == room(module), f"{where(module, line)} imports {imported}"


def test_redis_commands_are_named_where_redis_is_spoken_only() -> None:
    found = 0
    for module, tree in TREES.items():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str | bytes)
                and id(node) not in docstrings
            ):
                text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
                if text.split(" ")[0] in COMMANDS:
                    assert room(module) in SPEAK_REDIS, f"{where(module, node.lineno)} names {text}"
                    found += 1
    assert found > 20, "the search finds what there is"


def test_only_the_protocol_runs_its_scripts() -> None:
    for module in MODULES:
        for imported, line in imports(module):
            if imported == "_protocol.scripts":
                assert room(module) == "_protocol", f"{where(module, line)} imports {imported}"


def test_nobody_is_excused_from_staying_out_of_private_parts() -> None:
    """Ruff's SLF001 finds who reaches into them; here is that nobody in the package is excused from it."""
    for module, source in SOURCES.items():
        for number, line in enumerate(source.splitlines(), 1):
            excuse = re.search(r"#\s*(?:ruff:\s*)?noqa(?!:\s*[A-Z])|#.*noqa:.*\bSLF", line)
            assert excuse is None, f"{where(module, number)}: {line.strip()}"
    lint = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "SLF" in lint["select"]
    assert not {rule for rule in lint["ignore"] if rule.startswith("SLF")}
    ignores = lint["per-file-ignores"].items()
    excused = {files for files, rules in ignores if any(rule.startswith("SLF") for rule in rules)}
    assert not excused
