"""The records of the data streams' progress: a typed stub for each script, for the records of one server.

Calls that are made at about the same time travel together; each is answered, or fails, by itself.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError

from redis_stream_client._concurrency.batching import Batch, Spawn
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.gaps import UNKNOWN, Added
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import decode_name, encode_name
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.window import Window

if TYPE_CHECKING:
    import asyncio

CALL = 250  # records that one script call looks at: about 2 ms of Redis


class Owner(NamedTuple):
    """Who owns a record: a fence and a consumer. Empty where there is no record."""

    fence: str
    consumer: str


NO_OWNER = Owner("", "")


class Begin(NamedTuple):
    """What `begin` is asked.

    Attributes:
        record: key of the record.
        owner: the new owner.
        look_only: leave a stream without a record alone.
        unrecorded: owners before this one that left no record.
        replaces: the owner of a record that may be replaced although its fence is greater.
        most_deaths: of owners before this one, so that it begins all the same; None: any number.
    """

    record: str
    owner: Owner
    look_only: bool = False
    unrecorded: int = 0
    replaces: Owner = NO_OWNER
    most_deaths: int | None = None


class Begun(NamedTuple):
    """A record is ours. `checkpoint` is None where there is none yet.

    `added`: how many entries were added to the stream up to there, and whether nothing behind it was read.
    `trouble`: failures and deaths since the checkpoint advanced.
    """

    checkpoint: str | None
    attempts: int
    added: Added = UNKNOWN
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """More owners of a record have died than it was to begin with. Nothing was changed."""

    deaths: int
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Refused:
    """A record is another's."""

    by: Owner


class Foreign(KeyRejected):
    """This library has not written a record: whose it is cannot be told. It never leaves the package."""

    def __init__(self, field: str, holds: bytes) -> None:
        super().__init__(f"its {field} is {holds!r}")


class Checkpoint(NamedTuple):
    """What `checkpoint` is asked."""

    record: str
    owner: Owner
    id: str
    added: int | None = None


class Settle(NamedTuple):
    """What `settle` is asked.

    `lifetime`: seconds that the record stays, or 0 for as long as it is needed. `clean`: nothing was handed out
    that has no checkpoint. `idle`: the owner goes on, and has nothing left to do.
    """

    record: str
    owner: Owner
    lifetime: float
    clean: bool = False
    idle: bool = False


class Fail(NamedTuple):
    """What `fail` is asked: an owner's handler has failed, and how."""

    record: str
    owner: Owner
    error: str


class Failed(NamedTuple):
    """How often handlers have failed since the last progress, and for how many seconds."""

    failures: int
    failing_for: float


