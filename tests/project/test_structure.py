"""The plan of the package: which room may import which, and that no import runs in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import redis_stream_client

NAME = "redis_stream_client"
PACKAGE = Path(redis_stream_client.__file__).parent

GROUND = {"_model", "_concurrency"}
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
    "testing": GROUND
    | {"_leases", "_redis.pooled", "_run.handler", "_run.handler_task", "_run.outcome", "_run.watchdogs"},
}
"""Of each room: the rooms, and of some the modules, that it may import. Of its own room each may import all."""

PUBLIC = {"", "client", "producer", "dead_letters", "testing"}
"""What users import; so do the command line and the demo, which have no key to a private room."""


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name, without the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports anywhere in it, also for types only."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == NAME:
            base = node.module.removeprefix(NAME).removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if inner in MODULES else base)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == NAME:
                    found.add(alias.name.removeprefix(NAME).removeprefix("."))
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def allowed(module: str, imported: str) -> bool:
    own = room(module)
    if own == room(imported) != "":
        return True
    if own in MAY_IMPORT:
        return room(imported) in MAY_IMPORT[own] or imported in MAY_IMPORT[own]
    if own == "":
        return True  # the face shows what the rooms made
    if own == "__main__":
        return imported == "cli"
    return room(imported) in PUBLIC


NOT_YET = {
    "cli",
    "cli.dead",
    "demo.truth",
}
"""What is still to be straightened; none may be added."""


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=[pytest.mark.xfail] if name in NOT_YET else []) for name in sorted(MODULES)],
)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert {imported for imported in imports(module) if not allowed(module, imported)} == set()


def test_no_import_runs_in_a_circle() -> None:
    graph = {module: imports(module) - {""} for module in MODULES if module}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_what_is_owned_and_believed_knows_no_redis() -> None:
    for module, tree in MODULES.items():
        if room(module) != "_leases":
            continue
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        names |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        assert not {name for name in names if name.split(".")[0] in ("redis", "hiredis")}, module


SPEAK_REDIS = {"_redis", "_protocol", "_streams", "producer", "dead_letters", "fleet", "testing"}
"""Where Redis commands are named: rooms that speak Redis, and public modules that ask it something alone."""

COMMANDS = {
    "ACL", "ASKING", "AUTH", "CLIENT", "CLUSTER", "CONFIG", "DEL", "DISCARD", "ECHO", "EVAL", "EVALSHA",
    "EXEC", "EXISTS", "EXPIRE", "FCALL", "FLUSHALL", "FLUSHDB", "FUNCTION", "GET", "HDEL", "HELLO", "HGET",
    "HGETALL", "HMGET", "HSET", "INCR", "INFO", "KEYS", "LATENCY", "MEMORY", "MONITOR", "MULTI", "PERSIST",
    "PEXPIRE", "PEXPIREAT", "PING", "PSUBSCRIBE", "PTTL", "PUBLISH", "PUNSUBSCRIBE", "QUIT", "READONLY",
    "REPLICAOF", "RESET", "ROLE", "SCAN", "SCRIPT", "SELECT", "SENTINEL", "SET", "SLOWLOG", "SPUBLISH",
    "SSUBSCRIBE", "SUBSCRIBE", "TIME", "TTL", "TYPE", "UNLINK", "UNSUBSCRIBE", "UNWATCH", "WAIT", "WATCH",
    "XACK", "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XGROUP", "XINFO", "XLEN", "XPENDING", "XRANGE",
    "XREAD", "XREADGROUP", "XREVRANGE", "XSETID", "XTRIM",
}  # fmt: skip


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes of text that is an expression of its own."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def test_redis_commands_are_named_where_redis_is_spoken_only() -> None:
    named: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        texts = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in texts:
                word = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
                if word.split(" ")[0] in COMMANDS:
                    named.setdefault(module, set()).add(word)
    assert {module: words for module, words in named.items() if room(module) not in SPEAK_REDIS} == {}
    assert named.keys() & {"_protocol.pending", "producer"}, "the search finds what there is"


def test_only_the_protocol_runs_its_scripts() -> None:
    loading = {module for module in MODULES if "_protocol.scripts" in imports(module)}
    assert {room(module) for module in loading} == {"_protocol"}
