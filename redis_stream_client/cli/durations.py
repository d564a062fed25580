"""Durations as people write them: ``30s``, ``5m``, ``1h30m``, or seconds."""

import math
import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"


def parse_duration(text: str) -> float:
    """The seconds of ``1h30m``, ``500ms`` or ``30``. Raises ``ValueError``."""
    written = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", written, re.ASCII):
        seconds = float(written)
    elif re.fullmatch(f"(?:{_PART})+", written, re.ASCII):
        seconds = sum(float(count) * UNITS[unit] for count, unit in re.findall(_PART, written, re.ASCII))
    else:
        raise ValueError(f"{text!r} is not a duration, such as 30s, 5m, 1h30m, or a number of seconds")
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is too long")
    return seconds


def show_duration(seconds: float) -> str:
    """In words: two units at most, and a tenth of a second below ten."""
    seconds = max(0.0, seconds)
    if 0 < seconds < 0.1:
        return "<0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, size, smaller, part in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86400, "h", 3600)):
        count, rest = divmod(whole, size)
        if unit == "d" or whole < size * (24 if unit == "h" else 60):
            rest //= part
            return f"{count} {unit} {rest} {smaller}" if rest else f"{count} {unit}"
    raise AssertionError("days have no end")
