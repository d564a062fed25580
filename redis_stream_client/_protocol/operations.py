"""The operations on the load balancer stream: a typed stub for each script and each plain command.

Each is one request, decides on the server by the server's clock, and is sent once: the callers know what a
lost reply means for them. All raise `Unanswered`, `GroupMissing` or `RedisRejected`.
"""

import json
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model.entry import order
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.options import Options
from redis_stream_client._model.version import __version__
from redis_stream_client._protocol import scripts
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.window import Window

PAGE = 250  # entries that one script call moves or lists: about 3 ms of Redis
LOOK_PAGE = 10_000  # entries that one XPENDING lists
WAITING_COUNTED = 1_000  # waiting announcements that a census counts
REPLY_BYTES = 1 << 20  # of announcements in one reply, the last one's excess left out
SEEN_BYTES = 1 << 22  # of announcements that Redis reads for one call without sending them

Fields = Sequence[bytes]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What a bounded look has found. `last` is where to go on; None: it has seen all."""

    found: list[T]
    last: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry that is pending for us."""

    lbs_id: str
    deliveries: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Won:
    """A claim that succeeded."""

    deliveries: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Refusal:
    """A claim that did not. `owner` and `deliveries` are set where the server knows them."""

    why: Literal["gone", "owner", "alive", "lapsed"]
    owner: str = ""
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a claim of many brought, and how many are left with their owner.

    `more`: it stopped before it had what it was to take, or had seen all: what is left may be ours to take.
    """

    entries: list[Delivered]
    left: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an adoption brought, and how many entries it did not come to."""

    entries: list[Delivered]
    left: int


@dataclass(frozen=True, slots=True)
class Census:
    """The load balancer stream, compared with what is pending.

    Attributes:
        balance: entries delivered and in the stream, minus entries pending; None: too many wait to tell.
        oldest_waiting: seconds since the oldest announcement that waits was made; None: none waits.
    """

    balance: int | None
    oldest_waiting: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """What a fair read brought."""

    entries: list[Delivered]
    waiting: int
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    """A consumer of the group, whether it lives or not.

    `served_ms` is how long ago it was last given an entry; infinite if never. Redis 7.2 reports it apart;
    before, a read that finds nothing does not count for `idle_ms`.
    """

    name: str
    pending: int
    idle_ms: int
    served_ms: float


@dataclass(frozen=True, slots=True)
class Orphans(Look[Delivered]):
    """Some of what is pending for a consumer; nothing if it lives."""

    alive: bool


