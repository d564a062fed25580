"""Draws `docs/_static/how-it-works.svg`: `python docs/_diagrams/how_it_works.py`. A test compares the two."""

from __future__ import annotations

from html import escape
from pathlib import Path

TARGET = Path(__file__).parent.parent / "_static" / "how-it-works.svg"

WIDTH, HEIGHT = 960, 470
INK, FAINT, LINE = "#1f2933", "#52606d", "#9aa5b1"
REDIS, REDIS_EDGE = "#fdf3f2", "#d64545"
ALIVE, ALIVE_EDGE = "#eaf5ee", "#2f8f5b"
DEAD, DEAD_EDGE = "#f1f2f4", "#9aa5b1"
STEP = "#2457a6"

STYLE = f"""
text {{ font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: {INK} }}
.head {{ font-weight: 600 }}
.small {{ font-size: 12px; fill: {FAINT} }}
.code {{ font: 12.5px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace }}
.step {{ font-size: 12px; font-weight: 700; fill: #fff }}
"""


def box(x: int, y: int, width: int, height: int, fill: str, edge: str, dashed: bool = False) -> str:
    """A box with round corners."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{edge}"'
        f' stroke-width="1.5"{dash}/>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(path: str, colour: str = INK, dashed: bool = False) -> str:
    """A line that ends in an arrow."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    kind = {INK: "ink", REDIS_EDGE: "red", ALIVE_EDGE: "green"}[colour]
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" marker-end="url(#{kind})"{dash}/>'


def step(x: int, y: int, number: int) -> str:
    """The number of a step."""
    return f'<circle cx="{x}" cy="{y}" r="10" fill="{STEP}"/>{text(x, y + 4.5, str(number), "step", "middle")}'


def marker(name: str, colour: str) -> str:
    """The point of an arrow."""
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
        f' orient="auto"><path d="M0 0 10 5 0 10z" fill="{colour}"/></marker>'
    )


def drawing() -> list[str]:
    """Everything in the picture, from back to front."""
    return [
        # Redis
        box(230, 16, 400, 338, REDIS, REDIS_EDGE),
        text(246, 40, "Redis", "head"),
        box(250, 54, 360, 82, "#fff", LINE),
        text(264, 76, "load balancer stream and its group", "head"),
        text(264, 98, "orders-input", "code"),
        text(264, 122, "call-17", "code"),
        text(330, 122, "pending for", "small"),
        text(404, 122, "anna", "code"),
        '<path d="M402 118h34" stroke="#d64545" stroke-width="1.8"/>',
        text(446, 122, "bob", "code"),
        text(482, 122, "= its owner", "small"),
        box(250, 150, 172, 80, "#fff", LINE),
        text(264, 172, "consumer locks", "head"),
        text(264, 194, "…:lock:anna", "code"),
        '<path d="M262 190h84" stroke="#d64545" stroke-width="1.8"/>',
        text(264, 216, "…:lock:bob", "code"),
        text(356, 216, "2 s", "small"),
        box(438, 150, 172, 80, "#fff", LINE),
        text(452, 172, "progress record", "head"),
        text(452, 194, "checkpoint 2-0", "code"),
        text(452, 216, "fence …-2", "code"),
        box(250, 244, 360, 94, "#fff", LINE),
        text(264, 266, "data streams", "head"),
        text(264, 290, "call-17", "code"),
        *(box(330 + 58 * n, 276, 50, 22, ALIVE if n < 2 else "#fff", ALIVE_EDGE) for n in range(4)),
        *(text(355 + 58 * n, 291, f"{n + 1}-0", "code", "middle") for n in range(4)),
        text(264, 322, "call-18", "code"),
        *(box(330 + 58 * n, 308, 50, 22, "#fff", ALIVE_EDGE) for n in range(2)),
        *(text(355 + 58 * n, 323, f"{n + 1}-0", "code", "middle") for n in range(2)),
        # the producer
        box(24, 150, 140, 80, "#fff", LINE),
        text(94, 185, "producer", "head", "middle"),
        text(94, 207, "write(…)", "code", "middle"),
        arrow("M164 178C200 178 196 96 246 96"),
        arrow("M164 204C206 204 200 288 246 288"),
        step(206, 190, 1),
        # the consumers
        box(726, 40, 206, 96, DEAD, DEAD_EDGE, dashed=True),
        text(742, 64, "anna", "head"),
        text(742, 88, "killed, frozen or cut off", "small"),
        text(742, 112, "her late writes are refused", "small"),
        '<path d="M898 52l22 22m0-22l-22 22" stroke="#d64545" stroke-width="3"/>',
        box(726, 190, 206, 148, ALIVE, ALIVE_EDGE),
        text(742, 214, "bob", "head"),
        text(742, 238, "claims call-17: exactly one", "small"),
        text(742, 255, "live consumer wins", "small"),
        text(742, 284, "goes on after checkpoint 2-0", "small"),
        text(742, 313, "renews one lock, however", "small"),
        text(742, 330, "many streams he owns", "small"),
        arrow("M610 84C660 84 670 76 722 76"),
        step(668, 79, 2),
        arrow("M726 118C680 150 650 170 614 180", REDIS_EDGE, dashed=True),
        step(702, 133, 3),
        arrow("M726 236C660 236 690 120 614 116", ALIVE_EDGE),
        step(682, 206, 4),
        arrow("M614 300C660 300 680 296 722 296", ALIVE_EDGE),
        step(668, 299, 5),
        # what the steps are
        *(
            part
            for x, steps in ((24, (1, 2, 3)), (530, (4, 5)))
            for row, number in enumerate(steps)
            for part in (step(x + 10, 382 + 28 * row, number), text(x + 30, 387 + 28 * row, WORDS[number]))
        ),
    ]


WORDS = {
    1: "A producer adds entries; the first one announces the stream.",
    2: "The group hands the announcement to anna: she owns call-17.",
    3: "Anna dies: her lock goes. What she still sends is refused.",
    4: "Bob claims the stream: it is now pending for him.",
    5: "He reads on where the last checkpoint is.",
}


def svg() -> str:
    """The picture as a file."""
    label = "A producer, Redis and two consumers: when anna dies, bob claims her stream"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        f"<defs>{marker('ink', INK)}{marker('red', REDIS_EDGE)}{marker('green', ALIVE_EDGE)}</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fff"/>',
        *drawing(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(svg(), encoding="utf-8")
