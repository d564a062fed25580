"""Links names of the public interface to the reference.

In a page, inline code such as `RedisStreamClient`, `client.drain()` or `RetryPolicy(patience=60)` becomes a link
by itself. One that looks like a part of the interface, and is none, is a warning: so no page names a method that
is gone. In a docstring, a name in single backticks is a link if it can be one.
"""

from __future__ import annotations

import pkgutil
import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import redis_stream_client
from redis_stream_client import testing

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.domains.python import PythonDomain
    from sphinx.environment import BuildEnvironment

log = logging.getLogger(__name__)

VARIABLES = {
    "client": "RedisStreamClient",
    "controller": "testing.Controller",
    "fleet": "Fleet",
    "fleet.status()": "FleetStatus",
    "lease": "Lease",
    "letter": "DeadLetter",
    "letters": "DeadLetters",
    "producer": "LoadBalancerStream",
    "client.statistics()": "Statistics",
    "client.health()": "Health",
}
"""What the pages call the objects of which they name members."""

FUNCTIONS = {
    "run": "RedisStreamClient.run",
    "events": "RedisStreamClient.events",
    "entries": "Lease.entries",
    "batches": "Lease.batches",
    "checkpoint": "Lease.checkpoint",
    "write": "LoadBalancerStream.write",
    "add": "LoadBalancerStream.add",
    "claim": "RedisStreamClient.claim",
    "done_if_idle": "Lease.done_if_idle",
}
"""Methods that the pages name without their object."""

NOT_MADE = {"Lease", "EventIterator", "Entry", "Handler"}
"""Classes whose objects users are given."""

PRIVATE = re.compile(r".*\b(T|Running|Entries|Batches|Parameters|EventSource)")
"""Names in signatures that are not part of the interface."""

FIELDS = re.compile(
    r"(?:~?collections\.abc\.Mapping\[[^]]+\] \| ){2}~?collections\.abc\.Mapping\[str \| bytes[^]]+\]"
)
"""What one writes as the fields of an entry, for the type checkers."""

PACKAGE = "redis_stream_client"
NAME = re.compile(r"([A-Za-z_][\w.]*(?:\(\))?(?:\.\w+)*)(\(.*\))?$")


def target_of(code: str) -> str | None:
    """The full name of the part of the interface that a piece of code names, or None if it names none."""
    found = NAME.match(code.removeprefix("await ").removeprefix("async with "))
    if found is None:
        return None
    name, called = found.group(1), found.group(2) is not None or code.endswith("()")
    if not name.startswith(f"{PACKAGE}."):
        for variable in sorted(VARIABLES, key=len, reverse=True):
            if name.startswith(f"{variable}."):
                return f"{PACKAGE}.{VARIABLES[variable]}{name[len(variable) :].removesuffix('()')}"
    name = name.removeprefix(f"{PACKAGE}.")
    name = name.removesuffix("()")
    if called and name in FUNCTIONS:
        return f"{PACKAGE}.{FUNCTIONS[name]}"
    first = name.partition(".")[0]
    known = first in redis_stream_client.__all__ or (first == "testing" and name != first)
    return f"{PACKAGE}.{name}" if known else None


class Links(SphinxPostTransform):
    """Makes links of the names in the pages."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        """Look at all inline code of a page that is in no link and no heading."""
        domain: PythonDomain = self.env.domains.python_domain
        for literal in list(self.document.findall(nodes.literal)):
            if literal.get("language") or isinstance(literal.parent, (nodes.reference, nodes.title)):
                continue
            if "xref" in literal.get("classes", []):
                continue
            name = target_of(literal.astext())
            if name is None:
                continue
            entry = domain.objects.get(name)
            if entry is None:
                if self.is_there(name):
                    continue
                log.warning("there is no %s", name, location=literal, type="api", subtype="name")
                continue
            link = make_refnode(
                self.app.builder, self.env.docname, entry.docname, entry.node_id, literal.deepcopy(), name
            )
            literal.parent.replace(literal, link)

    @staticmethod
    def is_there(name: str) -> bool:
        """Whether a name that the reference does not have can be reached all the same."""
        thing: Any = redis_stream_client
        for part in name.split(".")[1:]:
            if thing is redis_stream_client and part == "testing":
                thing = testing
            elif not hasattr(thing, part):
                return part in getattr(thing, "__annotations__", {})
            else:
                thing = getattr(thing, part)
        return True


def leave_alone(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.Element
) -> nodes.Node | None:
    """What a docstring names and the reference does not have is a parameter, a key, or private. If it is written
    as a class or as a member, it is a mistake."""
    target = node["reftarget"]
    if target.startswith(f"{PACKAGE}._") or PRIVATE.fullmatch(target):
        return contnode
    full = f"{PACKAGE}.{FUNCTIONS.get(target, target)}"
    there = env.domains.python_domain.objects
    entry = there.get(full)
    if entry is None and target[:1].isupper():  # a type that only has a name in its own module
        entry = next((there[name] for name in there if name.endswith(f".{target}")), None)
    if entry is None:
        return None if target[:1].isupper() or "." in target else contnode
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, full)


def unsplit(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before the first colon of a property's docstring for its type."""
    if what in ("property", "attribute") and lines:
        lines[:0] = ["..", ""]


def unmade(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show no constructor of a class whose objects users get, and no stand-in for an argument that is left out."""
    if what == "class" and name.rpartition(".")[2] in NOT_MADE:
        return "", None
    if not signature:
        return None
    signature = re.sub(r"\| [\w.~]+\.NotGiven (.*?)<not given>", r"\1...", signature)
    return FIELDS.sub("~collections.abc.Mapping[str | bytes, str | bytes | int | float]", signature), returns


def find_sources(app: Sphinx) -> None:
    """Tell autodoc in which order the sources have the members. The classes say that they are the package's own,
    and not in which module they lie, so it would not find them, and take the alphabet's order."""
    face = ModuleAnalyzer.for_module(PACKAGE)
    face.analyze()
    for module in pkgutil.walk_packages(redis_stream_client.__path__, f"{PACKAGE}."):
        if module.name.split(".")[1] not in ("__main__", "cli", "demo"):
            analyzer = ModuleAnalyzer.for_module(module.name)
            analyzer.analyze()
            for name, order in analyzer.tagorder.items():
                face.tagorder.setdefault(name, len(face.tagorder) + order)


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that the reference does not have."""
    there = env.domains.python_domain.objects
    for name in redis_stream_client.__all__:
        if f"{PACKAGE}.{name}" not in there and not name.startswith("__"):
            log.warning("%s is in no page of the reference", name, type="api", subtype="name")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add all this to Sphinx."""
    app.add_post_transform(Links)
    app.connect("missing-reference", leave_alone)
    app.connect("autodoc-process-docstring", unsplit, priority=400)
    app.connect("autodoc-process-signature", unmade)
    app.connect("builder-inited", find_sources)
    app.connect("env-check-consistency", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
