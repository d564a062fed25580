"""A fleet in `run()` whose handlers fail and whose members die, step by step, and who may be buried in the end.

What is known of a stream is in its name: those of `good` streams can be processed, once what befalls them is over;
the others never. All else is looked up in Redis.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from redis_stream_client import RetryLater, RetryPolicy
from tests.harness.runs import END
from tests.proof.stateful.machine import BUSY
from tests.proof.stateful.members import LOCK_TTL, MOST, Member, MembersFleet

if TYPE_CHECKING:
    from redis_stream_client import Fence, Lease
    from tests.harness.servers import Server

LONGEST_PAUSE = 0.2
ON_AGAIN = LONGEST_PAUSE + 2 * LOCK_TTL + BUSY
"""Seconds within which all go on after an outage: a pause, a take-over, and what a busy machine adds."""
HEALED = 90.0
"""Seconds within which all is finished or buried at the end. Most scripts need one or two. If one member has met
nothing but poison, it takes that for an outage until fewer than three have failed for a minute."""
GOOD, KNOWN, POISON = "good", "known", "poison"
SCRIPTS = ("begin", "fail", "checkpoint", "settle", "release", "bury", "done", "claim_many")


class Known(Exception):
    """The handler knows that nobody can process the stream."""


POLICY = RetryPolicy(max_attempts=6, patience=1.5, first_pause=0.02, longest_pause=LONGEST_PAUSE, bury_on=(Known,))


class World:
    """What handlers find, and what they have done.

    Args:
        accepted: the entries by stream whose checkpoints were accepted, each after the fence under which it was.
    """

    def __init__(self, accepted: dict[str, list[tuple[Fence, str]]]) -> None:
        self._accepted = accepted
        self.away = False
        """Whether what all of them need is away."""
        self.stumbles: dict[str, str] = {}
        """What befalls the next entry of a stream, once."""

    async def handle(self, lease: Lease) -> None:
        """Handle a stream."""
        match lease.stream.partition("-")[0]:
            case "known":
                raise Known
            case "poison":
                raise LookupError("no such customer")
            case _:
                self.look()
        async for entry in lease.entries():
            self.look()
            match self.stumbles.pop(lease.stream, None):
                case "fail":
                    raise ValueError("this once")
                case "later":
                    raise RetryLater(0.05)
                case _:
                    pass
            await lease.checkpoint(entry.id)
            self._accepted[lease.stream].append((lease.fence, entry.id))
            if END in entry.fields:
                return

    def look(self) -> None:
        """Fail if what a handler needs is away."""
        if self.away:
            raise ConnectionError("the database is away")


class RunningFleet(MembersFleet):
    """Members A, B, C …, and what is done to them and to their streams."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, SCRIPTS)
        self.world = World(self.accepted)

    def _open(self) -> None:
        self.join()

    def _choices(self, name: str) -> list[dict[str, Any]]:
        match name:
            case "join":
                return [{}] if len(self.alive) < MOST else []
            case "stall" | "end" | "cut" | "lose":
                return [{"member": name} for name in self.alive]
            case "stumble":
                return [{"stream": stream} for stream in self.good]
            case _:
                return [{}]

    @property
    def good(self) -> list[str]:
        """The streams that can be processed."""
        return [stream for stream in self.streams if stream.startswith(GOOD)]

    # Steps.

    def join(self) -> None:
        """One more member."""
        name = next(self._names)
        self.members[name] = Member(name, self._network, self._server, self.world.handle, retry=POLICY)

    def write(self) -> None:
        """An entry for each stream that can be processed."""
        for stream in self.good:
            self._add_entry(stream)

    def stumble(self, stream: str, how: str) -> None:
        """The next entry of a stream fails once, or is not for now."""
        self.world.stumbles[stream] = how
        self._add_entry(stream)

    def outage(self, seconds: float) -> None:
        """What all handlers need is away for so long. Afterwards all go on in time."""
        if not self.alive:
            self.join()
        self.world.away = True
        self.write()
        time.sleep(seconds)
        self.look()
        self.world.away = False
        last = {stream: self._add_entry(stream) for stream in self.good}
        for member in self.members.values():
            member.heal()
        self._all_reach(last, ON_AGAIN)

    # What must be true.

    def look(self) -> None:
        """Nothing is owned twice, buried that is good, or accepted twice."""
        super().look()
        innocent = [stream for stream in self.buried() if stream.startswith(GOOD)]
        assert not innocent, f"{innocent} are buried: {self._redis.xrange(self._keys.dead)}"

    def buried(self) -> list[str]:
        """The streams in the dead letters."""
        return [
            str(json.loads(fields[b"lbs-input"])["DataStreamName"])
            for _, fields in self._redis.xrange(self._keys.dead)
        ]

    def _heal(self) -> None:
        """The end: what is good is finished, what is not is buried."""
        for member in self.members.values():
            member.heal()
        self.join()
        self.announce("good", 1)  # where nothing at all progresses, failures mean an outage, and bury nothing
        give_up = time.monotonic() + HEALED
        while not set(self.announced()) <= set(self.good):
            self.write()
            self._wait(give_up)
        self._finish(self.good, give_up)
        self.look()
        assert sorted(self.buried()) == sorted(set(self.streams) - set(self.good))
