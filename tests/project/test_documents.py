"""What the documents name exists: modules, scripts, and the functions that the model is made after."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.harness.documents import PAGES, ROOT, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("benchmarks", "docs", "examples", "redis_stream_client", "tests")
DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
FILES = {f"/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
MODEL = ROOT / "tests" / "proof" / "model" / "README.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_names_exist(document: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.(?:py|lua))(?:::\w+)?`", document.read_text(encoding="utf-8")))
    named -= {block.name for block in blocks_of(document)}
    missing = {name for name in named if not any(file.endswith(f"/{name}") for file in FILES | {"/noxfile.py"})}
    assert not missing


LONGEST = 45
"""Words of a sentence in the documentation. Most have fewer than twenty."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    paragraphs = [part for part in re.split(r"\n\s*\n|\n(?=[-|*#>\d])", text) if not part.startswith("|")]
    for paragraph in paragraphs:
        words = re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", paragraph))
        for sentence in re.split(r"(?<=[.:;?!]) (?=[A-Z`*\[])", words):
            assert len(sentence.split()) <= LONGEST, sentence


def test_the_functions_that_the_model_is_made_after_exist() -> None:
    table = (
        MODEL.read_text(encoding="utf-8").partition("## The clients")[2].partition("\n\n")[2].partition("\n\n")[0]
    )
    modules = {path.stem: path for path in (ROOT / "redis_stream_client").rglob("*.py")}
    rows = re.findall(r"^\| [^|]+ \| (`.+`) \|$", table, re.MULTILINE)
    assert len(rows) > 5
    for row in rows:
        source = ""
        for module, name in re.findall(r"`(?:(\w+)\.)?(\w+)`", row):
            if module:
                source = modules[module].read_text(encoding="utf-8")
            assert re.search(rf"\b(def|class) {name}\b", source), f"{module}.{name} in {row}"
