"""The stubs of one member, made together."""

from redis_stream_client._model.options import Options
from redis_stream_client._protocol.announcements import Announcements
from redis_stream_client._protocol.base import ReplySizes
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.hints import Hints
from redis_stream_client._protocol.lock import Lock
from redis_stream_client._protocol.notifications import KeyspaceEvents
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._redis.connection import SharedConnection


class Operations:
    """The stubs, bound to one service and one consumer."""

    def __init__(
        self, options: Options, beats: SharedConnection, commands: SharedConnection, reads: SharedConnection
    ) -> None:
        self.sizes = ReplySizes(options.lock_ttl)
        self.lock = Lock(options, beats=beats, commands=commands)
        self.deliveries = Deliveries(options, commands=commands, sizes=self.sizes)
        self.announcements = Announcements(
            options, reads=reads, beats=beats, deliveries=self.deliveries, sizes=self.sizes
        )
        self.pending = Pending(options, commands=commands, sizes=self.sizes)
        self.group = Group(options, commands=commands)
        self.hints = Hints(options.keys, commands=commands)
        self.keyspace_events = KeyspaceEvents(commands=commands)
