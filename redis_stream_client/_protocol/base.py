"""What all stubs share: the sizes of replies, and the encoding of words.

A stub class bundles the scripts and commands of one subject. Each method sends one request, once: the callers know
what a lost reply means for them. Decisions that need a clock use that of the server. All methods raise
`Unanswered`, `GroupMissing` or `RedisRejected`. Their last parameter, `timeout`, is in seconds.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._model.logs import Log
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.window import Window

PAGE = 250  # the most entries that one script call moves or lists: about 3 ms of Redis
LOOK_PAGE = 10_000  # the most entries that one XPENDING lists
OWNERS = 1_000  # the most entries whose owners one script call returns
REPLY_BYTES = 1 << 20  # bytes of announcements in one reply; the last announcement may exceed them
SEEN_BYTES = 1 << 22  # bytes of announcements that Redis reads for one call without sending them
ABSENT = -2  # what PTTL says of a key that does not exist

T = TypeVar("T")


class ReplySizes:
    """How much to ask for at once. All stubs of a client share it, because they share the line and the server.

    Args:
        patience: the first timeout of a request, in seconds.
        log: the log of the client.

    Attributes:
        announcements: bytes of announcements.
        pending: entries that are listed without their fields.
        owners: entries whose owners are asked for.
    """

    def __init__(self, patience: float, log: Log) -> None:
        self.announcements = Window(
            "bytes of announcements in a reply", REPLY_BYTES, patience, log=log, smallest=1
        )
        self.pending = Window("pending entries in a reply", LOOK_PAGE, patience, log=log, smallest=10)
        self.owners = Window("owners in a reply", OWNERS, patience, log=log, smallest=10)

    @property
    def shrunk(self) -> int:
        """How often a request got no answer and was made smaller."""
        return self.announcements.shrunk + self.pending.shrunk + self.owners.shrunk


class Patience:
    """How long to wait for the answer to a small request, such as a beat.

    After a request without an answer it is twice as long, up to the lifetime of the lock. Otherwise a line with
    longer round trips could never hold the lock, because each request without an answer closes the connection.
    """

    def __init__(self, lock_ttl: float) -> None:
        self._longest = lock_ttl
        self._seconds = 0.0

    async def wait(self, timeout: float, send: Callable[[float], Awaitable[T]]) -> T:
        """Send a request with `timeout` seconds, or with more if the line needs it."""
        patience, sent = max(timeout, self._seconds), clock.now()
        try:
            reply = await send(patience)
        except Unanswered as error:
            if error.maybe_executed:
                self._seconds = min(2 * patience, self._longest)
            raise
        if clock.now() - sent < timeout / 2:
            self._seconds = 0.0
        return reply


async def sized(window: Window, timeout: float, send: Callable[[int, float], Awaitable[T]]) -> T:
    """Send a request with a size and timeout that suit the line. Without an answer, the next one asks for less and
    waits longer."""
    size, sent = window.size, clock.now()
    try:
        reply = await send(size, max(timeout, window.patience))
    except Unanswered as error:
        if error.maybe_executed:
            window.unanswered(size)
        raise
    window.answered(clock.now() - sent)
    return reply


def decode_name(raw: bytes) -> str:
    """Decode the name of a consumer. It need not be UTF-8, and `encode_name` must restore it."""
    return raw.decode(errors="surrogateescape")


def encode_name(name: str) -> bytes:
    """The name of a consumer as Redis has it."""
    return name.encode(errors="surrogateescape")


def flat(entries: Iterable[tuple[Any, ...]]) -> list[Any]:
    """What is known of each entry, its LBS id and delivery count first, in turn, as the scripts take it."""
    return [word for entry in entries for word in entry]


def behind(lbs_id: str | None) -> str:
    """The start of the page after this entry; None: the first page."""
    return f"({lbs_id}" if lbs_id else "-"
