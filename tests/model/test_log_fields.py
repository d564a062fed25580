"""The fields of the log records: the table has all that the package uses, and no others."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import redis_stream_client
from redis_stream_client._model.log_fields import Field, LogFields, table

PACKAGE = Path(redis_stream_client.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

EVERY_LINE = {"service", "consumer"}
"""The fields that `Log` itself adds."""


def keys_of(tree: ast.AST) -> set[str]:
    """The keys of all dicts in ``extra=…``, and in what functions return that are to return `LogFields`."""
    dicts: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "extra":
            dicts.append(node.value)
        elif isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name):
            if node.returns.id == LogFields.__name__:
                dicts.append(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name):
            if node.annotation.id == LogFields.__name__ and node.value is not None:
                dicts.append(node.value)
    found: set[str] = set()
    for each in (node for top in dicts for node in ast.walk(top)):
        if isinstance(each, ast.Dict):
            found |= {
                key.value for key in each.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
    return found


def test_the_table_has_every_field_that_the_package_uses_and_no_other() -> None:
    used = set[str]().union(*(keys_of(ast.parse(module.read_text())) for module in MODULES))
    assert used | EVERY_LINE == {field.name for field in table()}


def test_no_field_is_an_attribute_that_log_records_have_anyway() -> None:
    record = logging.LogRecord("name", logging.INFO, "path", 1, "text", (), None)
    taken = {*vars(record), "message", "asctime"}
    assert not taken & {field.name for field in table()}


@pytest.mark.parametrize("field", table(), ids=lambda field: field.name)
def test_the_table_says_what_each_field_is(field: Field) -> None:
    assert field.name.isidentifier()
    assert field.type in ("str", "int", "float")
    assert field.meaning
    assert field.lines
