"""The public interface: it is what the snapshot says, and its objects say where they are imported from."""

from __future__ import annotations

import ast
import copy
import difflib
import doctest
import inspect
import pickle
import pickletools
import traceback
import types
import typing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import redis_stream_client
from redis_stream_client import (
    EntriesTrimmed,
    Entry,
    ExpiredStream,
    Fence,
    Gap,
    Health,
    NotOwner,
    RedisUnavailable,
    StreamExpired,
    Stuck,
    testing,
)
from tests.project import api

if TYPE_CHECKING:
    from types import ModuleType

GAP = Gap("1-1", "5-1", 3)
OFFER = ExpiredStream("call-1", "1-1", {"caller": "Ada"}, "anna", 2)
VALUES: list[Any] = [
    *(Fence.of("1-1", 2), Entry("1-1", {b"a": b"b"}), GAP, OFFER, StreamExpired(OFFER)),
    *(Stuck("lease", "call-1", 7.0, "no handler"), Health(True, None, 1.0, None, 5.0, ())),
    testing.Outcome("done", None, "1-1", 1),
]
ERRORS = [
    NotOwner("lost", reason="claimed", stream="call-1", hint="stop"),
    EntriesTrimmed("trimmed", gap=GAP, stream="call-1", lbs_id="1-1", hint="look"),
    RedisUnavailable("no answer"),
]
EXPORTED = [
    pytest.param(module, name, id=f"{module.__name__}.{name}") for module in api.MODULES for name in module.__all__
]


def test_the_interface_is_the_one_of_the_snapshot() -> None:
    found = api.text()
    expected = api.SNAPSHOT.read_text(encoding="utf-8")
    changes = difflib.unified_diff(
        expected.splitlines(), found.splitlines(), "api.txt", "the code", n=2, lineterm=""
    )
    assert found == expected, "\n".join(
        ["the interface has changed; if that is meant: python -m tests.project.api", *changes]
    )


def test_what_is_not_exported_has_an_underscore_or_is_a_public_module() -> None:
    public = {name for name in vars(redis_stream_client) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(redis_stream_client, name), types.ModuleType)}
    assert public - modules == set(redis_stream_client.__all__) - {"__version__"}
    users_import = {"client", "producer", "dead_letters", "fleet", "testing", "telemetry"}
    assert modules <= users_import | {"cli", "demo", "terminal"}
    assert not set(testing.__all__) - set(vars(testing))


def documented_aliases() -> set[str]:
    """Every name of the package whose assignment is followed by a docstring."""
    names: set[str] = set()
    for path in Path(redis_stream_client.__file__).parent.rglob("*.py"):
        for first, second in pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            match first, second:
                case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str())):
                    names.add(name)
    return names


@pytest.mark.parametrize(("module", "name"), EXPORTED)
def test_an_export_and_its_members_are_documented(module: ModuleType, name: str) -> None:
    exported = getattr(module, name)
    if not isinstance(exported, type | types.FunctionType):
        assert name in documented_aliases() | {"__version__"}
        return
    assert exported.__doc__
    members = vars(exported).items() if isinstance(exported, type) else ()
    missing = [
        member
        for member, value in members
        if not member.startswith("_") and isinstance(value, types.FunctionType | property | classmethod)
        if not value.__doc__
    ]
    assert not missing


# Where they are imported from.


@pytest.mark.parametrize(("module", "name"), EXPORTED)
def test_an_export_says_where_it_is_imported_from(module: ModuleType, name: str) -> None:
    exported = getattr(module, name)
    if not isinstance(exported, type | types.FunctionType):
        assert "._" not in repr(exported)
        return
    assert exported.__module__ in (module.__name__, redis_stream_client.__name__)
    assert inspect.getmodule(exported) in api.MODULES
    assert pickle.loads(pickle.dumps(exported)) is exported


@pytest.mark.parametrize("value", [*VALUES, *ERRORS], ids=lambda value: type(value).__name__)
def test_a_pickle_names_no_private_module(value: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(value, protocol)
        words = [word for _, word, _ in pickletools.genops(pickled) if isinstance(word, str)]
        named = [word for word in words if word.startswith(redis_stream_client.__name__)]
        assert named
        assert not [word for word in named if "._" in word]
        for again in (pickle.loads(pickled), copy.copy(value), copy.deepcopy(value)):
            assert type(again) is type(value)
            assert repr(again) == repr(value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_traceback_shows_the_name_that_users_import(error: Exception) -> None:
    [*_, last] = traceback.format_exception_only(error)
    assert last.startswith(f"redis_stream_client.{type(error).__name__}: ")


@pytest.mark.parametrize(("module", "name"), EXPORTED)
def test_the_types_of_an_export_can_be_resolved(module: ModuleType, name: str) -> None:
    exported = getattr(module, name)
    if isinstance(exported, types.FunctionType):
        typing.get_type_hints(exported)
    if isinstance(exported, type):
        typing.get_type_hints(exported)
        for function in filter(inspect.isfunction, vars(exported).values()):
            typing.get_type_hints(function)


def test_doctest_finds_its_way() -> None:
    for module in api.MODULES:
        names = {found.name for found in doctest.DocTestFinder(exclude_empty=False).find(module)}
        first = next(name for name in module.__all__ if isinstance(getattr(module, name), type))
        assert f"{module.__name__}.{first}" in names
