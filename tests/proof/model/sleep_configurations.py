"""What is explored of sessions that sleep and wake, and in which bounds each mistake shows."""

from __future__ import annotations

from tests.proof.model.sleep_slips import Slip
from tests.proof.model.sleeping import Bounds

QUICK = {
    "two writers": Bounds("cc", sleeps=2),
    "two writers on one server": Bounds("oo", sleeps=2, done=1),
    "two who announce by hand": Bounds("hh", sleeps=2, done=1),
    "two writers, a producer dies, an owner is killed": Bounds("cc", dies=1, crash=1),
    "a writer, a lost message, a producer dies": Bounds("c", loss=1, dies=1),
    "a writer, a lapse, a producer dies": Bounds("c", lapse=1, dies=1),
    "one server, a lapse, a lost message": Bounds("o", lapse=1, loss=1, sleeps=2),
    "two by hand, a lost message": Bounds("hh", loss=1, sleeps=2, owners=1),
    "a writer, callers are cancelled": Bounds("c", cancel=1, dies=1, sleeps=2),
    "a writer and Go, a producer dies": Bounds("cg", dies=1),
    "three owners, a kill": Bounds("c", owners=3, crash=1, dies=1),
    "an older release": Bounds("c", old=1, done=1),
    "releases": Bounds("oo", release=1, crash=1),
}
"""With every change; some seconds in all."""

DEEP = {
    "a writer, a kill, a lost message, a producer dies": Bounds("c", sleeps=2, crash=1, loss=1, dies=1),
    "two writers, a lapse, a producer dies": Bounds("cc", lapse=1, dies=1),
    "two writers, a kill, a producer dies": Bounds("cc", sleeps=2, crash=1, dies=1),
    "two writers, a lost message, a producer dies": Bounds("cc", sleeps=2, loss=1, dies=1),
    "two writers, a lost message, callers are cancelled": Bounds("cc", cancel=1, loss=1),
    "three writers, a producer dies": Bounds("ccc", dies=1),
    "two writers, three owners, a kill": Bounds("cc", owners=3, crash=1),
    "one server, a kill, a lost message": Bounds("oo", sleeps=2, crash=1, loss=1),
    "one server, a lapse, two lost messages": Bounds("o", sleeps=2, lapse=1, loss=2),
    "one server, two lapses, callers are cancelled": Bounds("o", sleeps=2, lapse=2, cancel=1),
    "by hand, two lost messages": Bounds("hh", sleeps=2, loss=2),
    "by hand, a lapse, a lost message": Bounds("hh", lapse=1, loss=1),
    "a writer and one by hand, a kill, a lost message": Bounds("ch", crash=1, loss=1),
    "a writer and one by hand, two producers die, a lost message": Bounds("ch", loss=1, dies=2),
    "a writer, announced again, and by Go": Bounds("c", sleeps=2, again=1, go=1),
    "by hand, announced by Go, a lapse": Bounds("hh", go=1, lapse=1),
    "one server, announced by Go, finished without a look, a kill": Bounds("oo", go=1, done=1, crash=1),
    "an older release, a lost message": Bounds("c", old=1, done=2, sleeps=2, loss=1),
    "releases, a lost message, a producer dies": Bounds("c", sleeps=2, release=1, loss=1, dies=1),
}
"""Where a message is lost or a lock lapses, what was sent may be executed at any later time."""

G7, G10 = "G7", "G10"

SLIPS: dict[Slip, tuple[str, Bounds]] = {
    Slip.LOOKS_FIRST: (G7, Bounds("hh")),
    Slip.ANNOUNCES_FIRST_ONLY: (G7, Bounds("c")),
    Slip.ADDS_FIRST: (G7, Bounds("c", dies=1)),
    Slip.IGNORES_SLEEP: (G7, Bounds("c", dies=1)),
    Slip.NO_SECOND_LOOK: (G7, Bounds("c", owners=1, old=1, done=1)),
    Slip.UNVERIFIED: (G7, Bounds("hh", owners=1, old=1, done=1)),
    Slip.UNFENCED_FINISH: (G7, Bounds("hh", lapse=1, sleeps=2, owners=1)),
    Slip.DOZES_AT_HANDED_OUT: (G7, Bounds("c")),
    Slip.NEVER_RESTORES: (G10, Bounds("oo")),
    Slip.RESTORES_OVER: (G7, Bounds("hh", loss=1, sleeps=2, owners=1)),
    Slip.RESTORES_ANYWHERE: (G7, Bounds("hh", loss=1, sleeps=2, owners=1)),
    Slip.WITHHOLDS_LATE: (G7, Bounds("hh", loss=2, sleeps=2, owners=1)),
    Slip.WITHHOLDS_OWN: (G7, Bounds("hh", go=1, sleeps=2)),
    Slip.BEGIN_WAKES: (G7, Bounds("c", loss=1, dies=1)),
    Slip.AWAKE_WAKES: (G7, Bounds("ch", loss=1, dies=2, owners=1)),
    Slip.SLEEP_FOLLOWS_FENCE: (G7, Bounds("c", go=1, dies=1, sleeps=2, owners=1)),
    Slip.MARK_GOES_BACK: (G7, Bounds("c", go=1, dies=1, sleeps=2, owners=1)),
    Slip.SETTLES_AWAKE: (G7, Bounds("c", done=1, dies=1)),
    Slip.YIELDS_BLINDLY: (G7, Bounds("hh", go=1, done=1, sleeps=0)),
}
"""What each mistake breaks, and where it shows."""

HARMLESS: dict[Slip, Bounds] = {
    Slip.WRITE_IGNORES_SLEEP: Bounds("oo", loss=1, sleeps=2),
}
"""What is done all the same: what each attempt withholds, no other one restores, so the look adds nothing."""
