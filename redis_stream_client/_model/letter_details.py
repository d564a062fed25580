"""What a dead letter says beyond its reason. Values."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LetterDetails:
    """Where a stream stood when it went to the dead letters, and what had happened to it.

    Attributes:
        position: the last checkpoint.
        last_entry: id of the last entry that the last handler was handed.
        error_type: class of the last error.
        error: text of the last error.
        failures: how often handlers had failed since the checkpoint last advanced.
        deaths: how many owners had died since then.
        failing_since: when that began, in seconds of Unix time.
    """

    position: str | None = None
    last_entry: str | None = None
    error_type: str | None = None
    error: str | None = None
    failures: int = 0
    deaths: int = 0
    failing_since: float | None = None

    def encode(self) -> str:
        """As it is stored: JSON, without what is not known."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in (None, 0)})


def decode(stored: bytes) -> LetterDetails:
    """What is stored, as far as it makes sense: a later version may say more, and anybody can write there."""
    try:
        said = json.loads(stored)
    except (ValueError, RecursionError):
        return LetterDetails()
    if not isinstance(said, dict):
        return LetterDetails()
    return LetterDetails(
        position=_text(said.get("position")),
        last_entry=_text(said.get("last_entry")),
        error_type=_text(said.get("error_type")),
        error=_text(said.get("error")),
        failures=_count(said.get("failures")),
        deaths=_count(said.get("deaths")),
        failing_since=_time(said.get("failing_since")),
    )


def split(description: str) -> tuple[str | None, str | None]:
    """The class and the text of an error that was described as ``Class: text``; a text that names no class has
    none."""
    kind, _, text = description.partition(": ")
    if kind.isidentifier():
        return kind, text or None
    return None, description or None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
