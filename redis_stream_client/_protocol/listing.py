"""The announcements of a service in pages, seen from outside, each with its owner."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from redis_stream_client._model.announcement import Malformed, decode
from redis_stream_client._model.entry import order, parse_id
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import PAGE, behind, decode_name, encode_name
from redis_stream_client._redis.script_calls import Call, Command, ScriptCalls

PAGE_BYTES = 1 << 18  # bytes of announcements in one page; the last one may exceed them
SEARCHED = 2_000  # the most announcements that one call searches
SEARCHED_BYTES = 1 << 20  # bytes of announcements that one call searches

_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")


class Listed(NamedTuple):
    """An announcement.

    Attributes:
        lbs_id: its id.
        stream: the data stream; None if the announcement is malformed.
        consumer: for whom it is pending; "" if it waits.
        deliveries: how often it was delivered.
    """

    lbs_id: str
    stream: str | None
    consumer: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some announcements. `last`: the one to go on after; None: these were the last ones."""

    found: list[Listed]
    last: str | None


class Listing:
    """Reads the announcements of one service.

    Args:
        calls: reaches the server.
        keys: names the service.

    All methods raise `Unanswered` or `RedisRejected`.
    """

    def __init__(self, calls: ScriptCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    async def newest(self) -> str | None:
        """The id of the newest announcement; None: there is none."""
        found = await self._calls.ask(
            Command(self._keys.lbs, ("XREVRANGE", self._keys.lbs, "+", "-", "COUNT", 1), reads=True)
        )
        return found[0][0].decode() if found else None

    async def page(self, after: str | None, newest: str, consumer: str | None) -> Page:
        """The announcements after this one, up to the newest one; only those that are pending for a consumer, if
        one is named."""
        return await self._page(behind(after), newest, consumer or "", PAGE, PAGE_BYTES, "")

    async def one(self, lbs_id: str) -> Listed | None:
        """This announcement; None: it is over."""
        page = await self._page(lbs_id, lbs_id, "", 1, PAGE_BYTES, "")
        return page.found[0] if page.found else None

    async def find(self, stream: str) -> Listed | None:
        """The newest announcement of a stream; None: there is none.

        The hash of the newest announcements names it. Where that does not know it, as of streams that another
        library announced, all announcements are searched, in pages.
        """
        try:
            told = await self._calls.ask(
                Command(self._keys.announced, ("HGET", self._keys.announced, stream), reads=True)
            )
        except RedisRejected:
            told = None
        lbs_id = told.decode(errors="replace") if told is not None else ""
        if parse_id(lbs_id) is not None:
            page = await self._page(lbs_id, lbs_id, "", 1, PAGE_BYTES, "")
            for found in page.found:
                if found.stream == stream:
                    return found
        return await self._search(stream)

    async def _search(self, stream: str) -> Listed | None:
        newest = await self.newest()
        plain = max(_PLAIN.findall(stream), key=len, default="")
        result: Listed | None = None
        after: str | None = None
        while newest is not None:
            page = await self._page(behind(after), newest, "", SEARCHED, SEARCHED_BYTES, plain)
            result = next((found for found in reversed(page.found) if found.stream == stream), result)
            if page.last is None:
                break
            after = page.last
        return result

    async def _page(self, first: str, last: str, consumer: str, most: int, size: int, text: str) -> Page:
        reply = await self._calls.ask(self._listing(first, last, consumer, most, size, text))
        words = reply[1:]
        found = [
            Listed(lbs_id.decode(), _stream(fields), decode_name(owner), deliveries)
            for lbs_id, fields, owner, deliveries in zip(
                words[::4], words[1::4], words[2::4], words[3::4], strict=True
            )
        ]
        end = reply[0].decode()
        return Page(found, end if end and order(end) < order(last) else None)

    def _listing(self, first: str, last: str, consumer: str, most: int, size: int, text: str) -> Call:
        args: list[str | bytes] = [
            self._keys.group,
            encode_name(consumer),
            first,
            last,
            str(most),
            str(size),
            text,
        ]
        return Call(scripts.load("listing"), [self._keys.lbs], args, reads=True)


def _stream(fields: list[bytes]) -> str | None:
    try:
        return decode(fields).stream
    except Malformed:
        return None
