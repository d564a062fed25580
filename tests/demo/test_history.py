"""The demo's history: when a stream had an owner again."""

from __future__ import annotations

from redis_stream_client.demo.history import History
from tests.demo.test_verdict import incident, notes


class TestHistory:
    def test_a_recovery_is_the_first_write_of_a_newer_owner(self) -> None:
        history = History()
        history.add(notes("1a", at=10.0))
        kill = incident("kill", "a", 10.5, "call-1", "call-2")
        history.happened(kill)
        assert history.add(notes("2a 2bx", at=11.0)) == []  # what was on its way, and what counts for nothing
        (change,) = history.add(notes("2br 3b", at=12.0))
        assert (change.incident, change.seconds) == (kill, 1.5)
        assert history.recovered(kill) == {"call-1": 1.5}
        assert not history.over(kill)
        assert history.taken["redis-consumer-b-0123abcd"] == 1

    def test_an_owner_that_never_wrote(self) -> None:
        history = History([incident("kill", "a", 1.0, "call-1"), incident("freeze", "b", 2.0, "call-1")])
        (change,) = history.add(notes("1c", at=4.0))
        assert change.before == "redis-consumer-b-0123abcd"
        assert [history.recovered(incident) for incident in history.incidents] == [
            {"call-1": 3.0},
            {"call-1": 2.0},
        ]
