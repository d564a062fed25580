"""The characters of pictures, and others for outputs that cannot show them."""

from dataclasses import dataclass

EIGHTHS = "▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters of one encoding.

    Attributes:
        block: a whole cell of a bar.
        parts: of a bar's last cell, from the least to the most; empty: bars have whole cells only.
        minus: in front of a loss.
        done, orphan, asleep: what stands for a stream without an owner.
        arrow: from one to another.
        dash: between the ends of a range.
    """

    block: str
    parts: str
    minus: str
    done: str
    orphan: str
    asleep: str
    arrow: str
    dash: str

    def bar(self, value: float, most: float, width: int) -> str:
        """A bar that is `width` cells long for the value `most`. What is not zero can be seen."""
        if value <= 0 or most <= 0 or width <= 0:
            return ""
        steps = len(self.parts) + 1
        length = max(1, round(min(value / most, 1) * width * steps))
        whole, rest = divmod(length, steps)
        return self.block * whole + (self.parts[rest - 1] if rest else "")

    def signed(self, change: int) -> str:
        """A gain or a loss; empty: neither."""
        if not change:
            return ""
        return f"+{change:,}" if change > 0 else f"{self.minus}{-change:,}"


UNICODE = Glyphs("█", EIGHTHS, "−", "✓", "·", "z", "→", "–")
ASCII = Glyphs("#", "", "-", "v", ".", "z", "->", "-")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Those that an output of this encoding can show."""
    try:
        "█▏−✓·→–".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
