"""For how long the oldest announcement waits."""

from __future__ import annotations

from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement


def test_it_grows_older_until_nothing_waits() -> None:
    oldest = OldestAnnouncement()
    assert oldest.age(100.0) is None
    oldest.seen(3.0, 100.0)
    assert oldest.age(100.0) == 3.0
    assert oldest.age(102.0) == 5.0
    oldest.seen(None, 103.0)
    assert oldest.age(104.0) is None
