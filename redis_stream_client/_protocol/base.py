"""What the stubs share: how large a reply they ask for, and how words look on the wire.

A stub class bundles the scripts and commands of one subject. Each method is one request, decides on the server by
the server's clock, and is sent once: the callers know what a lost reply means for them. All raise `Unanswered`,
`GroupMissing` or `RedisRejected`. The last parameter, `timeout`, is in seconds.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.window import Window

PAGE = 250  # entries that one script call moves or lists: about 3 ms of Redis
LOOK_PAGE = 10_000  # entries that one XPENDING lists
OWNERS = 1_000  # entries whose owners one script call tells
REPLY_BYTES = 1 << 20  # of announcements in one reply, the last one's excess left out
SEEN_BYTES = 1 << 22  # of announcements that Redis reads for one call without sending them

T = TypeVar("T")


class ReplySizes:
    """How much to ask for at once. The stubs of one client share it: what is too much for one is too much for all.

    Attributes:
        announcements: bytes of announcements.
        pending: entries that are listed without their fields.
        owners: entries whose owners are told.
    """

    def __init__(self, lock_ttl: float) -> None:
        patience = lock_ttl / 2
        self.announcements = Window("bytes of announcements in a reply", REPLY_BYTES, patience, smallest=1)
        self.pending = Window("pending entries in a reply", LOOK_PAGE, patience, smallest=10)
        self.owners = Window("owners in a reply", OWNERS, patience, smallest=10)

    @property
    def shrunk(self) -> int:
        """How often a request went unanswered, and was made smaller."""
        return self.announcements.shrunk + self.pending.shrunk + self.owners.shrunk


async def sized(window: Window, timeout: float, send: Callable[[int, float], Awaitable[T]]) -> T:
    """Send a request whose size and time-out suit the line: after one that got no answer, the next asks for less
    and waits longer."""
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
    """A consumer's name. What others call themselves need not be UTF-8, and must survive the way back."""
    return raw.decode(errors="surrogateescape")


def encode_name(name: str) -> bytes:
    """A consumer's name as Redis has it."""
    return name.encode(errors="surrogateescape")


def flat(entries: Iterable[tuple[str, int]]) -> list[Any]:
    """LBS ids and delivery counts by turns, as the scripts take them."""
    return [word for entry in entries for word in entry]


def behind(lbs_id: str | None) -> str:
    """Where a page begins that follows this entry; None: the first page."""
    return f"({lbs_id}" if lbs_id else "-"
