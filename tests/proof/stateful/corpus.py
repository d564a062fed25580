"""What failed once, as short as it could be made: by a bug, or with a library that was broken on purpose."""

from __future__ import annotations

from collections import defaultdict
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

BALANCING: dict[str, list[Step]] = {
    "a member without rebalancing neither gives nor asks": [
        ("begin", {"members": 1, "streams": 6, "pinned": 2}),
        ("join", {"rebalance": False}),
        ("announce", {"kind": "shared", "streams": 4}),
        ("forge", {"member": "A", "streams": 9, "times": 3}),
        ("join", {"weight": 2.0}),
        ("wait", {"seconds": 0.5}),
        ("write", {}),
    ],
    "nobody gives but a member without rebalancing has all": [
        ("join", {"rebalance": False}),
        ("begin", {"members": 0, "streams": 8}),
        ("taker_ends", {"how": "is cut off"}),
    ],
    "forged asks move nothing": [
        ("begin", {"members": 2, "streams": 12}),
        ("forge_in_vain", {"member": "stranger", "streams": 9, "times": 3}),
        ("forge_in_vain", {"member": "A", "streams": 9, "times": 3}),
    ],
    "givers die at each point": [
        ("begin", {"members": 2, "streams": 14}),
        ("giver_dies", {"when": "at work"}),
        ("giver_dies", {"when": "releasing"}),
        ("giver_dies", {"when": "released"}),
    ],
    "who asks does not stay": [
        ("begin", {"members": 1, "streams": 14, "pinned": 2}),
        ("taker_ends", {"how": "drains"}),
        ("taker_ends", {"how": "dies taking"}),
        ("taker_ends", {"how": "is cut off"}),
        ("taker_ends", {"how": "dies"}),
    ],
    "handlers that give come to no checkpoint for a while": [
        ("begin", {"members": 1, "streams": 10}),
        ("hold", {"holding": True}),
        ("write", {}),
        ("join", {}),
        ("wait", {"seconds": 0.6}),
        ("hold", {"holding": False}),
    ],
    # Those that had their share for the moment, while others still asked, took the fleet for even.
    "four join at once where one was": [
        ("begin", {"members": 1, "streams": 13}),
        *[("join", {})] * 4,
    ],
    "nobody hears the asks": [
        ("begin", {"members": 2, "streams": 12}),
        ("deafen", {"member": "A"}),
        ("deafen", {"member": "B"}),
        ("taker_ends", {"how": "drains"}),
    ],
}
"""How streams move, and what may come between: with rebalancing."""

HAPPENS: defaultdict[str, tuple[bool, dict[str, int]]] = defaultdict(
    lambda: (True, {}),
    {
        "nobody gives but a member without rebalancing has all": (False, {"asked": 1}),
        "givers die at each point": (
            True,
            {f"a giver died {when}": 1 for when in ("at work", "releasing", "released")},
        ),
        "who asks does not stay": (True, {"asked": 3, "dies taking": 1}),
        "nobody hears the asks": (True, {"asked": 1}),
    },
)
"""Whether anything moves in these, and what they must come to, or they prove nothing."""

DEAD_WRITER: list[Step] = [
    ("lose_a_writer_s", {"by": 0, "what": "late", "to": "append"}),
    ("write", {"stream": "entries-0", "by": 0, "wait": False}),
    ("wait", {"seconds": 0.4}),  # it has announced the stream, which has gone to sleep again
    ("lose_a_writer_s", {"by": 0, "what": "request", "to": "announce"}),
    ("wait", {"seconds": 1.2}),
    ("let_go", {}),  # its entry comes, and it does not look again
]
SLEEPING: dict[str, list[Step]] = {
    "a writer dies between two steps and its entry comes late": [
        ("begin", {"members": 1, "forgetful": False, "on_forgotten": "from_start"}),
        *DEAD_WRITER,
    ],
    "the same when the stream has a record": [
        ("begin", {"members": 2, "forgetful": False, "on_forgotten": "from_start"}),
        ("write", {"stream": "entries-0", "by": 1, "wait": True}),
        ("wait", {"seconds": 0.3}),
        *DEAD_WRITER,
    ],
    "an owner is done without a look before an entry comes late": [
        ("begin", {"members": 1, "forgetful": False, "on_forgotten": "from_start"}),
        ("finish", {"stream": "end-0"}),
        ("lose_a_writer_s", {"by": 1, "what": "late", "to": "append"}),
        ("write", {"stream": "end-0", "by": 1, "wait": False}),
        ("wait", {"seconds": 0.1}),
        ("let_go", {}),
    ],
    "an announcement is deleted before an entry comes late": [
        ("begin", {"members": 0, "forgetful": False, "on_forgotten": "from_start"}),
        ("lose_a_writer_s", {"by": 0, "what": "late", "to": "append"}),
        ("write", {"stream": "entries-0", "by": 0, "wait": False}),
        ("wait", {"seconds": 0.1}),
        ("delete_announcements", {}),
        ("let_go", {}),
    ],
    "an entry comes by hand before the stream is withheld": [
        ("begin", {"members": 1, "forgetful": False, "on_forgotten": "from_start"}),
        ("hold", {"member": "A", "to": "withhold"}),
        ("write", {"stream": "entries-0", "by": 0, "wait": True}),
        ("wait", {"seconds": 0.15}),
        ("by_hand", {"stream": "entries-0"}),
        ("let_go", {}),
    ],
    "an entry comes by hand between the look and the end": [
        ("begin", {"members": 1, "forgetful": False, "on_forgotten": "from_start"}),
        ("write", {"stream": "itself-0", "by": 0, "wait": True}),
        ("hold", {"member": "A", "to": "settle"}),
        ("wait", {"seconds": 0.15}),
        ("by_hand", {"stream": "itself-0"}),
        ("let_go", {}),
    ],
    "an entry comes by hand before the look, and its owner hears late that it may not sleep": [
        ("begin", {"members": 1, "forgetful": False, "on_forgotten": "from_start"}),
        ("hold", {"member": "A", "to": "doze"}),
        ("write", {"stream": "entries-1", "by": 0, "wait": True}),
        ("wait", {"seconds": 0.15}),
        ("by_hand", {"stream": "entries-1"}),
        ("let_go", {}),
    ],
    "two writers wake a stream without a record at once": [
        ("begin", {"members": 0, "forgetful": False, "on_forgotten": "from_now"}),
        ("lose_a_writer_s", {"by": 0, "what": "late", "to": "append"}),
        ("write", {"stream": "batches-0", "by": 0, "wait": False}),
        ("wait", {"seconds": 0.1}),
        ("write", {"stream": "batches-0", "by": 1, "wait": True}),
        ("let_go", {}),
        ("wait", {"seconds": 0.1}),
        ("join", {}),
    ],
    "an owner dies when its stream is withheld": [
        ("begin", {"members": 2, "forgetful": False, "on_forgotten": "from_start"}),
        ("hold", {"member": "A", "to": "doze"}),
        ("hold", {"member": "B", "to": "doze"}),
        ("write_to_all", {"by": 0}),
        ("wait", {"seconds": 0.15}),
        ("end", {"member": "A", "in_good_order": False}),
        ("end", {"member": "B", "in_good_order": False}),
        ("write_to_all", {"by": 1}),
        ("let_go", {}),
    ],
}
"""What comes between two steps of sleeping, waking and writing."""
