"""Progress records: a typed stub for each script, for the records of one server.

Requests that are made at about the same time travel together. Each has its own result or error.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.exceptions import ResponseError

from redis_stream_client._concurrency.batching import Batch, Spawn
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.gaps import UNKNOWN, Added
from redis_stream_client._model.logs import Log
from redis_stream_client._model.retention import OnDone
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import decode_name, encode_name
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.window import Window

if TYPE_CHECKING:
    import asyncio

CALL = 250  # the most records in one script call: about 2 ms of Redis


class Owner(NamedTuple):
    """The owner of a record: a fence and a consumer. Empty if there is no record."""

    fence: str
    consumer: str


NO_OWNER = Owner("", "")


class Terms(NamedTuple):
    """How a new owner takes over a record whose earlier owners have died.

    Attributes:
        most_deaths: the most deaths of earlier owners with which this one still begins; None: any number.
        trial: if this owner dies, too, that was a trial: see `redis_stream_client._run.suspects`.
    """

    most_deaths: int | None = None
    trial: bool = False


ANY_TERMS = Terms()


class Begin(NamedTuple):
    """The arguments of `begin`.

    Attributes:
        record: key of the record.
        owner: the new owner.
        look_only: do not create a record.
        unrecorded: earlier owners that left no record.
        replaces: an owner that may be replaced although its fence is greater.
        terms: how to begin if earlier owners have died.
        lived_since: a fence of the same consumer, which has lived through the ends of all its leases from that one
            on: they are no deaths; or that of another one before, and ``*``, which has not died. Empty for none.
        from_now: a stream whose record had expired starts with the entry that woke it, and not at its start.
    """

    record: str
    owner: Owner
    look_only: bool = False
    unrecorded: int = 0
    replaces: Owner = NO_OWNER
    terms: Terms = ANY_TERMS
    lived_since: str = ""
    from_now: bool = False


class Begun(NamedTuple):
    """The record is ours. `checkpoint` is None if there is none yet.

    `added`: how many entries were added to the stream up to the checkpoint, and whether nobody has read on.
    `trouble`: failures and deaths since the checkpoint advanced. `since`: the entry that woke a stream whose
    record had expired, if nothing was processed since.
    """

    checkpoint: str | None
    attempts: int
    added: Added = UNKNOWN
    trouble: Trouble | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """More owners of a record have died than it was to begin with. It is not ours."""

    deaths: int
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Refused:
    """The record belongs to another owner."""

    by: Owner


class Foreign(KeyRejected):
    """This library has not written the record, so its owner is unknown. Never leaves the package."""

    def __init__(self, field: str, holds: bytes) -> None:
        super().__init__(f"its {field} is {holds!r}")


class Unreadable(KeyRejected):
    """Redis refuses the data stream, and not the record. Never leaves the package.

    Attributes:
        fault: what it says.
    """

    def __init__(self, fault: KeyRejected) -> None:
        super().__init__(str(fault))
        self.fault = fault


class Checkpoint(NamedTuple):
    """The arguments of `checkpoint`."""

    record: str
    owner: Owner
    id: str
    added: int | None = None


class Settle(NamedTuple):
    """The arguments of `settle`.

    `lifetime`: seconds for which the record stays; 0: as long as it is needed. `clean`: every entry that was
        handed
    out has a checkpoint. `idle`: the owner goes on, and has nothing left to do. `untried`: it has not come to what
        the owners before it may have died of, so their deaths still count.
    """

    record: str
    owner: Owner
    lifetime: float
    clean: bool = False
    idle: bool = False
    untried: bool = False

    def outlasts(self, newer: "Settle") -> bool:
        """Whether this must still be said, and the newer update need not: that an owner has ended says more than
        that it has nothing left to do, and it says it only once."""
        return newer.idle and not self.idle and newer.owner == self.owner


class Fail(NamedTuple):
    """What `fail` is asked: an owner's handler has failed, and how."""

    record: str
    owner: Owner
    error: str


class Doze(NamedTuple):
    """The arguments of `doze`: whose the record must be, and the data stream."""

    record: str
    owner: Owner
    stream: str


class Failed(NamedTuple):
    """How often handlers have failed since the last progress, and for how many seconds."""

    failures: int
    failing_for: float


class Retain(NamedTuple):
    """What `retain` is asked.

    Attributes:
        record: key of the record.
        owner: whose the record must be.
        stream: the data stream.
        what: becomes of it.
        upto: id of the last entry that was handed out; for ``"delete"`` only.
        added: entries added to the stream up to `upto`; None if not known.
        lifetime: seconds that a record stays, 0 to delete it, None to leave it as it is. With ``"delete"``:
            seconds for which the record of a stream that was put to sleep still says so; None: it was not.
    """

    record: str
    owner: Owner
    stream: str
    what: OnDone
    upto: str = ""
    added: int | None = None
    lifetime: float | None = None

    def outlasts(self, newer: "Retain") -> bool:
        """Whether this must still be said, and the newer update not: never."""
        return False


