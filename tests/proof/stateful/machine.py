"""A fleet to which anything happens, step by step, beside what is known of its streams.

The model is small: which streams were announced, which were finished, which leases were handed to whom, and under
which fences. All else is looked up in Redis, and compared.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import redis

from redis_stream_client import (
    AlreadyClaimed,
    NotJoined,
    NotOwner,
    RedisUnavailable,
    StreamAdded,
    StreamDisowned,
    StreamGone,
)
from redis_stream_client._protocol import scripts
from tests.proof.stateful.consumers import Consumer
from tests.proof.stateful.script import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis_stream_client import Lease
    from tests.harness.servers import Server
    from tests.proof.stateful.script import Step


LOCK_TTL = 0.2
HEALED = 20.0
"""Seconds in which a fleet that is left alone must have finished everything; it takes the fraction of one."""
LIVELY = 6 * LOCK_TTL
"""Seconds in which whoever is awake in a fleet that is left alone knows what it owns, and what it may claim: one
period of an audit, and one lifetime of a lock."""
BUSY = 3.0
"""What this machine may add to that by being busy with other tests."""
MOST = 4
"""Consumers at a time."""


class Fleet(Scripted):
    """Consumers A, B, C … of one service on a real server, and what is done to them."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, ("join", "claim", "adopt", "done", "release", "share"))
        self._redis.config_set("notify-keyspace-events", "")
        self.consumers: dict[str, Consumer] = {}
        # The model.
        self.streams: dict[str, str] = {}
        """The announcements' ids, by stream."""
        self.finished: set[str] = set()
        """The streams of which a `done` was accepted."""
        self.in_doubt: set[str] = set()
        """Those of which nobody knows whether a `done` was executed, or will be."""
        self.fences: defaultdict[str, dict[int, str]] = defaultdict(dict)
        """The delivery counts that were handed out, and to whom, by stream."""
        self.begun: dict[str, int] = {}
        """The delivery count whose checkpoint was accepted last, by stream."""

    def _close(self) -> list[Any]:
        return [error for consumer in self.consumers.values() for error in consumer.close()]

    def _choices(self, name: str) -> list[dict[str, Any]]:
        """The names that a step may be taken with now."""
        everybody = self.consumers.items()
        alive = [name for name, consumer in everybody if not consumer.dead]
        offered = sorted({stream for consumer in self.consumers.values() for stream in consumer.offers})
        match name:
            case "join":
                return [{}] if len(alive) < MOST else []
            case "claim":
                return [{"by": by, "stream": stream} for by in self.awake for stream in offered]
            case "all_claim":
                return [{"stream": stream} for stream in offered]
            case "done" | "release" | "checkpoint":
                held = [(by, lease) for by in self.awake for lease in self.consumers[by].newest()]
                return [{"by": by, "stream": lease.stream} for by, lease in held]
            case "done_arrives_late":
                held = [(by, lease) for by, consumer in everybody for lease in consumer.leases]
                return [{"by": by, "stream": lease.stream} for by, lease in held if self._outdated(lease)]
            case "stall" | "end":
                return [{"consumer": name} for name in self.awake]
            case "wake":
                return [{"consumer": name} for name, consumer in everybody if consumer.stalled]
            case "isolate" | "reconnect" | "cut" | "lose" | "take_lock_away":
                return [{"consumer": name} for name in alive]
        return [{}]

    def _outdated(self, lease: Lease) -> bool:
        """Whether a newer lease of the same stream was handed out."""
        return lease.deliveries < max(self.fences[lease.stream])

    # Who and what there is.

    @property
    def awake(self) -> list[str]:
        """The consumers whose user's code runs."""
        return [name for name, consumer in self.consumers.items() if consumer.awake]

    # Steps: a fleet at work.

    def begin(self, consumers: int, streams: int) -> None:
        """So many consumers join, and share so many streams."""
        for _ in range(consumers):
            self._join()
        self.announce(streams)
        self.read()

    def _join(self) -> None:
        name = next(self._names)
        self.consumers[name] = Consumer(name, self._network, self._server, "orders", LOCK_TTL)

    def join(self) -> None:
        """One more."""
        self._join()

    def announce(self, streams: int) -> None:
        """So many new streams."""
        for _ in range(streams):
            stream = f"s{len(self.streams) + 1}"
            lbs_id = self._redis.xadd(self._keys.lbs, {"lbs-input": json.dumps({"DataStreamName": stream})})
            self.streams[stream] = lbs_id.decode()

    def read(self) -> None:
        """All read their events; each waits a while if one is due."""
        for name in self.awake:
            self._read(self.consumers[name], patience=1.0)

    def _read(self, consumer: Consumer, patience: float) -> None:
        give_up = time.monotonic() + patience
        while (
            time.monotonic() < give_up and not consumer.client.statistics().unread_events and self._due(consumer)
        ):
            time.sleep(0.005)
        for event in consumer.read():
            if isinstance(event, StreamAdded):
                self._handed(consumer, event.payload)
            elif isinstance(event, StreamDisowned):
                self._told(consumer, event)

    def _due(self, consumer: Consumer) -> bool:
        """Whether an event should come: a stream, or an offer, that it has not seen."""
        owners = self._owners()
        for stream, lbs_id in self._unfinished():
            owner, count = owners.get(lbs_id, ("", 0))
            offer = consumer.offers.get(stream)
            if not owner or (owner == consumer.client.id and count not in self.fences[stream]):
                return True
            if not self._redis.exists(self._keys.lock(owner)) and (not offer or offer.deliveries != count):
                return True
        return False

    def claim(self, by: str, stream: str) -> None:
        """A consumer claims what was offered to it, or to another one, however long ago."""
        self._read(self.consumers[by], patience=2 * LOCK_TTL)
        self._claim([by], stream)

    def all_claim(self, stream: str) -> None:
        """All claim it at the same time."""
        self._claim(self.awake, stream)

    def _claim(self, names: Iterable[str], stream: str) -> None:
        offers = [consumer.offers[stream] for consumer in self.consumers.values() if stream in consumer.offers]
        offer = max(offers, key=lambda offer: offer.deliveries)
        known = max(self.fences[stream], default=0)
        claimers = [self.consumers[name] for name in names]
        claims = [(consumer, consumer.loop.start(consumer.client.claim(offer))) for consumer in claimers]
        for consumer, claim in claims:
            try:
                lease = claim.result(20)
            except (AlreadyClaimed, NotJoined, RedisUnavailable):
                continue
            except StreamGone:
                assert stream in self.finished | self.in_doubt, f"{stream} is gone, and nobody finished it"
                continue
            consumer.leases.append(lease)
            assert lease.deliveries > known, f"{lease} has no greater fence than what was handed out before"
            self._handed(consumer, lease)

    def done(self, by: str, stream: str) -> None:
        """A consumer finishes its newest lease of a stream, which may be lost."""
        self._done(by, stream)

    def _done(self, by: str, stream: str) -> None:
        consumer = self.consumers[by]
        lease = consumer.lease(stream)
        newer = [count for count in self.fences[stream] if count > lease.deliveries]
        try:
            consumer.loop.run(lease.done())
        except NotOwner as refused:
            if refused.gone and not self._redis.xrange(self._keys.lbs, lease.lbs_id, lease.lbs_id):
                self.in_doubt.add(stream)
        except RedisUnavailable:
            self.in_doubt.add(stream)
        else:
            assert stream not in self.finished, f"{stream} was finished twice"
            assert not newer, f"{lease} was finished, though {newer} were handed out"
            assert not self._redis.xrange(self._keys.lbs, lease.lbs_id, lease.lbs_id), "not finished at all"
            self.finished.add(stream)
            consumer.ended.append(lease)

    def release(self, by: str, stream: str) -> None:
        """A consumer gives back its newest lease of a stream, which may be lost."""
        consumer = self.consumers[by]
        lease = consumer.lease(stream)
        consumer.ended.append(lease)
        with contextlib.suppress(NotOwner, RedisUnavailable):
            consumer.loop.run(lease.release())
        assert not lease.owned

    def checkpoint(self, by: str, stream: str) -> None:
        """A consumer records that it processed a new entry of a stream."""
        consumer = self.consumers[by]
        lease = consumer.lease(stream)
        id = self._redis.xadd(stream, {"n": 1}).decode()
        try:
            consumer.loop.run(lease.checkpoint(id))
        except (NotOwner, RedisUnavailable):
            return
        assert lease.deliveries >= self.begun.get(stream, 0), f"{lease} wrote over a newer owner's checkpoint"
        self.begun[stream] = lease.deliveries
        assert self._redis.hget(self._keys.progress(stream), "checkpoint") == id.encode()

    # Steps: what happens to it.

    def stall(self, consumer: str, past_its_lock: bool) -> None:
        """Its event loop stands still, until it wakes."""
        self.consumers[consumer].stall()
        if past_its_lock:
            self._time_passes()

    def _time_passes(self) -> None:
        """More than the lifetime of a lock."""
        time.sleep(LOCK_TTL * 1.2)

    def wake(self, consumer: str) -> None:
        """It goes on."""
        self.consumers[consumer].wake()

    def end(self, consumer: str, in_good_order: bool) -> None:
        """It leaves, or it is never heard again."""
        if in_good_order:
            self.consumers[consumer].leave()
        else:
            self.consumers[consumer].crash()

    def take_lock_away(self, consumer: str) -> None:
        """Its lock expires before its time."""
        holder = self.consumers[consumer]
        if self._redis.pexpire(self._keys.lock(holder.client.id), 1):
            holder.lock_taken_away()
            time.sleep(0.003)

    def isolate(self, consumer: str, past_its_lock: bool) -> None:
        """Its network holds everything back, until it is connected again."""
        self.consumers[consumer].isolate()
        if past_its_lock:
            self._time_passes()

    def reconnect(self, consumer: str) -> None:
        """Its network lets everything go, also what the consumer has given up."""
        self.consumers[consumer].reconnect()

    def cut(self, consumer: str) -> None:
        """Its connections are reset."""
        self.consumers[consumer].cut()

    def lose(self, consumer: str, what: str, to: str) -> None:
        """The next such request of it, or the reply to it, is lost."""
        self.consumers[consumer].lose(what, to if to.isupper() else scripts.load(to).sha)

    def deafen(self, silenced: bool) -> None:
        """What was to be heard is not; if silenced, nor is what follows, until somebody subscribes anew."""
        if silenced:
            self._redis.config_set("notify-keyspace-events", "")
        else:
            self._redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def hiccup(self) -> None:
        """Redis pauses: what is asked now is answered in one go."""
        self._redis.execute_command("CLIENT", "PAUSE", 20)

    def done_arrives_late(self, by: str, stream: str) -> None:
        """What a consumer sent to finish its outdated leases of a stream was under way all the time."""
        consumer = self.consumers[by]
        for lease in consumer.leases:
            if lease.stream == stream and self._outdated(lease):
                keys = (self._keys.lbs, self._keys.announced)
                words = (self._keys.group, consumer.client.id, lease.lbs_id, lease.deliveries, stream)
                reply = self._redis.eval(scripts.load("done").text, 2, *keys, *words)
                assert reply != [b"done"], f"{lease} was finished, though it is outdated"

    # What must be true.

    def _handed(self, consumer: Consumer, lease: Lease) -> None:
        """A lease came into somebody's hands."""
        assert self.streams[lease.stream] == lease.lbs_id
        owner = self.fences[lease.stream].setdefault(lease.deliveries, consumer.name)
        mine = [other for other in consumer.leases if other.stream == lease.stream]
        counts = [other.deliveries for other in mine]
        assert owner == consumer.name, f"{owner} and {consumer.name} were handed {lease} under the same fence"
        assert counts == sorted(set(counts)), f"the fences of {consumer.name} do not grow: {counts}"

    def _told(self, consumer: Consumer, event: StreamDisowned) -> None:
        """A consumer was told that a lease is lost."""
        lease = event.payload
        assert lease in consumer.leases, f"{event} is about a lease that {consumer.name} was never handed"
        assert [told.payload for told in consumer.told].count(lease) == 1, f"{event} came twice"
        standing = self._owners().get(lease.lbs_id)
        assert event.reason == "expired" or standing != (consumer.client.id, lease.deliveries), (
            f"{event}, though nobody took it"
        )

    def look(self) -> None:
        """Compare what the consumers believe with Redis."""
        sure = [consumer for consumer in self.consumers.values() if not consumer.doubtful]
        owned = [(consumer, lease) for consumer in sure for lease in consumer.leases if lease.owned]
        owners = self._owners()
        there = {id.decode() for id, _ in self._redis.xrange(self._keys.lbs)}
        for consumer, lease in owned:
            if lease.owned and not consumer.doubtful and lease.stream not in self.in_doubt:
                standing = owners.get(lease.lbs_id)
                assert standing == (consumer.client.id, lease.deliveries), (
                    f"{consumer.name} believes that it owns {lease}, and Redis says {standing}"
                )
        for consumer in self.consumers.values():
            for event in consumer.told:
                assert not event.payload.owned, f"{event.payload} of {consumer.name} was lost, and is owned again"
        missing = {stream for stream, lbs_id in self._unfinished() if lbs_id not in there}
        assert not missing, f"{missing} disappeared, and nobody finished them"

    def _unfinished(self) -> list[tuple[str, str]]:
        done = self.finished | self.in_doubt
        return [(stream, lbs_id) for stream, lbs_id in self.streams.items() if stream not in done]

    def _owners(self) -> dict[str, tuple[str, int]]:
        """Whom each announcement is pending for, and its delivery count, by Redis."""
        try:
            pending = self._redis.xpending_range(self._keys.lbs, self._keys.group, "-", "+", 1000)
        except redis.ResponseError:  # nobody has joined yet
            return {}
        return {
            entry["message_id"].decode(): (entry["consumer"].decode(), entry["times_delivered"])
            for entry in pending
        }

    # The end: each stream is finished by its owner, or offered to an heir.

    def _heal(self) -> None:
        for consumer in self.consumers.values():
            consumer.heal()
        self._live()
        self._join()
        heir = list(self.consumers)[-1]
        give_up = time.monotonic() + HEALED
        while self._redis.xlen(self._keys.lbs) or self._untold():
            for name in self.awake:
                self._read(self.consumers[name], patience=0.0)
            for name, stream in itertools.product(self.awake, self.streams):
                if any(lease.stream == stream and lease.owned for lease in self.consumers[name].newest()):
                    self._done(name, stream)
            for stream in list(self.consumers[heir].offers):
                self._claim([heir], stream)
                del self.consumers[heir].offers[stream]
            self.look()
            assert time.monotonic() < give_up, (
                f"{self._redis.xlen(self._keys.lbs)} streams are never finished: {self._owners()}; "
                f"leases that were lost in silence: {self._untold()}; consumers: {self.consumers}"
            )
            time.sleep(0.005)
        assert not self._owners()
        for consumer in self.consumers.values():
            if consumer.awake:
                consumer.leave()
        while locks := self._redis.keys(self._keys.lock("*")):  # of those that crashed
            assert time.monotonic() < give_up, f"{locks} are left"
            time.sleep(0.01)

    def _live(self) -> None:
        """Nothing stands still: what there is comes to those that are awake, within a bound."""
        give_up = time.monotonic() + LIVELY + BUSY
        while self.awake and (still := list(self._standing_still())):
            assert time.monotonic() < give_up, f"for {LIVELY + BUSY:g} s nobody heard of {still}: {self._owners()}"
            for name in self.awake:
                self._read(self.consumers[name], patience=0.0)
            self.look()
            time.sleep(0.005)

    def _standing_still(self) -> Iterator[str]:
        """Streams that nobody has read; that nobody handles, though somebody owns them; of which not everybody
        has heard that they may be claimed. And leases that were lost in silence."""
        yield from (repr(lease) for lease in self._untold() if not lease.owned)
        owners = self._owners()
        for stream, lbs_id in self._unfinished():
            owner, count = owners.get(lbs_id, ("", 0))
            if not owner:
                yield f"{stream}, announced"
            elif holder := next((c for c in self.consumers.values() if c.client.id == owner and c.awake), None):
                held = [lease for lease in holder.leases if (lease.stream, lease.deliveries) == (stream, count)]
                if not any(lease.owned or lease in holder.ended for lease in held):
                    yield f"{stream}, owned by {holder.name}"
            else:
                offers = [self.consumers[name].offers.get(stream) for name in self.awake]
                if not all(offer and offer.deliveries == count for offer in offers):
                    yield f"{stream}, orphaned"

    def _untold(self) -> list[Lease]:
        """Leases that are neither owned nor ended, and of whose loss nobody was told."""
        return [
            lease
            for consumer in self.consumers.values()
            if consumer.awake
            for lease in consumer.leases
            if lease not in consumer.ended and lease not in [told.payload for told in consumer.told]
        ]


def shorten(server: Server, script: list[Step], failure: Exception, *, seconds: float = 120.0) -> list[Step]:
    """Leave out what the failure does not need, whole pieces first. Each piece is tried a few times, since the
    consumers' threads do not meet in the same way twice."""
    give_up = time.monotonic() + seconds
    size = len(script) // 2
    while size:
        start = 0
        while start < len(script):
            rest = script[:start] + script[start + size :]
            if time.monotonic() < give_up and any(_fails(server, rest, failure) for _ in range(3)):
                script = rest
            else:
                start += size
        size //= 2
    return script


def _fails(server: Server, script: list[Step], failure: Exception) -> bool:
    try:
        Fleet(server).play(script)
    except Exception as error:  # noqa: BLE001 - what is left may make no sense
        return type(error) is type(failure)
    return False
