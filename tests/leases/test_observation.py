"""What an observer is told of leases, and what is remembered for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_stream_client import Checkpoint, Observer, Pause
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.announcement import Announcement

if TYPE_CHECKING:
    from redis_stream_client import Ending, Gain, HandlerEnd, HandlerStart, Loss


class Notes(Observer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def gained(self, gain: Gain) -> None:
        self.told.append(gain)

    def lost(self, loss: Loss) -> None:
        self.told.append(loss)

    def ended(self, ending: Ending) -> None:
        self.told.append(ending)

    def handler_started(self, start: HandlerStart) -> None:
        self.told.append(start)

    def handler_ended(self, end: HandlerEnd) -> None:
        self.told.append(end)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.told.append(checkpoint)


class Client:
    """A client's table, with one lease that was gained."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.observation = Observation(self.notes, "me")
        self.table = LeaseTable(EventQueue(1.0, 1.0), self.observation)
        self.lease = LeaseState("1-0", Announcement("call-1", {"a": 1}), 1)
        self.table.add(self.lease)
        self.observation.gained(self.lease, "claimed", previous="peer", silent_for=2.0, carrier={})
        (self.gain,) = self.notes.told


def test_a_handler_starts_with_how_the_stream_was_gained() -> None:
    client = Client()
    with client.observation.handling(client.lease):
        pass
    client.table.end(client.lease, "done")
    client.observation.handler_ended(client.lease, "done", None)
    client.observation.handler_ended(client.lease, "lost", None)  # once only
    _, start, ending, end = client.notes.told
    assert (start.gain, start.info, start.attempts) == (client.gain, {"a": 1}, 1)
    assert (client.gain.how, client.gain.previous, client.gain.silent_for) == ("claimed", "peer", 2.0)
    assert (ending.how, ending.fence) == ("done", client.gain.fence)
    assert (end.start, end.outcome, end.error) == (start, "done", None)


def test_a_handler_that_was_not_called_does_not_end() -> None:
    client = Client()
    client.table.lose(client.lease, "claimed", "other")
    client.observation.handler_ended(client.lease, "lost", None)
    _, loss = client.notes.told
    assert (loss.reason, loss.to) == ("claimed", "other")


def test_a_stream_that_goes_to_a_peer_with_fewer_is_given() -> None:
    client = Client()
    client.lease.drain(given=True)
    client.table.part(client.lease)
    assert [told.how for told in client.notes.told] == ["claimed", "given"]


def test_a_stream_that_stays_after_all_is_not_given() -> None:
    client = Client()
    client.lease.drain(given=True)
    client.lease.undrain()
    client.table.part(client.lease)
    assert [told.how for told in client.notes.told] == ["claimed", "released"]


def test_a_checkpoint_says_how_many_entries_came_since_the_last_one() -> None:
    client = Client()
    client.observation.checkpointed(client.lease, "5-0", 3)
    client.observation.checkpointed(client.lease, "9-0", 10)
    first, second = client.notes.told[1:]
    assert (first.id, first.entries, second.id, second.entries) == ("5-0", 3, "9-0", 7)
    assert first.lag > second.lag > 1e9


def test_a_checkpoint_that_is_accepted_after_the_loss_counts_no_entry_twice() -> None:
    client = Client()
    with client.observation.handling(client.lease):
        client.observation.checkpointed(client.lease, "5-0", 3)
        client.table.lose(client.lease, "claimed")
        client.observation.checkpointed(client.lease, "9-0", 10)
    assert [told.entries for told in client.notes.told if isinstance(told, Checkpoint)] == [3, 7]


def test_a_pause_is_told_when_it_begins_and_ends() -> None:
    told: list[tuple[str, str, Pause]] = []

    class Pauses(Observer):
        def paused(self, consumer: str, pause: Pause) -> None:
            told.append(("paused", consumer, pause))

        def resumed(self, consumer: str, pause: Pause) -> None:
            told.append(("resumed", consumer, pause))

    observation = Observation(Pauses(), "me")
    first, other_reason, second = Pause("why", 1.0), Pause("no longer", 1.0), Pause("again", 2.0)
    for pause in (None, first, other_reason, second, None, None):
        observation.pause_is(pause)
    begun, over = ("paused", "me", first), ("resumed", "me", other_reason)
    assert told == [begun, over, ("paused", "me", second), ("resumed", "me", second)]


def test_nothing_is_remembered_of_what_has_ended() -> None:
    client = Client()
    with client.observation.handling(client.lease):
        client.table.lose(client.lease, "claimed")
        client.observation.checkpointed(client.lease, "5-0", 3)
    client.observation.handler_ended(client.lease, "lost", None)
    assert client.observation.watched == 0
