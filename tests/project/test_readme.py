"""The README: its first screen, its commands, and its links. What it shows is run in `test_pages.py`."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.harness.documents import ROOT, blocks_of

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks_of(README)
    if block.language == "console" and ".py" not in block.text
    for line in block.text.splitlines()
]
"""The commands of its console blocks without programs."""

DEMO, TESTS = 'pip install -e ".[demo]" && redis-stream-client demo', "pip install nox && nox"


def test_it_says_how_to_install_and_has_two_commands() -> None:
    assert [command for command in COMMANDS if "&&" in command] == [DEMO, TESTS]
    assert COMMANDS[0] == "pip install redis-stream-client"


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_the_test_command_is_the_one_of_the_continuous_integration() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution has no .ci")
    assert TESTS in script.read_text(encoding="utf-8")


def test_the_demo_command_is_the_one_of_nox() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    install, run = (shlex.split(command) for command in DEMO.split(" && "))
    assert install[:2] == ["pip", "install"]
    for call, words in (("session.install", install[2:]), ("session.run", run)):
        arguments = ", ".join(f'"{word}"' for word in words)
        assert f"{call}({arguments}" in noxfile


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
