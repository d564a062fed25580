"""What the README contains: programs, what they print, commands, and the rule for permissions."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
"""The fenced blocks, in order: language and text."""
PROGRAMS = {text.partition("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language == "python"}
SESSION = next(text for language, text in BLOCKS if language == "console" and "worker.py" in text)
OUTPUTS = {
    first[1].partition("\n")[0].removeprefix("# "): second[1]
    for first, second in pairwise(BLOCKS)
    if (first[0], second[0]) == ("python", "text")
}
"""What the programs print that a block of text follows at once."""
COMMANDS = [
    line.removeprefix("$ ")
    for language, text in BLOCKS
    if language == "console" and text != SESSION
    for line in text.splitlines()
    if line.startswith("$ ")
]
"""The commands of the console blocks without programs."""
RULE, PRODUCER_RULE, WRITER_RULE, DATA_RULE, RETENTION_RULE, FLEET_RULE, OPERATOR_RULE = (
    shlex.split(text) for _, text in BLOCKS if text.startswith("ACL SETUSER")
)
"""The smallest rule for a service, that for a producer, what one that writes needs on top, what handlers that read
need on top of the first, what trims and deletes streams, the rule for who looks at the fleet, and what who
acts on it needs on top, word for word."""
