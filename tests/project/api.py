"""The public interface as text: `python -m tests.project.api` writes it to `api.txt`, which a test compares.

It shows what `from redis_stream_client import *`, `redis_stream_client.testing` and `.telemetry` give: names,
signatures with types and defaults, methods, properties and attributes. Classes that users get and cannot import
come at the end. Types are written by hand here, since each version of Python prints them in its own way.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis_stream_client
import redis_stream_client.telemetry
import redis_stream_client.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

PACKAGE = redis_stream_client.__name__
MODULES: tuple[ModuleType, ...] = (
    redis_stream_client,
    redis_stream_client.testing,
    redis_stream_client.telemetry,
)
SNAPSHOT = Path(__file__).parent / "api.txt"
WIDTH = 110

SPECIAL = {
    *("__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__", "__call__", "__contains__", "__enter__"),
    *("__exit__", "__getitem__", "__iter__", "__len__", "__str__"),
}
"""The special methods that are shown, where a class of ours defines them."""


def exported() -> set[Any]:
    """Every class that users can import."""
    return {
        value for module in MODULES for name in module.__all__ if isinstance(value := getattr(module, name), type)
    }


def aliases() -> dict[str, Any]:
    """Every alias of a type that users can import."""
    values = {name: getattr(module, name) for module in MODULES for name in module.__all__}
    return {name: value for name, value in values.items() if typing.get_origin(value) is not None}


def is_private(kind: object) -> bool:
    """Whether this is a class of ours that users cannot import."""
    return isinstance(kind, type) and kind.__module__.partition(".")[0] == PACKAGE and kind not in exported()


# Types.


def type_text(said: Any) -> str:
    """A type as one would write it, with the aliases that are exported."""
    return next((name for name, alias in aliases().items() if alias == said), None) or written_out(said)


def written_out(said: Any) -> str:
    """A type as one would write it without an alias for it."""
    if said is inspect.Parameter.empty:
        return "?"
    if said is types.TracebackType:  # Python calls it `traceback`
        return "TracebackType"
    if said is None or said is type(None):
        return "None"
    if said is ...:
        return "..."
    if isinstance(said, str):
        return said
    if isinstance(said, list):
        return f"[{', '.join(map(type_text, said))}]"
    if isinstance(said, typing.ForwardRef):
        return said.__forward_arg__
    origin, arguments = typing.get_origin(said), typing.get_args(said)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_text, arguments))
    if origin is not None and arguments:
        outer = "Unpack" if origin is typing.Unpack else type_text(origin)
        return f"{outer}[{', '.join(map(type_text, arguments))}]"
    return str(getattr(said, "__qualname__", None) or getattr(said, "__name__", None) or said)


def classes_in(said: Any) -> Iterator[type]:
    """Every class that a type is made of."""
    if isinstance(said, type) and not typing.get_args(said):
        yield said
    for argument in [*typing.get_args(said), typing.get_origin(said)]:
        if argument is not None:
            yield from classes_in(argument)


# Functions.


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """A signature with its types resolved, where they are there at run time."""
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:
        return inspect.signature(function)


def parameters_text(found: inspect.Signature) -> list[str]:
    """The parameters but `self` and `cls`, each as one would write it."""
    texts: list[str] = []
    kinds = [parameter.kind for parameter in found.parameters.values()]
    starred = inspect.Parameter.VAR_POSITIONAL in kinds
    for name, parameter in found.parameters.items():
        if name in ("self", "cls") and not texts:
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            texts.append("*")
        stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        text = f"{stars.get(parameter.kind, '')}{name}: {type_text(parameter.annotation)}"
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {parameter.default!r}"
        texts.append(text)
    return texts


def function_lines(name: str, function: Callable[..., Any], decorator: str = "") -> Iterator[str]:
    """A function, and each of its overloads if it has some."""
    waits = "async " if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else ""
    for shown in typing.get_overloads(function) or [function]:
        found = signature(shown)
        parameters, result = parameters_text(found), type_text(found.return_annotation)
        if decorator:
            yield decorator
        line = f"{waits}def {name}({', '.join(parameters)}) -> {result}"
        if len(line) <= WIDTH:
            yield line
        else:
            yield f"{waits}def {name}("
            yield from (f"    {parameter}," for parameter in parameters)
            yield f") -> {result}"
        for parameter in found.parameters.values():
            if typing.get_origin(parameter.annotation) is typing.Unpack:
                [keywords] = typing.get_args(parameter.annotation)
                hints = typing.get_type_hints(keywords)
                yield from (f"    {key}: {type_text(hint)}" for key, hint in hints.items())


# Classes.


def own(kind: type) -> list[type]:
    """The class, and those of its bases that are ours and that users cannot import."""
    return [kind, *(base for base in kind.__mro__[1:] if is_private(base))]


def class_line(kind: type) -> str:
    """A class with its bases, and with what `dataclass` was told."""
    bases = [type_text(base) for base in kind.__bases__ if base is not object and not is_private(base)]
    if issubclass(kind, tuple):
        bases = ["NamedTuple"]
    line = f"class {kind.__qualname__}({', '.join(bases)})" if bases else f"class {kind.__qualname__}"
    if not dataclasses.is_dataclass(kind):
        return line
    told = [name for name in ("frozen", "order") if getattr(kind.__dataclass_params__, name)]  # type: ignore[attr-defined]
    told += ["slots"] if "__slots__" in vars(kind) else []
    return f"@dataclass({', '.join(told)}) {line}"


def attributes_of(kind: type) -> Iterator[tuple[str, str]]:
    """What `__init__` sets, in its order, each with its type, as far as it is written there."""
    constructor = vars(kind).get("__init__")
    if not isinstance(constructor, types.FunctionType) or dataclasses.is_dataclass(kind):
        return
    hints = signature(constructor).parameters
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(constructor)))):
        match node:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=said):
                yield name, ast.unparse(said)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                given = hints.get(value.id) if isinstance(value, ast.Name) else None
                yield name, "?" if given is None else type_text(given.annotation)


def constructor_lines(kind: type) -> Iterator[str]:
    """The constructor, where it is for users; one that takes what they cannot have is not."""
    found = vars(kind).get("__init__")
    if dataclasses.is_dataclass(kind) or issubclass(kind, tuple) or not isinstance(found, types.FunctionType):
        return
    taken = [
        taken for parameter in signature(found).parameters.values() for taken in classes_in(parameter.annotation)
    ]
    if is_private(kind) or any(is_private(one) for one in taken):
        yield "# made by the library only"
    else:
        yield from function_lines("__init__", found)


def field_lines(kind: type) -> Iterator[str]:
    """The fields of a dataclass or named tuple, with defaults; else what is annotated in the class."""
    defaults: dict[str, Any] = getattr(kind, "_field_defaults", {})
    if dataclasses.is_dataclass(kind):
        options = {field.name: field for field in dataclasses.fields(kind)}
        defaults = {
            name: field.default for name, field in options.items() if field.default is not dataclasses.MISSING
        }
    for name, said in inspect.get_annotations(kind, eval_str=False).items():
        if not name.startswith("_"):
            default = defaults.get(name, vars(kind).get(name, inspect.Parameter.empty))
            plain = default is inspect.Parameter.empty or inspect.isdatadescriptor(default)
            yield f"{name}: {type_text(said)}" + ("" if plain else f" = {default!r}")


def member_lines(kind: type) -> Iterator[str]:
    """What a class defines itself, and what it has from private bases: in alphabetical order, but for fields."""
    yield from constructor_lines(kind)
    fields: dict[str, None] = {}
    members: dict[str, Any] = {}
    for base in reversed(own(kind)):
        fields |= dict.fromkeys(field_lines(base))
        fields |= dict.fromkeys(f"{name}: {said}" for name, said in attributes_of(base) if name[0] != "_")
        members |= vars(base)
    yield from fields
    for name, member in sorted(members.items()):
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(member, property):
            assert member.fget is not None
            yield f"{name}: {type_text(signature(member.fget).return_annotation)}  # property"
        elif isinstance(member, classmethod | staticmethod):
            yield from function_lines(name, member.__func__, f"@{type(member).__name__}")
        elif isinstance(member, types.FunctionType):
            yield from function_lines(name, member)


def class_lines(kind: type) -> Iterator[str]:
    """A class and its members."""
    yield class_line(kind)
    yield from textwrap.indent("\n".join(member_lines(kind)), "    ").splitlines()


def results_of(kind: type) -> Iterator[type]:
    """The classes that a class gives to its users."""
    for member in vars(kind).values():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if isinstance(function, types.FunctionType) and (
            not function.__name__.startswith("_") or function.__name__ in SPECIAL
        ):
            yield from classes_in(signature(function).return_annotation)


def text() -> str:
    """The whole interface."""
    lines = ["# The public interface. `python -m tests.project.api` writes this file."]
    reachable: dict[str, type] = {}
    for module in MODULES:
        lines += ["", "", f"# {module.__name__}"]
        for name in sorted(module.__all__):
            value = getattr(module, name)
            lines.append("")
            if isinstance(value, type) and value.__module__ != module.__name__:
                lines.append(f"{name} is {value.__module__}.{value.__qualname__}")
            elif isinstance(value, type):
                lines += class_lines(value)
                reachable |= {kind.__qualname__: kind for kind in results_of(value) if is_private(kind)}
            elif isinstance(value, types.FunctionType):
                lines += function_lines(name, value)
            elif isinstance(value, str):
                lines.append(f"{name}: str")
            elif isinstance(value, tuple | dict):  # what is in it, and for a dict not what it says of that
                lines += [f"{name}: {type(value).__name__}", *(f"    {item}" for item in value)]
            else:
                lines.append(f"{name} = {written_out(value)}")
    lines += ["", "", "# What users get, and do not import"]
    for _, kind in sorted(reachable.items()):
        lines += ["", *class_lines(kind)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    SNAPSHOT.write_text(text(), encoding="utf-8")
    print(f"wrote {SNAPSHOT}")