class Operations:
    """The operations, bound to one service and one consumer."""

    def __init__(
        self, options: Options, beats: SharedConnection, commands: SharedConnection, reads: SharedConnection
    ) -> None:
        self._keys = options.keys
        self._me = options.consumer
        self._options = options
        self._beats = beats
        self._commands = commands
        self._reads = reads
        self._lock = self._keys.lock(self._me)
        self._renewal = ("PEXPIRE", self._lock, options.lock_ttl_ms)
        self._newest: tuple[int, int] | None = None  # of the entries that were delivered to us
        self._beat_patience = 0.0
        self._windows = {
            what: Window(f"{what} in a reply", largest, options.lock_ttl / 2, smallest=smallest)
            for what, largest, smallest in (
                ("bytes of announcements", REPLY_BYTES, 1),
                ("pending entries", LOOK_PAGE, 10),
                ("owners", 1_000, 10),
            )
        }

    @property
    def shrunk(self) -> int:
        """How often a request went unanswered, and was made smaller."""
        return sum(window.shrunk for window in self._windows.values())

    async def _sized(self, what: str, timeout: float, send: Callable[[int, float], Awaitable[T]]) -> T:
        """`send` with a size and a time-out that suit the line: smaller, and more patient, after one that got no
        answer."""
        window = self._windows[what]
        size, sent = window.size, clock.now()
        try:
            reply = await send(size, max(timeout, window.patience))
        except Unanswered as error:
            if error.maybe_executed:
                window.unanswered(size)
            raise
        window.answered(clock.now() - sent)
        return reply

    async def _announcements(
        self,
        link: SharedConnection,
        script: Script,
        keys: Sequence[str | bytes],
        args: Callable[[int], Sequence[Any]],
        timeout: float,
    ) -> Any:
        """Run a script whose reply holds announcements, as many bytes of them as the line bears."""

        async def send(size: int, patience: float) -> Any:
            return await link.run(script, keys, args(size), timeout=patience)

        return await self._sized("bytes of announcements", timeout, send)

    def _lock_of(self, consumer: str) -> bytes:
        return _raw(self._keys.lock(consumer))

    # The lock.

    async def time(self, timeout: float) -> float:
        """The server's clock, in seconds since the epoch."""
        seconds, microseconds = await self._beats.request("TIME", timeout=timeout)
        return int(seconds) + int(microseconds) / 1e6

    async def join(self, timeout: float) -> None:
        """Take the lock and register in the group."""
        keys = [self._keys.lbs, self._lock]
        newest = "{}-{}".format(*self._newest) if self._newest else "0"
        args = [self._keys.group, self._me, self._options.lock_ttl_ms, self._lock_value(), newest]
        script = scripts.load("join")
        await self._beating(timeout, lambda patience: self._beats.run(script, keys, args, timeout=patience))

    def _lock_value(self) -> str:
        return json.dumps(
            {
                "ttl": self._options.lock_ttl_ms,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "version": __version__,
            }
        )

    async def beat(self, timeout: float) -> bool:
        """Renew the lock. False: it does not exist any more.

        ``PEXPIRE`` and not ``SET``: a full Redis refuses ``SET``, and the whole fleet would lapse.
        """
        return bool(
            await self._beating(timeout, lambda patience: self._beats.request(*self._renewal, timeout=patience))
        )

    async def _beating(self, timeout: float, send: Callable[[float], Awaitable[T]]) -> T:
        """A beat may take twice as long after one that went unanswered, up to the lifetime of the lock: otherwise
        a line whose round trips are longer than the time-out could never hold it."""
        patience, sent = max(timeout, self._beat_patience), clock.now()
        try:
            reply = await send(patience)
        except Unanswered as error:
            if error.maybe_executed:
                self._beat_patience = min(2 * patience, self._options.lock_ttl)
            raise
        if clock.now() - sent < timeout / 2:
            self._beat_patience = 0.0
        return reply

    async def turn(self, key: str, lifetime: float, timeout: float) -> bool:
        """Ask for one of the fleet's turns, which is given once per `lifetime` seconds."""
        try:
            return await self._commands.request(*self._asking(key, lifetime), timeout=timeout) is not None
        except Unanswered as error:
            if error.maybe_executed:
                raise
            return True  # a full Redis refuses to write the turn down: do it without

    def _asking(self, key: str, lifetime: float) -> tuple[Any, ...]:
        ms = max(1, round(lifetime * 1000))
        return ("SET", key, json.dumps({"ttl": ms, "consumer": self._me}), "NX", "PX", ms)

    async def beat_and_turn(self, lifetime: float, timeout: float) -> tuple[bool, bool]:
        """Renew the lock, and ask for the fleet's turn to sweep, which is given once per `lifetime` seconds.

        In one piece: a large fleet's asking costs Redis more than the sweeping, but almost nothing with a beat.
        """
        asking = self._asking(self._keys.sweep, lifetime)
        renewed, won = await self._beating(
            timeout, lambda patience: self._beats.together(self._renewal, asking, timeout=patience)
        )
        if isinstance(renewed, Exception):
            raise renewed
        if isinstance(won, Unanswered):  # a full Redis refuses to write the turn down: sweep without it
            return bool(renewed), True
        if isinstance(won, Exception):
            raise won
        return bool(renewed), won is not None

    async def leave(self, timeout: float) -> None:
        """Give up the lock: what is pending for us is claimable at once."""
        args = [self._me, self._keys.control]
        await self._beats.run(scripts.load("leave"), [self._lock], args, timeout=timeout)

    async def probe(self, timeout: float) -> None:
        """Raise `RedisRejected` if a command that will be needed is not permitted."""
        keys = [self._keys.lbs, self._lock, self._keys.dead, self._keys.sweep]
        args = [self._keys.group, self._keys.control, f"{self._me}-probe", self._me]
        failed = await self._commands.run(scripts.load("probe"), keys, args, timeout=timeout)
        words = [word.decode(errors="replace") for word in failed]
        refused = error_mapping.map_probe(list(zip(words[::2], words[1::2], strict=True)))
        if refused is not None:
            raise refused

    # Reading.

    async def read(self, block: float, timeout: float) -> list[Delivered]:
        """Wait up to `block` seconds for one announcement: blocked consumers are served in turn."""
        reply = await self._reads.request(
            "XREADGROUP", "GROUP", self._keys.group, self._me,
            "COUNT", 1, "BLOCK", max(1, round(block * 1000)),
            "STREAMS", self._keys.lbs, ">",
            timeout=timeout,
        )  # fmt: skip
        return await self._delivered(reply[0][1] if reply else (), timeout)

    async def nudge(self, timeout: float) -> None:
        """Wake Redis, so that it ends the blocking reads that are due. Answered after our own."""
        await self._reads.request("PING", timeout=timeout)

    async def share(self, most: int, patient: bool, others: Sequence[str], timeout: float) -> Share | None:
        """Read announcements that wait, up to our fair share of them. None: our lock does not exist."""
        keys: list[str | bytes] = [self._keys.lbs, self._lock, *map(self._lock_of, others)]

        def args(size: int) -> list[Any]:
            return [self._keys.group, self._me, most, size, int(patient), *map(_raw, others)]

        reply = await self._announcements(self._reads, scripts.load("share"), keys, args, timeout)
        if reply[0] == b"lapsed":
            return None
        waiting, members, entries = reply
        return Share(await self._delivered(entries, timeout), waiting, members)

    async def _delivered(self, entries: Sequence[Any], timeout: float) -> list[Delivered]:
        """What ``XREADGROUP`` gave us: everything with delivery count 1.

        What is not newer than an earlier delivery was delivered before: a peer that has seen less made the group
        anew, or Redis lost writes. As when it is rescued, the clock takes the count's place: the fence is to be
        greater than every one before.
        """
        delivered = [Delivered(lbs_id.decode(), 1, fields or ()) for lbs_id, fields in entries]
        if not delivered:
            return delivered
        before, last = self._newest, order(delivered[-1].lbs_id)
        self._newest = max(last, before or last)
        if before is None or before < order(delivered[0].lbs_id):
            return delivered
        again: list[Delivered] = []
        try:
            now = int(1000 * await self.time(timeout))
            for some in in_chunks(delivered):  # side by side: all of a large group may come again
                repeated = [entry for entry in some if order(entry.lbs_id) <= before]
                lifts = (self.lift(entry.lbs_id, 1, now, timeout) for entry in repeated)
                outcomes = await gather(*lifts, name="redis_stream_client lifting")
                raised = {
                    entry.lbs_id for entry, outcome in zip(repeated, outcomes, strict=True) if outcome == "raised"
                }
                for entry in some:
                    if order(entry.lbs_id) > before:
                        again.append(entry)
                    elif entry.lbs_id in raised:
                        again.append(replace(entry, deliveries=now))
        except Unanswered as error:  # the delivery itself was executed
            raise Unanswered(str(error), maybe_executed=True, elsewhere=error.elsewhere) from error
        return again

    # Ownership.

    async def claim(self, lbs_id: str, owner: str, timeout: float) -> Won | Refusal:
        """Take one entry from `owner`, if that owner is dead."""
        keys: list[str | bytes] = [self._keys.lbs, self._lock, self._lock_of(owner)]
        args = [self._keys.group, self._me, _raw(owner), lbs_id, self._keys.control]
        reply = await self._commands.run(scripts.load("claim"), keys, args, timeout=timeout)
        match reply:
            case [b"won", deliveries, fields]:
                return Won(deliveries, fields)
            case [b"owner", current, deliveries]:
                return Refusal("owner", _name(current), deliveries)
            case [b"alive", current]:
                return Refusal("alive", _name(current))
            case [b"gone"]:
                return Refusal("gone")
        return Refusal("lapsed")

    async def claim_many(
        self,
        owner: str,
        n: int,
        timeout: float,
        *,
        level_with: Sequence[str] | None = None,
        but: Sequence[str] = (),
    ) -> Taken | Refusal:
        """Take up to `n` entries of `owner`, if it is dead.

        Args:
            owner: the dead consumer, or `NOBODY`.
            n: entries to take at the most.
            timeout: seconds.
            level_with: the group's other consumers: take no more than brings us level with those that live. None:
                take what is there.
            but: LBS ids to leave alone.

        A repeat takes more: after a lost reply, audit.
        """
        others = list(level_with or ())
        keys: list[str | bytes] = [self._keys.lbs, self._lock, self._lock_of(owner), *map(self._lock_of, others)]

        def args(size: int) -> list[Any]:
            return [
                self._keys.group, self._me, _raw(owner), n, size, self._keys.control, int(level_with is not None),
                len(but), *but, *map(_raw, others),
            ]  # fmt: skip

        reply = await self._announcements(self._commands, scripts.load("claim_many"), keys, args, timeout)
        if reply[0] == b"won":
            entries = [Delivered(i.decode(), deliveries, fields) for i, deliveries, fields in reply[3:]]
            return Taken(entries, reply[1], bool(reply[2]))
        return Refusal("alive", owner) if reply[0] == b"alive" else Refusal("lapsed")

    async def adopt(self, entries: Sequence[tuple[str, int]], timeout: float) -> Adopted | None:
        """New leases for what is pending for us with these counts. None: our lock does not exist.

        What was trimmed, or is pending otherwise by now, is left out.
        """
        keys = [self._keys.lbs, self._lock]

        def args(size: int) -> list[Any]:
            return [self._keys.group, self._me, size, *_flat(entries)]

        reply = await self._announcements(self._commands, scripts.load("adopt"), keys, args, timeout)
        if reply == [b"lapsed"]:
            return None
        adopted = [
            Delivered(lbs_id, result[0], result[1])
            for (lbs_id, _), result in zip(entries, reply, strict=False)
            if len(result) == 2
        ]
        return Adopted(adopted, len(entries) - len(reply))

    async def done(self, entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
        """Acknowledge and delete. For each entry ``done``, ``gone`` or the current owner."""
        args = [self._keys.group, self._me, *_flat(entries)]
        reply = await self._commands.run(scripts.load("done"), [self._keys.lbs], args, timeout=timeout)
        return [_name(result) for result in reply]

    async def release(self, entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
        """Give to nobody. For each entry ``released``, ``gone`` or the current owner."""
        args = [self._keys.group, self._me, NOBODY, self._keys.control, *_flat(entries)]
        reply = await self._commands.run(scripts.load("release"), [self._keys.lbs], args, timeout=timeout)
        return [_name(result) for result in reply]

    async def bury(self, lbs_id: str, deliveries: int, reason: str, timeout: float) -> str:
        """Move to the dead letters. ``buried``, ``gone`` or the current owner."""
        keys = [self._keys.lbs, self._keys.dead]
        args = [self._keys.group, self._me, lbs_id, deliveries, reason]
        reply: bytes = await self._commands.run(scripts.load("bury"), keys, args, timeout=timeout)
        return _name(reply)

    async def lift(self, lbs_id: str, deliveries: int, to: int, timeout: float) -> str:
        """`raise` the delivery count after Redis lost writes. ``raised``, ``gone`` or the current owner."""
        args = [self._keys.group, self._me, lbs_id, deliveries, to]
        reply: bytes = await self._commands.run(scripts.load("raise"), [self._keys.lbs], args, timeout=timeout)
        return reply.decode()

    # Looking.

    async def pending(self, after: str | None, timeout: float) -> Look[tuple[str, int]]:
        """A page of what is pending for us: (LBS id, delivery count)."""

        async def send(size: int, patience: float) -> tuple[int, Any]:
            reply = await self._commands.request(
                "XPENDING", self._keys.lbs, self._keys.group, f"({after}" if after else "-", "+", size, self._me,
                timeout=patience,
            )  # fmt: skip
            return size, reply

        size, reply = await self._sized("pending entries", timeout, send)
        found = [(lbs_id.decode(), deliveries) for lbs_id, _, _, deliveries in reply]
        return Look(found, found[-1][0] if len(found) == size else None)

    async def standing(self, lbs_id: str, timeout: float) -> tuple[str, int] | None:
        """Whom an entry is pending for, and its delivery count. None: for nobody."""
        reply = await self._commands.request(
            "XPENDING", self._keys.lbs, self._keys.group, lbs_id, lbs_id, 1, timeout=timeout
        )
        return (_name(reply[0][1]), reply[0][3]) if reply else None

    async def announcement(self, lbs_id: str, timeout: float) -> Fields | None:
        """The fields of an announcement, or None if it is not in the stream."""
        reply = await self._commands.request("XRANGE", self._keys.lbs, lbs_id, lbs_id, timeout=timeout)
        return reply[0][1] if reply else None

    async def inspect(self, lbs_ids: Sequence[str], timeout: float) -> list[str]:
        """The owner of each entry, or '' for one that is pending for nobody or exists no more.

        Those of the first ids only, when it did not come to the others.
        """

        async def send(size: int, patience: float) -> Any:
            args = [self._keys.group, SEEN_BYTES, *lbs_ids[:size]]
            return await self._commands.run(scripts.load("inspect"), [self._keys.lbs], args, timeout=patience)

        return [_name(owner) for owner in await self._sized("owners", timeout, send)]

    async def census(self, timeout: float) -> Census:
        """Compare what is in the stream with what is pending."""
        args = [self._keys.group, WAITING_COUNTED, SEEN_BYTES]
        reply = await self._commands.run(scripts.load("census"), [self._keys.lbs], args, timeout=timeout)
        oldest, now_ms, *balance = reply
        waiting = max(0.0, (int(now_ms) - order(oldest.decode())[0]) / 1000) if oldest else None
        return Census(int(balance[0]) if balance else None, waiting)

    async def members(self, timeout: float) -> list[Member]:
        """The group's consumers."""
        reply = await self._commands.request(
            "XINFO", "CONSUMERS", self._keys.lbs, self._keys.group, timeout=timeout
        )
        return [_member(info) for info in reply]

    async def look(self, consumers: Sequence[str], timeout: float) -> list[bool]:
        """Which of them live; makes Redis notice, and announce, the locks that expired.

        Locks that would outlive their holders' wish, and ours, are shortened; and so are the turns.
        """
        turns = [*map(_raw, self._keys.turns)]
        keys = [*turns, *map(self._lock_of, consumers)]
        looked = await self._commands.run(scripts.load("look"), keys, [self._options.lock_ttl_ms], timeout=timeout)
        return [bool(n) for n in looked[len(turns) :]]

    async def orphans(self, owner: str, after: str | None, timeout: float) -> Orphans:
        """A page of what is pending for a dead consumer."""
        keys: list[str | bytes] = [self._keys.lbs, self._lock_of(owner)]

        def args(size: int) -> list[Any]:
            return [self._keys.group, _raw(owner), f"({after}" if after else "-", PAGE, size]

        reply = await self._announcements(self._commands, scripts.load("orphans"), keys, args, timeout)
        if reply[0] == b"alive":
            return Orphans([], None, alive=True)
        entries = [Delivered(i.decode(), deliveries, fields) for i, deliveries, fields in reply[2:]]
        return Orphans(entries, reply[1].decode() or None, alive=False)

    # Sweeping.

    async def tell(self, hint: str, timeout: float) -> None:
        """Publish a hint to the peers."""
        await self._commands.request("PUBLISH", self._keys.control, _raw(hint), timeout=timeout)

    async def forget(self, consumer: str, idle: float, timeout: float) -> bool:
        """Remove a consumer that is dead, owns nothing and was idle for `idle` seconds."""
        keys: list[str | bytes] = [self._keys.lbs, self._lock_of(consumer)]
        args = [self._keys.group, _raw(consumer), round(idle * 1000)]
        return bool(await self._commands.run(scripts.load("forget"), keys, args, timeout=timeout))

    async def rescue(self, after: str | None, timeout: float) -> tuple[int, str | None]:
        """Make a page of delivered entries that are pending for nobody claimable. Returns how many there
        were, and where to go on, None at the end."""
        args = [
            self._keys.group, NOBODY, f"({after}" if after else "-", PAGE, SEEN_BYTES, self._keys.control
        ]  # fmt: skip
        rescued, last = await self._commands.run(scripts.load("rescue"), [self._keys.lbs], args, timeout=timeout)
        return rescued, last.decode() or None

    async def notification_flags(self, timeout: float) -> str:
        """The server's ``notify-keyspace-events``."""
        reply = await self._commands.request("CONFIG", "GET", "notify-keyspace-events", timeout=timeout)
        return reply[1].decode() if len(reply) == 2 else ""

    async def set_notification_flags(self, flags: str, timeout: float) -> None:
        """Set the server's ``notify-keyspace-events``."""
        await self._commands.request("CONFIG", "SET", "notify-keyspace-events", flags, timeout=timeout)


def _name(raw: bytes) -> str:
    """A consumer's name. What others call themselves need not be UTF-8, and must survive the way back."""
    return raw.decode(errors="surrogateescape")


def _raw(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _member(info: Sequence[Any]) -> Member:
    served_ms = info[7] if len(info) > 7 else info[5]
    return Member(
        name=_name(info[1]),
        pending=info[3],
        idle_ms=info[5],
        served_ms=math.inf if served_ms < 0 else served_ms,
    )


def _flat(entries: Iterable[tuple[str, int]]) -> list[Any]:
    return [word for entry in entries for word in entry]
