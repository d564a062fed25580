"""How often a stream is looked at: the more rarely, the more is heard of it."""

from __future__ import annotations

from redis_stream_client._streams.intervals import POLL, REASSURANCE, UNPROVEN


def test_the_more_is_heard_the_more_rarely_streams_are_looked_at() -> None:
    shortest, longest = POLL
    assert shortest < longest <= UNPROVEN < REASSURANCE
