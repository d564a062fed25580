"""The listener: hears that locks are gone, and the peers' hints. It makes recovery fast, never correct."""

import asyncio
from typing import Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import log
from redis_stream_client._model.options import Options
from redis_stream_client._protocol.operations import Operations
from redis_stream_client._redis import error_mapping, wire
from redis_stream_client._redis.connection import Greeting
from redis_stream_client._redis.endpoint import Endpoint, Opener
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog


class Ears(Protocol):
    """Who is told what was heard."""

    def suspect(self, owner: str) -> None:
        """This consumer's streams may be orphans."""

    def claimed(self, lbs_id: str) -> None:
        """A peer says that it took this orphan."""

    def joined(self) -> None:
        """Somebody joined."""

    def departing(self, consumer: str) -> None:
        """A peer is draining: it takes nothing new."""

    def left(self, consumer: str) -> None:
        """A peer has left."""

    def missed_something(self) -> None:
        """There was a gap: what happened in it is unknown."""

    def own_lock_gone(self) -> None:
        """Our own lock expired or was deleted."""


class Listener:
    """Subscribes to the lock keys' keyspace events and to the control channel."""

    def __init__(
        self,
        options: Options,
        endpoint: Endpoint,
        greet: Greeting,
        operations: Operations,
        ears: Ears,
        outage: OutageLog,
    ) -> None:
        self._options = options
        self._greet = greet
        self._keys = options.keys
        self._endpoint = endpoint
        self._opener = Opener(endpoint, "listener", options.lock_ttl, options.connect_timeout)
        self._operations = operations
        self._ears = ears
        self._outage = outage
        self._warned = False
        self._connection: AbstractConnection | None = None
        self.first_try = asyncio.Event()
        self.gaps = 0

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when subscribing is not permitted."""
        backoff = Backoff(0.01, max(0.1, self._options.lock_ttl / 2))
        while True:
            started = clock.now()
            try:
                await self._listen_once()
            except Unanswered as error:
                self._outage.failed(error)
            finally:
                self.first_try.set()
            self.gaps += 1
            if clock.now() - started > self._options.lock_ttl:
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    def move(self) -> None:
        """Another server is responsible now: a node's events come from that node only."""
        if self._connection is not None:
            wire.abort(self._connection)

    async def _listen_once(self) -> None:
        connection = self._connection = await self._opener.open()
        try:
            await self._greet(
                connection, self._options.lock_ttl
            )  # events come from the server that commands go to
            await self._subscribe(connection)
            await self._enable_notifications()
            self._outage.answered()
            self._ears.missed_something()
            self.first_try.set()
            while True:
                self._hear(await wire.next_message(connection, self._options.lock_ttl))
        except (RedisError, OSError, TimeoutError) as error:
            raise error_mapping.map_error(error) from error
        finally:
            self._connection = None
            wire.abort(connection)

    async def _subscribe(self, connection: AbstractConnection) -> None:
        pattern = self._keys.lock_events(self._endpoint.db)
        for command in (("PSUBSCRIBE", pattern), ("SUBSCRIBE", self._keys.control)):
            async with asyncio.timeout(self._options.lock_ttl):
                await wire.send(connection, command)
                await connection.read_response(disable_decoding=True, disconnect_on_error=False)

    def _hear(self, message: list[bytes]) -> None:
        match message:
            case [b"pmessage", _, bytes(channel), b"expired" | b"del"]:
                owner = self._keys.consumer_of(channel, self._endpoint.db)
                if owner == self._options.consumer:
                    self._ears.own_lock_gone()
                elif owner:
                    self._ears.suspect(owner)
            case [b"message", _, bytes(hint)]:
                self._hint(hint.decode(errors="replace"))

    def _hint(self, hint: str) -> None:
        what, _, about = hint.partition(" ")
        if what == "released":
            self._ears.suspect(NOBODY)
        elif what == "claimed":
            for lbs_id in about.split():
                self._ears.claimed(lbs_id)
        elif what in ("left", "dead") and about != self._options.consumer:
            self._ears.suspect(about)
        if about != self._options.consumer:
            match what:
                case "joined":
                    self._ears.joined()
                case "draining":
                    self._ears.departing(about)
                case "left":
                    self._ears.left(about)

    async def _enable_notifications(self) -> None:
        """Add what is missing of ``Kx`` to the server's flags; never remove one."""
        timeout = self._options.lock_ttl
        what = "cannot see or set notify-keyspace-events, which should contain 'Kx'"
        try:
            flags = await self._operations.notification_flags(timeout)
            missing = missing_flags(flags)
            if missing:
                what = f"notify-keyspace-events is {flags!r}, lacks {missing!r}, and cannot be set"
                await self._operations.set_notification_flags(flags + missing, timeout)
        except RedisRejected as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: recovery relies on the sweeper (%s)",
                    what,
                    error,
                    extra={"consumer": self._options.consumer},
                )
        except (Unanswered, GroupMissing) as error:
            log.debug("could not look at notify-keyspace-events: %s", error)


def missing_flags(flags: str) -> str:
    """What must be added to ``notify-keyspace-events`` for the expiry of a key to be announced."""
    missing = "" if "K" in flags else "K"
    return missing if "x" in flags or "A" in flags else missing + "x"
