"""The table of faults in `tests/README.md`: it names tests that exist, and every test of `test_fault_*.py`."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

FAULTS = Path(__file__).parent
TESTS = FAULTS.parent
NAMED = re.compile(r"`(\w+/test_\w+\.py)::(test_\w+)`")


def table() -> list[list[str]]:
    """The rows' cells."""
    section = (TESTS / "README.md").read_text().partition("\n## The faults\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@functools.cache
def found_in(file: str) -> set[str]:
    """The names of the tests in a file; none if there is no such file."""
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in functions if name.startswith("test_")}


def test_every_fault_names_its_tests_and_they_exist() -> None:
    rows = table()
    assert len(rows) > 20
    for fault, *cells in rows:
        assert len(cells) == 2, fault
        for cell in cells:
            assert NAMED.search(cell) or cell == "the same", f"{fault} names no test: {cell!r}"
            assert len(NAMED.findall(cell)) == cell.count("::"), f"{fault}: {cell!r} cannot be read"
        missing = [name for name in NAMED.findall(" ".join(cells)) if name[1] not in found_in(name[0])]
        assert not missing, f"{fault} names tests that do not exist: {missing}"


def test_every_test_of_a_fault_is_named() -> None:
    named = {test for row in table() for test in NAMED.findall(" ".join(row))}
    files = {f"faults/{path.name}" for path in FAULTS.glob("test_fault_*.py")} - {f"faults/{Path(__file__).name}"}
    assert files
    assert {(file, test) for file in files for test in found_in(file)} <= named