class Records:
    """The records of one server.

    Args:
        connection: to that server.
        slot: the slot of a record's key: the keys of one call must be in one.
        spawn: starts what sends a batch.
        gone: the error of a call that was asked for and never sent.
        timeout: seconds to wait for a batch, at first.
    """

    def __init__(
        self,
        connection: SharedConnection,
        slot: Callable[[str], int],
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        timeout: float,
    ) -> None:
        self._connection = connection
        self._slot = slot
        self._longest = 2 * timeout  # with more patience a caller would hear too late that nothing is answered
        self._beginning = Window("records in a begin", CALL, timeout)
        self._advancing = Window("records in a checkpoint", CALL, timeout)
        self._begins = Batch[Begin, Begun | Refused | Suspect | None](
            self._begin, spawn, gone, lambda: self._beginning.size
        )
        self._failing = Window("records in a fail", CALL, timeout)
        self._fails = Batch[Fail, Failed | Refused](self._fail, spawn, gone, lambda: self._failing.size)
        self._checkpoints = Batch[Checkpoint, Refused | bool](
            self._checkpoint, spawn, gone, lambda: self._advancing.size
        )

    @property
    def shrunk(self) -> int:
        """How often a call went unanswered, and was made smaller."""
        return self._beginning.shrunk + self._advancing.shrunk + self._failing.shrunk

    def begin(self, ask: Begin) -> "asyncio.Future[Begun | Refused | Suspect | None]":
        """Take over a record; None if it was only looked for and does not exist.

        A repeat by the same owner is accepted, and counts nothing."""
        return self._begins.add(ask)

    async def begin_many(self, asks: list[Begin]) -> list[Begun | Refused | Suspect | Exception | None]:
        """`begin` for up to `CALL` records in one call of their own."""
        return await self._begin(asks)

    def checkpoint(
        self, ask: Checkpoint, heard: Callable[[Refused | bool | Exception], None]
    ) -> "asyncio.Future[Refused | bool]":
        """Advance a record; true if it advanced, false if it was there already. `heard` as in `Batch.add`."""
        return self._checkpoints.add(ask, heard)

    def fail(self, ask: Fail) -> "asyncio.Future[Failed | Refused]":
        """The handler of a record's owner has failed. A repeat by the same owner counts nothing."""
        return self._fails.add(ask)

    async def any_of(self, records: Sequence[str], timeout: float) -> bool:
        """Whether one of these exists; they are in one slot."""
        return bool(records) and bool(await self._connection.request("EXISTS", *records, timeout=timeout))

    async def settle(self, asks: Sequence[Settle], timeout: float) -> list[int | Exception]:
        """Owners end cleanly, up to `CALL` of them. For each 1, 0 if the record is not its own, or why not."""
        words = [
            (
                ask.record,
                (ask.owner.fence, ask.owner.consumer, round(ask.lifetime * 1000), int(ask.clean), int(ask.idle)),
            )
            for ask in asks
        ]
        return await self._run(scripts.load("settle"), words, timeout)

    async def move(self, record: str, former: str, fences: str, timeout: float) -> None:
        """Bring a record from the key that it had before, if its fence begins with `fences`."""
        await self._connection.run(scripts.load("move"), [record, former], [fences], timeout=timeout)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _begin(self, asks: list[Begin]) -> list[Begun | Refused | Suspect | Exception | None]:
        words = [(ask.record, _begin_words(ask)) for ask in asks]
        return [_begun(reply) for reply in await self._sized(self._beginning, scripts.load("begin"), words)]

    async def _checkpoint(self, asks: list[Checkpoint]) -> list[Refused | bool | Exception]:
        words = [(ask.record, (ask.owner.fence, ask.owner.consumer, ask.id, _or_empty(ask.added))) for ask in asks]
        replies = await self._sized(self._advancing, scripts.load("checkpoint"), words)
        return [_checkpointed(reply) for reply in replies]

    async def _fail(self, asks: list[Fail]) -> list[Failed | Refused | Exception]:
        words = [(ask.record, (ask.owner.fence, ask.owner.consumer, ask.error)) for ask in asks]
        return [_failed(reply) for reply in await self._sized(self._failing, scripts.load("fail"), words)]

    async def _sized(
        self, window: Window, script: Script, asks: Sequence[tuple[str, tuple[Any, ...]]]
    ) -> list[Any]:
        """Run a script; the next calls are smaller when this one is not answered."""
        replies = await self._run(script, asks, min(window.patience, self._longest))
        if any(isinstance(reply, Unanswered) and reply.maybe_executed for reply in replies):
            window.unanswered(len(asks))
        else:
            window.answered()
        return replies

    async def _run(self, script: Script, asks: Sequence[tuple[str, tuple[Any, ...]]], timeout: float) -> list[Any]:
        """One script call for each slot. A call that failed gives its error for each of its records."""
        slots: dict[int, list[int]] = defaultdict(list)
        for index, (record, _) in enumerate(asks):
            slots[self._slot(record)].append(index)
        results: list[Any] = [None] * len(asks)

        async def call(indices: list[int]) -> None:
            keys = [asks[index][0] for index in indices]
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
        return results

    def _translated(self, reply: Any) -> Any:
        match reply:
            case [b"error", bytes(text)]:
                fault = error_mapping.map_reply(ResponseError(text.decode(errors="replace")))
                if isinstance(fault, Unanswered) and fault.elsewhere:
                    self._connection.drop(fault)
                return fault
            case Unanswered():
                return Unanswered(str(reply), maybe_executed=reply.maybe_executed, elsewhere=reply.elsewhere)
        return reply


def _begin_words(ask: Begin) -> tuple[Any, ...]:
    return (
        ask.owner.fence, ask.owner.consumer, int(ask.look_only), ask.unrecorded,
        ask.replaces.fence, encode_name(ask.replaces.consumer), _or_empty(ask.most_deaths),
    )  # fmt: skip


def _begun(reply: Any) -> Begun | Refused | Suspect | Exception | None:
    match reply:
        case [b"begun", bytes(checkpoint), int(attempts), bytes(added), *trouble]:
            return Begun(
                checkpoint.decode() or None,
                attempts,
                Added.parse(added),
                _trouble(*trouble) if trouble else None,
            )
        case [b"suspect", int(deaths), *trouble]:
            return Suspect(deaths, _trouble(*trouble))
        case [b"fresh"]:
            return None
    return _refused(reply)


def _trouble(failures: int, milliseconds: int, error: bytes) -> Trouble:
    return Trouble.found(failures, milliseconds / 1000, error.decode(errors="backslashreplace"))


def _failed(reply: Any) -> Failed | Refused | Exception:
    match reply:
        case [b"failed", int(failures), int(milliseconds)]:
            return Failed(failures, milliseconds / 1000)
    return _refused(reply)


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number


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
