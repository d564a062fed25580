"""The connections of one client to the server of the load balancer stream, and what happens when that changes."""

from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._model.errors import ClientClosed
from redis_stream_client._model.logs import Log
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.server import ServerIdentity


class Connections:
    """All connections talk to one history of one server. If one meets another history, all connect again.

    Beats have their own connection, so that no command delays them. Reads have their own, because they block.

    Args:
        where: the server.
        longest_attempt: the longest time for one attempt to connect, in seconds.
        tasks: the tasks of the client.
        log: the log of the client.
        longest_patience: the longest timeout of a command on a slow line, in seconds.
        longest_beat: the same for a beat; `Lock` goes beyond it where that is not enough.

    Attributes:
        identity: the identity of the server.
        lost: notified when a connection breaks; requests under way may have been executed, or lost in a failover.
        moved: notified when another server is responsible, or this one has lost writes.
        new_history: notified when the server is another one than before, or has lost writes; with its endpoint and
            its history.
        new_history_elsewhere: the same for another server, which holds data streams.
    """

    def __init__(
        self,
        where: Endpoint,
        longest_attempt: float,
        tasks: OwnedTasks[ClientClosed],
        *,
        log: Log,
        longest_patience: float = 0.0,
        longest_beat: float = 0.0,
    ) -> None:
        self._log = log
        self._where = where
        self._tasks = tasks
        self._said: dict[Endpoint, str] = {}
        self.lost = Notifier[[]]()
        self.moved = Notifier[[]]()
        self.new_history = Notifier[[Endpoint, str]]()
        self.new_history_elsewhere = Notifier[[Endpoint, str]]()
        self.identity = ServerIdentity(self._new_history, clustered=where.clustered)
        self.beats, self.commands, self.reads = (
            SharedConnection(
                where,
                greet=self.identity,
                on_loss=self._lost,
                longest_attempt=longest_attempt,
                longest_patience=longest,
                role=role,
            )
            # How long a read takes says nothing, since it blocks.
            for role, longest in (("beats", longest_beat), ("commands", longest_patience), ("reads", 0.0))
        )

    @property
    def where(self) -> str:
        """The address of the server, for messages."""
        return self._where.where

    @property
    def history(self) -> str | None:
        """The history of the server; None if not known."""
        return self.identity.history

    @property
    def ever_connected(self) -> bool:
        """Whether the connection for beats was ever open."""
        return self.beats.connections > 0

    @property
    def losses(self) -> int:
        """How often a connection was lost."""
        return sum(connection.losses for connection in self._all)

    @property
    def _all(self) -> tuple[SharedConnection, ...]:
        return self.beats, self.commands, self.reads

    def identity_at(self, endpoint: Endpoint) -> ServerIdentity:
        """The identity for a server with data streams. If there is only one server, all share one identity."""
        if endpoint is self._where:
            return self.identity
        return ServerIdentity(lambda history: self.met(endpoint, history))

    def met(self, endpoint: Endpoint, history: str) -> None:
        """A connection to a server with data streams has met a new history."""
        if endpoint is not self._where:
            self._say(endpoint, history)
            self.new_history_elsewhere.notify(endpoint, history)
        elif history != self.identity.history:
            self._new_history(history)

    def _new_history(self, history: str) -> None:
        self._say(self._where, history)
        reason = Unanswered("another server is responsible now, or it has lost writes", maybe_executed=True)
        for connection in self._all:
            connection.drop(reason)
        self.new_history.notify(self._where, history)
        self.moved.notify()

    def _say(self, where: Endpoint, history: str) -> None:
        """Log it once, though each connection finds it out by itself."""
        if self._said.get(where) != history:
            self._said[where] = history
            self._log.warning(
                "Redis (%s) was restarted, or has failed over, and may have lost writes: this client compares "
                "its streams with it, and reads them again from their checkpoints",
                where.where,
                extra={"address": where.where},
            )

    def _lost(self, reason: Exception) -> None:
        if self._tasks.ended:
            return
        self.lost.notify()
        if isinstance(reason, Unanswered) and reason.elsewhere:
            self.moved.notify()

    def stop_reading(self) -> None:
        """Close the reading connection, so that Redis delivers nothing more to us."""
        self.reads.drop(Unanswered("closing", maybe_executed=True))

    async def close(self) -> None:
        """Close all connections, that of the beats first."""
        for connection in self._all:
            await connection.close()
