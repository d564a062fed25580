"""The demo looks at Redis by itself, and so knows the names of keys by itself: the library's."""

from __future__ import annotations

from redis_stream_client._model import keys
from redis_stream_client.demo import truth
from redis_stream_client.demo.settings import Settings


def test_the_demo_knows_the_keys_of_the_library() -> None:
    settings = Settings(4, 24, None, 2.0)
    ours, theirs = truth.Keys(settings.service), keys.Keys(settings.service)
    assert (ours.lbs, ours.group, ours.dead) == (theirs.lbs, theirs.group, theirs.dead)
    assert (ours.announced, ours.present, ours.watch) == (theirs.announced, theirs.present, theirs.watch)
    assert sorted(ours.turns) == sorted(theirs.turns)
    assert ours.lock("consumer-1") == theirs.lock("consumer-1")
    assert ours.progress(settings.stream(1)) == theirs.progress(settings.stream(1))
