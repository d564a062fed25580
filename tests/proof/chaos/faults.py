"""How each fault is done. What a fault changes, it changes back: after its end the fleet is to be well again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
from typing import TYPE_CHECKING, Generic, TypeVar

from redis.asyncio import Redis

from redis_stream_client import Fleet as Operator
from redis_stream_client import NotInTime, RedisRejected, RedisUnavailable, StreamGone, UnknownConsumer
from redis_stream_client._model.announcement import FIELD
from redis_stream_client._model.keys import Keys
from tests.proof.chaos.fleet import WRITERS_DELAY
from tests.proof.chaos.history import now
from tests.proof.chaos.schedule import WRITER_FAULTS
from tests.proof.chaos.servers import NotNow
from tests.proof.chaos.trouble import POISON, POISON_KNOWN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.proof.chaos.fleet import Fleet, Place
    from tests.proof.chaos.history import Writer
    from tests.proof.chaos.ledger import Ledger
    from tests.proof.chaos.schedule import Fault
    from tests.proof.chaos.servers import Servers

S = TypeVar("S", bound="Servers")
T = TypeVar("T")

DELAYS = (0.02, 0.2)
BANDWIDTHS = (100_000, 4_000_000)
"""Bytes per second, the fewest and the most."""
PATIENT, DRAINED_WITHIN = 2.0, 8.0
"""Seconds in which Redis answers an operator, and in which a member has left that was drained."""
REPLICATED = 0.2
"""Seconds in which a replica certainly has what its master has."""
STORM = 0.02
"""Seconds between two cuts of all listeners."""
REQUESTS = (b"EVALSHA", b"XREADGROUP", b"PEXPIRE", b"XREAD ", b"XRANGE")
MALFORMED = (
    (b"no-such-field", b"%s"),
    (FIELD.encode(), b"not JSON: %s"),
    (FIELD.encode(), b'{"Info": "%s"}'),
    (FIELD.encode(), b'{"DataStreamName": 7, "Info": {"tag": "%s"}}'),
    (FIELD.encode(), b'{"DataStreamName": "%s\xff"}'),
)
GARBAGE = ("", "released", "dead", "left nobody", "claimed 0-0 x", "draining \xff", "x" * 100_000, "dead nobody")


class Faults(Generic[S]):
    """Does the faults of one run: those that every deployment can have."""

    def __init__(self, servers: S, fleet: Fleet, ledger: Ledger, history: Writer, service: str, seed: int) -> None:
        self.servers = servers
        self.fleet = fleet
        self.ledger = ledger
        self.history = history
        self.keys = Keys(service)
        self.dice = random.Random(seed)
        self.decoys: list[str] = []

    async def do(self, fault: Fault) -> None:
        """Do one fault, from its beginning to its end. Raises `NotNow` when it cannot be done now."""
        method = getattr(self, "_" + re.sub(r"\W", "_", fault.kind))
        if fault.place is None:
            await method(fault)
        elif fault.kind in WRITER_FAULTS:
            await method(fault, self.fleet.writers[fault.place])
        else:
            await method(fault, self.fleet.places[fault.place])

    @contextlib.asynccontextmanager
    async def noted(self, fault: Fault, member: str = "", *details: object) -> AsyncGenerator[None]:
        """The fault lasts as long as the block. It has begun when the block is entered, and may end before it."""
        self.history.write("fault", fault.number, fault.kind, member, *details)
        try:
            yield
        finally:
            self.history.write("over", fault.number)

    # Processes.

    async def _kill(self, fault: Fault, place: Place) -> None:
        async with place.process_lock:
            name = place.running()
            place.send(signal.SIGKILL)
            async with self.noted(fault, name):
                pass
            await asyncio.sleep(fault.variant)
            await place.renew()

    async def _stop(self, fault: Fault, place: Place) -> None:
        async with place.process_lock:
            name = place.running()
            place.send(signal.SIGSTOP)
            async with self.noted(fault, name, fault.seconds):
                await asyncio.sleep(fault.seconds)
            place.send(signal.SIGCONT)

    _stop_briefly = _stop
    _stop_a_writer = _stop

    async def _terminate(self, fault: Fault, place: Place) -> None:
        """A rolling restart: the new process starts while the old one drains."""
        async with place.process_lock:
            async with self.noted(fault, place.running()):
                place.terminate()
            await place.renew()

    async def _kill_a_writer(self, fault: Fault, place: Place) -> None:
        """At once; a moment after it was frozen for longer than sessions are awake; or while its last requests are
        under way, which arrive after its death, as late."""
        async with place.process_lock, place.network_lock:
            name = place.running()
            how = _choose(("at once", "frozen", "cut off"), fault.variant)
            if how == "frozen":
                place.send(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                place.send(signal.SIGCONT)
                await asyncio.sleep(self.dice.uniform(0.0, 4 * WRITERS_DELAY))
            elif how == "cut off":
                place.network.freeze(replies=False)
                await asyncio.sleep(fault.seconds)
            place.send(signal.SIGKILL)
            async with self.noted(fault, name, how):
                pass
            await place.network.mend()
            await asyncio.sleep(self.dice.random())
            await place.renew()

    async def _raise(self, fault: Fault, place: Place) -> None:
        async with self.noted(fault, place.running()):
            place.order("raise")

    async def _suicide(self, fault: Fault, place: Place) -> None:
        async with self.noted(fault, place.running()):
            place.order("suicide")

    async def _block(self, fault: Fault, place: Place) -> None:
        async with self.noted(fault, place.running(), fault.seconds):
            place.order(f"block {fault.seconds:.3f}")

    # A member's network.

    async def _cut(self, fault: Fault, place: Place) -> None:
        async with self.noted(fault, place.running()):
            place.network.cut()

    _cut_a_writer = _cut

    async def _partition(self, fault: Fault, place: Place) -> None:
        """Nothing passes: what is open is reset, and what is new is refused; or all of it freezes."""
        async with place.network_lock:
            name = place.running()
            frozen = fault.variant < 0.5
            if frozen:
                place.network.freeze()
            else:
                await place.network.refuse()
                place.network.cut()
            async with self.noted(fault, name, "frozen" if frozen else "refused", fault.seconds):
                self.history.write("silent", fault.number)
                await asyncio.sleep(fault.seconds)
            await place.network.mend()

    _partition_briefly = _partition
    _partition_a_writer = _partition

    async def _freeze(self, fault: Fault, place: Place) -> None:
        """One direction."""
        async with place.network_lock:
            requests = fault.variant < 0.5
            async with self.noted(fault, place.running(), "requests" if requests else "replies", fault.seconds):
                place.network.freeze(requests=requests, replies=not requests)
                await asyncio.sleep(fault.seconds)
                await place.network.mend()

    async def _delay(self, fault: Fault, place: Place) -> None:
        async with place.network_lock:
            delay = DELAYS[0] + fault.variant * (DELAYS[1] - DELAYS[0])
            async with self.noted(fault, place.running(), delay, fault.seconds):
                place.network.delay(requests=delay / 2, replies=delay)
                await asyncio.sleep(fault.seconds)
                await place.network.mend()

    async def _bandwidth(self, fault: Fault, place: Place) -> None:
        """A slow line, in one direction or in both."""
        async with place.network_lock:
            rate = round(BANDWIDTHS[0] * (BANDWIDTHS[1] / BANDWIDTHS[0]) ** fault.variant)
            both = self.dice.random() < 0.5
            async with self.noted(fault, place.running(), "both" if both else "replies", rate, fault.seconds):
                place.network.bandwidth(replies=rate, requests=rate if both else None)
                await asyncio.sleep(fault.seconds)
                await place.network.mend()

    async def _drop_replies(self, fault: Fault, place: Place) -> None:
        async with place.network_lock, self.noted(fault, place.running(), fault.seconds):
            place.network.drop_replies()
            await asyncio.sleep(fault.seconds)
            await place.network.mend()

    async def _drop_requests(self, fault: Fault, place: Place) -> None:
        async with place.network_lock:
            pattern = _choose(REQUESTS, fault.variant)
            async with self.noted(fault, place.running(), pattern.decode(), fault.seconds):
                place.network.drop_requests_matching(pattern)
                await asyncio.sleep(fault.seconds)
                await place.network.mend()

    async def _lose_a_reply(self, fault: Fault, place: Place) -> None:
        """Executed, and the connection is cut before the answer."""
        async with place.network_lock:
            pattern = _choose(REQUESTS, fault.variant)
            async with self.noted(fault, place.running(), pattern.decode()):
                place.network.lose_one_reply_after(pattern)
                await asyncio.sleep(fault.seconds)
                await place.network.mend()

    _lose_a_writer_s_reply = _lose_a_reply

    async def _half_close(self, fault: Fault, place: Place) -> None:
        async with self.noted(fault, place.running(), "clients" if fault.variant < 0.5 else "server"):
            if fault.variant < 0.5:
                place.network.half_close_clients()
            else:
                place.network.half_close_server()

    async def _vanish(self, fault: Fault, place: Place) -> None:
        """All connections are closed towards the server alone: the member is not told."""
        async with self.noted(fault, place.running()):
            place.network.vanish()

    # What an operator does to one member.

    async def _consumer(self, name: str) -> str:
        prefix = f"redis-consumer-{name}-"
        for info in await self.servers.command("XINFO", "CONSUMERS", self.keys.lbs, self.keys.group):
            consumer = _word(info, "name")
            if consumer.startswith(prefix):
                return consumer
        raise NotNow(f"{name} is no consumer")

    async def _evict_the_lock(self, fault: Fault, place: Place) -> None:
        name = place.running()
        consumer = await self._consumer(name)
        async with self.noted(fault, name):
            await self.servers.command("DEL", self.keys.lock(consumer))

    async def _delete_the_consumer(self, fault: Fault, place: Place) -> None:
        name = place.running()
        consumer = await self._consumer(name)
        async with self.noted(fault, name):
            await self.servers.command("XGROUP", "DELCONSUMER", self.keys.lbs, self.keys.group, consumer)

    async def _acknowledge(self, fault: Fault, place: Place) -> None:
        """XACK of one announcement, without deleting it."""
        name = place.running()
        pending = await self.servers.pending(self.keys.lbs, self.keys.group, await self._consumer(name))
        if not pending:
            raise NotNow(f"{name} owns nothing")
        id, _ = pending[0]
        async with self.noted(fault, name, id):
            await self.servers.command("XACK", self.keys.lbs, self.keys.group, id)

    # What an operator does with `Fleet`.

    @contextlib.asynccontextmanager
    async def _operator(self) -> AsyncGenerator[Operator]:
        """All that it asks for is where the load balancer stream is."""
        async with Redis.from_url((await self.servers.lbs()).url, socket_timeout=PATIENT) as client:
            try:
                yield Operator(client, self.keys.service)
            except (RedisUnavailable, RedisRejected) as error:
                raise NotNow(f"the operator could not: {error}") from error

    async def _operator_evicts(self, fault: Fault, place: Place) -> None:
        name = place.running()
        consumer = await self._consumer(name)
        async with self._operator() as operator, self.noted(fault, name):
            await operator.evict(consumer)

    async def _operator_releases(self, fault: Fault, place: Place) -> None:
        """One stream, whose owner is asked for it; half of them are taken away."""
        name = place.running()
        pending = await self.servers.pending(self.keys.lbs, self.keys.group, await self._consumer(name))
        if not pending:
            raise NotNow(f"{name} owns nothing")
        async with self._operator() as operator:
            found = [status async for status in operator.streams() if status.lbs_id == pending[0][0]]
            if not found or found[0].stream is None:
                raise NotNow("it is gone")
            stream, timeout = found[0].stream, _choose((0.0, 0.3, 2.0), fault.variant)
            async with self.noted(fault, name, stream, timeout):
                with contextlib.suppress(NotInTime, StreamGone):
                    await operator.release(stream, timeout=timeout, force=self.dice.random() < 0.5)

    async def _operator_drains(self, fault: Fault, place: Place) -> None:
        """The next process starts when it has left; one that does not hear of it is told by a signal."""
        if not place.in_run:
            raise NotNow("a reader of events does not leave")
        async with place.process_lock:
            name = place.running()
            consumer = await self._consumer(name)
            async with self._operator() as operator, self.noted(fault, name):
                place.leaves()
                with contextlib.suppress(UnknownConsumer):
                    await operator.drain(consumer, timeout=0.0)
            if not await place.gone(DRAINED_WITHIN):
                place.terminate()
            await place.renew()

    async def _operator_pauses(self, fault: Fault) -> None:
        async with self.noted(fault, "", fault.seconds):
            try:
                async with self._operator() as operator:
                    await operator.pause(f"fault {fault.number}", timeout=0.0)
                await asyncio.sleep(fault.seconds)
            finally:
                await self.resume()

    async def resume(self) -> None:
        """End every pause, so that no failover brings it back."""
        while True:
            with contextlib.suppress(NotNow):
                async with self.servers.lock, self._operator() as operator:
                    await operator.resume()
                    await asyncio.sleep(REPLICATED)
                    return
            await asyncio.sleep(REPLICATED)

    # The server.

    async def _kill_connections(self, fault: Fault) -> None:
        async with self.noted(fault):
            await self.servers.command("CLIENT", "KILL", "TYPE", "normal")

    async def _kill_pubsub(self, fault: Fault) -> None:
        async with self.noted(fault):
            await self.servers.command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _storm(self, fault: Fault) -> None:
        """All listeners are cut, again and again."""
        async with self.noted(fault, "", fault.seconds):
            end = now() + fault.seconds
            while now() < end:
                await self.servers.command("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(STORM)

    async def _pause(self, fault: Fault) -> None:
        async with self.noted(fault, "", fault.seconds):
            await self.servers.command("CLIENT", "PAUSE", round(fault.seconds * 1000))
            await asyncio.sleep(fault.seconds)

    async def _flush_scripts(self, fault: Fault) -> None:
        async with self.noted(fault):
            await self.servers.command("SCRIPT", "FLUSH")

    async def _notifications_off(self, fault: Fault) -> None:
        async with self.noted(fault):
            await self.servers.command("CONFIG", "SET", "notify-keyspace-events", "")

    async def _garbage(self, fault: Fault) -> None:
        async with self.noted(fault):
            for text in GARBAGE:
                await self.servers.command("PUBLISH", self.keys.control, text)
            channel = f"__keyspace@0__:{self.keys.lock('redis-consumer-nobody-knows')}"
            for text in ("expired", "del", "\xff"):
                await self.servers.command("PUBLISH", channel, text)

    async def _malformed(self, fault: Fault) -> None:
        tag = f"malformed-{fault.number}"
        field, value = _choose(MALFORMED, fault.variant)
        async with self.noted(fault, "", tag):
            await self.servers.command("XADD", self.keys.lbs, "*", field, value.replace(b"%s", tag.encode()))
            self.history.write("malformed", tag)

    async def _trim(self, fault: Fault) -> None:
        """A decoy is announced, and deleted while it is pending."""
        async with self.noted(fault):
            name = f'{{"DataStreamName": "decoy-{fault.number}"}}'
            id = _text(await self.servers.command("XADD", self.keys.lbs, "*", FIELD, name))
            self.decoys.append(id)
            await asyncio.sleep(fault.seconds)
            await self.servers.command("XDEL", self.keys.lbs, id)

    async def remove_decoys(self) -> None:
        """Those, too, whose removal was not answered, or was forgotten in a failover."""
        if self.decoys:
            await self.servers.command("XDEL", self.keys.lbs, *self.decoys)

    async def _full(self, fault: Fault) -> None:
        async with self.servers.lock, self.noted(fault, "", fault.seconds):
            await self.servers.command("CONFIG", "SET", "maxmemory", 1)
            await asyncio.sleep(fault.seconds)
            await self.servers.command("CONFIG", "SET", "maxmemory", 0)

    async def _destroy_the_group(self, fault: Fault) -> None:
        async with self.noted(fault):
            await self.servers.command("XGROUP", "DESTROY", self.keys.lbs, self.keys.group)

    async def _poison(self, fault: Fault) -> None:
        """A stream is announced that no handler can process; of some, that is known at once."""
        poison = f"{POISON if fault.variant < 0.5 else POISON_KNOWN}{fault.number}"
        async with self.noted(fault, "", poison):
            announcement = f'{{"DataStreamName": "{poison}"}}'
            await self.servers.command("XADD", self.keys.lbs, "*", FIELD, announcement)
            self.history.write("poison", poison)

    # What the handlers need.

    async def _ledger_away(self, fault: Fault) -> None:
        """The handlers' own database refuses everything."""
        async with self.noted(fault, "", fault.seconds):
            await self.ledger.go_away(fault.seconds)
            await asyncio.sleep(fault.seconds)

    async def _member_s_dependency_away(self, fault: Fault, place: Place) -> None:
        """Nothing that one member's handlers do succeeds."""
        async with self.noted(fault, place.running(), fault.seconds):
            place.order(f"away {fault.seconds:.3f}")
            await asyncio.sleep(fault.seconds)

    async def _bad_deploy(self, fault: Fault, place: Place) -> None:
        """For a while, each process that is started dies soon after it has joined."""
        async with place.process_lock:
            async with self.noted(fault, place.running(), fault.seconds):
                place.terminate()
            place.bad_until = now() + fault.seconds
            await place.renew()


def _choose(options: tuple[T, ...], variant: float) -> T:
    return options[int(variant * len(options))]


def _word(info: object, name: str) -> str:
    assert isinstance(info, dict)
    return _text(info[name] if name in info else info[name.encode()])


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
