"""Dead letters for the tests: buried by the script that buries them, or written as somebody else might."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.servers import Server

CONSUMER = "redis-consumer-anna-00000000"
REASON = "its handler failed 16 times"

Pair = tuple[bytes, bytes]


def announcement(stream: str, number: int = 0) -> Pair:
    """The field that announces a stream."""
    return FIELD.encode(), encode(stream, {"number": number})


def flat(fields: Sequence[Pair]) -> list[bytes]:
    """Names and values by turns."""
    return [word for pair in fields for word in pair]


def written(fields: Sequence[Pair]) -> list[bytes]:
    """What a letter with these fields of its own consists of, where they are not packed."""
    head = [b"reason", REASON.encode(), b"lbs-id", b"1-0", b"consumer", CONSUMER.encode(), b"deliveries", b"3"]
    return [*head, *flat(fields)]


def bury(server: Server, service: str, fields: Sequence[Pair], reason: str = REASON, details: str = "") -> str:
    """Announce, deliver to a consumer that lives in Redis only, and bury; returns the letter's id."""
    keys = Keys(service)
    if not server.command("EXISTS", keys.lbs):
        server.command("XGROUP", "CREATE", keys.lbs, keys.group, "0", "MKSTREAM")
    lbs_id = server.command("XADD", keys.lbs, "*", *flat(fields))
    server.command("XREADGROUP", "GROUP", keys.group, CONSUMER, "STREAMS", keys.lbs, ">")
    script, names = scripts.load("bury").text, (keys.lbs, keys.dead, keys.announced)
    arguments = (keys.group, CONSUMER, lbs_id, 1, reason, details, "")
    assert server.command("EVAL", script, 3, *names, *arguments) == b"buried"
    [(letter_id, _)] = server.command("XREVRANGE", keys.dead, "+", "-", "COUNT", 1)
    return str(letter_id.decode())


def bury_stream(server: Server, service: str, stream: str) -> str:
    """Bury the announcement of a stream; returns the letter's id."""
    return bury(server, service, [announcement(stream)])
