"""Tables that come from the code: `parameters`, of a function or class, `log-fields`, and `metrics`."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

import redis_stream_client
from redis_stream_client._model.log_fields import table
from redis_stream_client.telemetry import ATTRIBUTES, METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docutils import nodes
    from sphinx.application import Sphinx

INDENT = re.compile(r"^ {4}(\*{0,2}\w+(?:, \w+)*): (.*)")


def described(docstring: str, section: str) -> dict[str, str]:
    """What a docstring says in its section `Args` or `Attributes`, by name."""
    lines = inspect.cleandoc(docstring).partition(f"{section}:\n")[2].splitlines()
    said: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        if found := INDENT.match(line):
            names = found[1].split(", ")
            said |= dict.fromkeys(names, found[2])
        elif names:
            said |= {name: f"{said[name]} {line.strip()}".strip() for name in names}
    return said


def default(parameter: inspect.Parameter) -> str:
    """The default of a parameter, as a user would write it; empty if it has none."""
    if parameter.default is inspect.Parameter.empty or "NOT_GIVEN" in repr(parameter.default):
        return ""
    if repr(parameter.default).startswith("<"):
        return ""
    return f"`{parameter.default!r}`"


def has_attributes(thing: object) -> bool:
    """Whether it is a dataclass, whose parameters are its attributes. It narrows no type."""
    return is_dataclass(thing)


class FromCode(SphinxDirective):
    """A table whose rows a subclass reads from the code."""

    def table(self, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[nodes.Node]:
        """Make the table, with Markdown in its cells."""
        lines = [header, ("---",) * len(header), *(tuple(c.replace("|", "\\|") for c in row) for row in rows)]
        return self.parse_text_to_nodes("\n".join(f"| {' | '.join(line)} |" for line in lines))


class Parameters(FromCode):
    """The keyword parameters of a function, method, or class of the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read its signature and its docstring."""
        thing: Any = redis_stream_client
        for part in self.arguments[0].split("."):
            thing = getattr(thing, part)
        said = described(thing.__doc__ or "", "Attributes" if has_attributes(thing) else "Args")
        parameters = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
        if missing := [p.name for p in parameters if p.name not in said]:
            raise self.error(f"the docstring of {self.arguments[0]} does not describe {missing}")
        names = {p.name for p in parameters}
        if unknown := said.keys() - names:
            raise self.error(f"the docstring of {self.arguments[0]} describes {unknown}, which is no parameter")
        return self.table(
            ("parameter", "default", "what"),
            ((f"`{p.name}`", default(p), said[p.name]) for p in parameters),
        )


class LogRecordFields(FromCode):
    """The fields of the records that the package logs."""

    def run(self) -> list[nodes.Node]:
        """Read the one table that the package has of them."""
        rows = ((f"`{field.name}`", f"`{field.type}`", field.meaning, field.lines) for field in table())
        return self.table(("field", "type", "what", "lines"), rows)


class Metrics(FromCode):
    """The metrics whose names begin with a prefix; with `attributes` what their attributes mean."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the one table that the package has of them."""
        prefix = self.arguments[0]
        if prefix == "attributes":
            return self.table(("attribute", "what"), ((f"`{name}`", what) for name, what in ATTRIBUTES.items()))
        metrics = [metric for metric in METRICS if metric.name.startswith(prefix)]
        if not prefix.endswith("fleet."):
            metrics = [metric for metric in metrics if ".fleet." not in metric.name]
        rows = []
        for metric in metrics:
            attributes = (
                f" By {', '.join(f'`{name}`' for name in metric.attributes)}." if metric.attributes else ""
            )
            kind = f"{metric.kind}, `{metric.unit}`"
            rows.append((f"`{metric.name}`<br>`{metric.prometheus}`", kind, metric.meaning + attributes))
        return self.table(("metric; its name in Prometheus", "type, unit", "what"), rows)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives to Sphinx."""
    app.add_directive("parameters", Parameters)
    app.add_directive("log-fields", LogRecordFields)
    app.add_directive("metrics", Metrics)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
