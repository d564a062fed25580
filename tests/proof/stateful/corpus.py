"""What failed once, as short as it could be made: by a bug, or with a library that was broken on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.proof.stateful.script import Step

CORPUS: dict[str, list[Step]] = {
    # The reply to one request was given to the next: a connection was lost in the moment in which it opened. That
    # moment is rarely met; redis/test_connection.py meets it for certain.
    "reset again and again while it connects": [
        ("begin", {"consumers": 2, "streams": 2}),
        *[
            step
            for _ in range(4)
            for step in (
                ("cut", {"consumer": "A"}),
                ("stall", {"consumer": "A", "past_its_lock": False}),
                ("cut", {"consumer": "A"}),
                ("wake", {"consumer": "A"}),
                ("read", {}),
            )
        ],
    ],
    # `claim` that does not look at the owner's lock.
    "claimed when its owner is back": [
        ("begin", {"consumers": 1, "streams": 1}),
        ("join", {}),
        ("stall", {"consumer": "A", "past_its_lock": True}),
        ("read", {}),
        ("wake", {"consumer": "A"}),
        ("checkpoint", {"by": "A", "stream": "s1"}),
        ("claim", {"by": "B", "stream": "s1"}),
        ("read", {}),
    ],
    # `done` that does not compare the delivery count.
    "an old done comes late": [
        ("begin", {"consumers": 1, "streams": 1}),
        ("release", {"by": "A", "stream": "s1"}),
        ("claim", {"by": "A", "stream": "s1"}),
        ("done_arrives_late", {"by": "A", "stream": "s1"}),
    ],
    # An audit beside a claim, which disowns what is just arriving.
    "claimed while it audits": [
        ("begin", {"consumers": 1, "streams": 2}),
        ("join", {}),
        ("end", {"consumer": "A", "in_good_order": True}),
        ("read", {}),
        ("cut", {"consumer": "B"}),
        ("hiccup", {}),
        ("claim", {"by": "B", "stream": "s1"}),
        ("cut", {"consumer": "B"}),
        ("hiccup", {}),
        ("claim", {"by": "B", "stream": "s2"}),
    ],
}
