"""The fields of the log records: the table has all that the package uses, and no others."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import redis_stream_client
from redis_stream_client._model.log_fields import Field, table

PACKAGE = Path(redis_stream_client.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

EVERY_LINE = {"service", "consumer"}
"""The fields that `Log` itself adds."""


def keys_of(tree: ast.AST) -> set[str]:
    """The keys of all dicts in ``extra=…``, and of those in what is annotated as `LogFields`."""
    tops: list[ast.AST] = []
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="extra"):
                tops.append(node.value)
            case ast.Call(func=ast.Attribute(attr="watch"), args=[_, ast.Lambda() as details]):
                tops.append(details)
            case (
                ast.FunctionDef(returns=ast.Name(id="LogFields"))
                | ast.AnnAssign(annotation=ast.Name(id="LogFields"))
            ):
                tops.append(node)
            case _:
                pass
    dicts = [node for top in tops for node in ast.walk(top) if isinstance(node, ast.Dict)]
    return {str(key.value) for each in dicts for key in each.keys if isinstance(key, ast.Constant)}


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
