"""The documents and what stands in them: README.md and the pages of docs/, block by block."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<excuse>[^\n]+) -->\n)?^```(?P<language>[\w-]+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NAME = re.compile(r"# ([\w./-]+\.py)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document.

    Attributes:
        page: the file.
        line: the line at which it begins.
        language: what stands behind its fence, such as `python`.
        text: what it contains.
        excuse: why it is not run, if a comment before it says so.
        output: the text of the block of language `text` that follows it, if it is Python and one does at once.
    """

    page: Path
    line: int
    language: str
    text: str
    excuse: str | None
    output: str | None

    @property
    def name(self) -> str | None:
        """The name of a program: its first line is a comment with nothing else."""
        found = _NAME.match(self.text) if self.language == "python" else None
        return found.group(1) if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a document, in order, but for the directives of the documentation's builder."""
    document = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(document))
    blocks = []
    for match, following in zip(found, [*found[1:], None], strict=False):
        output = None
        if match["language"] == "python" and following is not None and following["language"] == "text":
            between = document[match.end() : following.start()]
            output = following["text"] if not between.strip() and following["excuse"] is None else None
        line = document.count("\n", 0, match.start("language")) + 1
        blocks.append(Block(page, line, match["language"], match["text"], match["excuse"], output))
    return blocks


def mismatch(shown: list[str], printed: list[str]) -> str | None:
    """Say how what was printed differs from what a document shows, line by line. `…` stands for anything."""
    for number, line in enumerate(shown):
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        if number >= len(printed):
            return f"not printed: {line!r}"
        if not re.fullmatch(pattern, printed[number]):
            return f"shown: {line!r}, printed: {printed[number]!r}"
    return f"printed, and not shown: {printed[len(shown)]!r}" if len(printed) > len(shown) else None
