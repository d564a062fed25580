"""Text that is safe to be shown: one line, no control characters, in the characters that the output has."""

import sys

ELLIPSIS = "..."


def printable(text: str, encoding: str | None = None) -> str:
    """The text in one line without control characters, in the characters of `encoding`, default that of standard
    output."""
    known = encoding or sys.stdout.encoding or "utf-8"
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown.encode(known, "backslashreplace").decode(known)


def clip(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis, in `width` characters."""
    if len(text) <= width:
        return text
    return text[: max(0, width - len(ELLIPSIS))] + ELLIPSIS[: max(0, width)]


def clip_middle(text: str, width: int) -> str:
    """As `clip`, but the end stays too: of ids that begin alike it tells them apart."""
    if len(text) <= width or width <= len(ELLIPSIS):
        return clip(text, width)
    kept = width - len(ELLIPSIS)
    end = kept // 2
    return text[: kept - end] + ELLIPSIS + text[len(text) - end :]


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A count with its noun. `nouns`: of more than one; default: with an ``s``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or f'{noun}s'}"