class Retained(NamedTuple):
    """What has become of a data stream.

    - ``kept``, ``deleted``;
    - ``trimmed``: so many entries were;
    - ``newer``: entries came after the last one that was handed out, so it was only trimmed;
    - ``other``: it is not the stream that was read, since Redis has lost writes. Nothing was changed;
    - ``refused``: a newer owner has begun, or it was deleted before. Nothing was changed.
    """

    what: Literal["kept", "deleted", "trimmed", "newer", "other", "refused"]
    trimmed: int = 0


class Records:
    """The records of one server.

    Args:
        connection: the connection to that server.
        slot: gives the slot of a key; the keys of one call must be in one slot.
        spawn: starts the task that sends a batch.
        gone: makes the error of a request that was never sent.
        timeout: the first timeout of a batch, in seconds.
        log: the log of the client.
        outage: told how the calls go.
    """

    def __init__(
        self,
        connection: SharedConnection,
        slot: Callable[[str], int],
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        timeout: float,
        *,
        log: Log,
        outage: OutageLog,
    ) -> None:
        self._connection = connection
        self._outage = outage
        self._slot = slot
        self._longest = 2 * timeout  # more, and callers would notice an outage too late
        self._beginning = Window("records in a begin", CALL, timeout, log=log)
        self._advancing = Window("records in a checkpoint", CALL, timeout, log=log)
        self._begins = Batch[Begin, Begun | Refused | Suspect | None](
            self._begin, spawn, gone, lambda: self._beginning.size
        )
        self._failing = Window("records in a fail", CALL, timeout, log=log)
        self._fails = Batch[Fail, Failed | Refused](self._fail, spawn, gone, lambda: self._failing.size)
        self._dozing = Window("streams in a doze", CALL, timeout, log=log)
        self._dozes = Batch[Doze, bool | Refused](self._doze, spawn, gone, lambda: self._dozing.size)
        self._checkpoints = Batch[Checkpoint, Refused | bool](
            self._advance, spawn, gone, lambda: self._advancing.size, self._advance_at_once
        )

    @property
    def shrunk(self) -> int:
        """How often a call got no answer and was made smaller."""
        windows = (self._beginning, self._advancing, self._failing, self._dozing)
        return sum(window.shrunk for window in windows)

    def begin(self, ask: Begin) -> "asyncio.Future[Begun | Refused | Suspect | None]":
        """Take over a record. None: with `look_only`, there is no record.

        A repeated call of the same owner is accepted, and counts no attempt."""
        return self._begins.add(ask)

    async def begin_many(self, asks: list[Begin]) -> list[Begun | Refused | Suspect | Exception | None]:
        """`begin` for up to `CALL` records in one call."""
        return await self._begin(asks)

    def checkpoint(
        self, ask: Checkpoint, heard: Callable[[Refused | bool | Exception], None]
    ) -> "asyncio.Future[Refused | bool]":
        """Store a checkpoint. True: it advanced; false: it was stored before. For `heard` see `Batch.add`."""
        return self._checkpoints.add(ask, heard)

    def fail(self, ask: Fail) -> "asyncio.Future[Failed | Refused]":
        """Note that the handler of the owner has failed. A repeated call of the same owner counts no second
        failure."""
        return self._fails.add(ask)

    def doze(self, ask: Doze) -> "asyncio.Future[bool | Refused]":
        """Put a stream to sleep, unless it has an entry after the stored checkpoint. Returns whether it sleeps. A
        repeated call of the same owner looks again."""
        return self._dozes.add(ask)

    async def any_of(self, records: Sequence[str], timeout: float) -> bool:
        """Whether one of these records exists. All are in one slot."""
        return bool(records) and bool(await self._connection.request("EXISTS", *records, timeout=timeout))

    async def settle(self, asks: Sequence[Settle], timeout: float) -> list[int | Exception]:
        """End up to `CALL` owners cleanly. Returns for each 1, 0 if the record is not its own, or an error."""
        words = [
            (
                ask.record,
                (
                    ask.owner.fence, ask.owner.consumer, round(ask.lifetime * 1000),
                    int(ask.clean), int(ask.idle), int(ask.untried),
                ),
            )
            for ask in asks
        ]  # fmt: skip
        return await self._run(scripts.load("settle"), words, timeout)

    async def retain(self, asks: Sequence[Retain], timeout: float) -> list[Retained | Exception]:
        """Trim or delete data streams, and have their records expire, up to `CALL` of them. For each what has
        become of it, or why nothing has. Repeating is safe.

        Args:
            asks: each about another record.
            timeout: seconds for each request; there are more of them where very many entries are to be trimmed.
        """
        results: list[Retained | Exception] = [Retained("refused")] * len(asks)
        trimmed = [0] * len(asks)
        left = list(range(len(asks)))
        while left:
            replies = await self._retain([asks[index] for index in left], timeout)
            more: list[int] = []
            for index, reply in zip(left, replies, strict=True):
                match reply:
                    case [b"more", int(entries)]:
                        trimmed[index] += entries
                        more.append(index)
                    case _:
                        results[index] = _retained(reply, trimmed[index])
            left = more
        return results

    async def move(self, record: str, former: str, fences: str, timeout: float) -> None:
        """Move a record from its former key, if its fence begins with `fences`."""
        await self._connection.run(scripts.load("move"), [record, former], [fences], timeout=timeout)

    async def close(self) -> None:
        """Close the connection."""
        self._outage.forget()
        await self._connection.close()

    async def _retain(self, asks: list[Retain], timeout: float) -> list[Any]:
        words = [
            (
                ask.record,
                (
                    ask.owner.fence, ask.owner.consumer, ask.what, ask.upto, _or_empty(ask.added),
                    "" if ask.lifetime is None else math.ceil(ask.lifetime * 1000),
                ),
            )
            for ask in asks
        ]  # fmt: skip
        return await self._run(scripts.load("retain"), words, timeout, {ask.record: ask.stream for ask in asks})

    async def _begin(self, asks: list[Begin]) -> list[Begun | Refused | Suspect | Exception | None]:
        words = [(ask.record, _begin_words(ask)) for ask in asks]
        return [_begun(reply) for reply in await self._sized(self._beginning, scripts.load("begin"), words)]

    async def _advance(self, asks: list[Checkpoint]) -> list[Refused | bool | Exception]:
        replies = await self._sized(self._advancing, *_checkpoint(asks))
        return [_checkpointed(reply) for reply in replies]

    async def _fail(self, asks: list[Fail]) -> list[Failed | Refused | Exception]:
        words = [(ask.record, (ask.owner.fence, ask.owner.consumer, ask.error)) for ask in asks]
        return [_failed(reply) for reply in await self._sized(self._failing, scripts.load("fail"), words)]

    async def _doze(self, asks: list[Doze]) -> list[bool | Refused | Exception]:
        words = [(ask.record, (ask.owner.fence, ask.owner.consumer)) for ask in asks]
        streams = {ask.record: ask.stream for ask in asks}
        replies = await self._sized(self._dozing, scripts.load("doze"), words, streams)
        return [_dozed(reply) for reply in replies]

    def _advance_at_once(self, ask: Checkpoint, heard: Callable[[Refused | bool | Exception], None]) -> bool:
        """Send one on a connection that is open, without a task. False: there is none."""

        def answered(replies: Any) -> None:
            reply = replies if isinstance(replies, Exception) else replies[0]
            _went(self._advancing, [reply])
            self._heard([reply])
            try:
                answer = _checkpointed(self._translated(reply))
            except AssertionError as error:  # the one who waits raises it; the connection goes on
                answer = error
            heard(answer)

        script, [(record, words)] = _checkpoint([ask])
        timeout = min(self._advancing.patience, self._longest)
        return self._connection.run_at_once(script, [record], words, timeout=timeout, heard=answered)

    async def _sized(
        self,
        window: Window,
        script: Script,
        asks: Sequence[tuple[str, tuple[Any, ...]]],
        beside: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run a script. Without an answer, the next calls are smaller."""
        replies = await self._run(script, asks, min(window.patience, self._longest), beside)
        _went(window, replies)
        return replies

    async def _run(
        self,
        script: Script,
        asks: Sequence[tuple[str, tuple[Any, ...]]],
        timeout: float,
        beside: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Make one script call for each slot. If a call fails, each of its records gets the error. `beside` gives
        each record a second key, in its slot."""
        slots: dict[int, list[int]] = defaultdict(list)
        for index, (record, _) in enumerate(asks):
            slots[self._slot(record)].append(index)
        results: list[Any] = [None] * len(asks)

        async def call(indices: list[int]) -> None:
            keys = [asks[index][0] for index in indices]
            if beside is not None:
                keys = [key for record in keys for key in (record, beside[record])]
            args = [word for index in indices for word in asks[index][1]]
            try:
                replies = await self._connection.run(script, keys, args, timeout=timeout)
            except (Unanswered, GroupMissing, RedisRejected) as error:
                replies = [error] * len(indices)
            for index, reply in zip(indices, replies, strict=True):
                results[index] = self._translated(reply)

        if len(slots) == 1:
            await call(*slots.values())
        else:
            await gather(*map(call, slots.values()), name="redis_stream_client records")
        self._heard(results)
        return results

    def _heard(self, replies: Sequence[Any]) -> None:
        """Tell the log how a call went, with what came for each of its records."""
        unanswered = next((reply for reply in replies if isinstance(reply, Unanswered)), None)
        if unanswered is not None:
            self._outage.failed(unanswered)
        else:
            self._outage.answered()

    def _translated(self, reply: Any) -> Any:
        match reply:
            case [b"error" | b"unreadable" as what, bytes(text)]:
                fault = error_mapping.map_reply(ResponseError(text.decode(errors="replace")))
                if isinstance(fault, Unanswered) and fault.elsewhere:
                    self._connection.drop(fault)
                return Unreadable(fault) if what == b"unreadable" and isinstance(fault, KeyRejected) else fault
            case Unanswered():
                return Unanswered(str(reply), maybe_executed=reply.maybe_executed, elsewhere=reply.elsewhere)
        return reply


def _went(window: Window, replies: Sequence[Any]) -> None:
    """Tell a window how a call went, with what came for each of its records."""
    if any(isinstance(reply, Unanswered) and reply.maybe_executed for reply in replies):
        window.unanswered(len(replies))
    else:
        window.answered(size=len(replies))


def _begin_words(ask: Begin) -> tuple[Any, ...]:
    return (
        ask.owner.fence, ask.owner.consumer, int(ask.look_only), ask.unrecorded,
        ask.replaces.fence, encode_name(ask.replaces.consumer),
        _or_empty(ask.terms.most_deaths), int(ask.terms.trial), ask.lived_since,
        int(ask.from_now),
    )  # fmt: skip


def _begun(reply: Any) -> Begun | Refused | Suspect | Exception | None:
    match reply:
        case [b"begun", bytes(checkpoint), int(attempts), bytes(added), bytes(since), *trouble]:
            return Begun(
                checkpoint.decode() or None,
                attempts,
                Added.parse(added),
                _trouble(*trouble) if trouble else None,
                since.decode() or None,
            )
        case [b"suspect", int(deaths), *trouble]:
            return Suspect(deaths, _trouble(*trouble))
        case [b"fresh"]:
            return None
    return _refused(reply)


def _trouble(failures: int, milliseconds: int, error: bytes, lived: int, trials: int) -> Trouble:
    return Trouble.found(
        failures,
        milliseconds / 1000,
        error.decode(errors="backslashreplace"),
        lived / 1000 if lived >= 0 else None,
        trials,
    )


def _failed(reply: Any) -> Failed | Refused | Exception:
    match reply:
        case [b"failed", int(failures), int(milliseconds)]:
            return Failed(failures, milliseconds / 1000)
    return _refused(reply)


def _dozed(reply: Any) -> bool | Refused | Exception:
    if reply in ([b"asleep"], [b"awake"]):
        return bool(reply[0] == b"asleep")
    return _refused(reply)


def _checkpoint(asks: Sequence[Checkpoint]) -> tuple[Script, list[tuple[str, tuple[Any, ...]]]]:
    """The script, and for each record its key and its words."""
    return scripts.load("checkpoint"), [
        (ask.record, (ask.owner.fence, ask.owner.consumer, ask.id, _or_empty(ask.added))) for ask in asks
    ]


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number


def _retained(reply: Any, trimmed: int) -> Retained | Exception:
    match reply:
        case [b"kept" | b"deleted" | b"refused" | b"other" as what]:
            return Retained(what.decode(), trimmed)
        case [b"trimmed" | b"newer" as what, int(entries)]:
            return Retained(what.decode(), trimmed + entries)
        case Exception():
            return reply
    raise AssertionError(f"unexpected reply {reply!r}")


def _checkpointed(reply: Any) -> Refused | bool | Exception:
    if reply in ([b"advanced"], [b"kept"]):
        return bool(reply[0] == b"advanced")
    return _refused(reply)


def _refused(reply: Any) -> Refused | Exception:
    match reply:
        case [b"refused", bytes(fence), bytes(consumer)]:
            return Refused(Owner(fence.decode(errors="replace"), decode_name(consumer)))
        case [b"foreign", bytes(field), bytes(holds)]:
            return Foreign(field.decode(), holds)
        case Exception():
            return reply
    raise AssertionError(f"unexpected reply {reply!r}")
