"""The names of all keys, channels and patterns in Redis. No other module builds one."""

import re
from dataclasses import dataclass

NOBODY = "nobody"
"""A consumer that never has a lock: anybody may claim at once what is pending for it."""

_GLOB = re.compile(r"([*?\[\]\\])")
_ONE_TAG = re.compile(r"\{[^{}]*\}")


def check_braces(name: str) -> str | None:
    """Say what is wrong with the braces in a name that becomes part of a key, or return None.

    Redis Cluster hashes the text between the first ``{`` and the next ``}``, so a name with unbalanced or
    empty braces would put keys that belong together into different slots.
    """
    if "{" not in name and "}" not in name:
        return None
    depth = 0
    for char in name:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            break
    if depth != 0:
        return "has unbalanced braces"
    if "{}" in name:
        return "has empty braces"
    return None


def require_name(value: object, parameter: str) -> str:
    """Check a name that becomes part of a key. Raises ``TypeError`` or ``ValueError``."""
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be a str, not {type(value).__name__}")
    problem = name_problem(value)
    if problem:
        raise ValueError(f"{parameter} {problem}: {value!r}")
    return value


def name_problem(name: str) -> str | None:
    """Say why a name cannot become part of a key, or return None."""
    if not name:
        return "must not be empty"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "cannot be encoded as UTF-8"
    return check_braces(name)


def _hash_tagged(name: str) -> str:
    """The prefix that puts a key into the same slot as the key ``name``."""
    return name if "{" in name else f"{{{name}}}"


def _escaped(service: str) -> str:
    """The name of a service without colons. Different names stay different."""
    return service.replace("%", "%25").replace(":", "%3A") if ":" in service or "%" in service else service


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one service. All except `progress` are in the slot of the load balancer stream."""

    service: str

    @property
    def lbs(self) -> str:
        """The load balancer stream."""
        return f"{self.service}-input"

    @property
    def group(self) -> str:
        """The consumer group on it."""
        return f"{self.service}-group"

    @property
    def dead(self) -> str:
        """The stream of dead letters."""
        return f"{_hash_tagged(self.lbs)}:dead"

    @property
    def announced(self) -> str:
        """The hash of the newest announcements: stream, LBS id. It is a belief, which only the entry confirms."""
        return f"{_hash_tagged(self.lbs)}:announced"

    @property
    def control(self) -> str:
        """The pub/sub channel for hints."""
        return f"{_hash_tagged(self.lbs)}:control"

    @property
    def sweep(self) -> str:
        """The sweep turn: which member sweeps next."""
        return f"{_hash_tagged(self.lbs)}:sweep"

    @property
    def tidy(self) -> str:
        """The tidy turn: which member removes what dead consumers left."""
        return f"{_hash_tagged(self.lbs)}:tidy"

    @property
    def rescue(self) -> str:
        """The rescue turn: which member looks for entries that are pending for nobody."""
        return f"{_hash_tagged(self.lbs)}:rescue"

    @property
    def rescue_now(self) -> str:
        """The rescue turn when a census has found such entries."""
        return f"{_hash_tagged(self.lbs)}:rescue-now"

    @property
    def turns(self) -> tuple[str, ...]:
        """The keys of all turns."""
        return self.sweep, self.tidy, self.rescue, self.rescue_now

    @property
    def present(self) -> str:
        """The hash of those that declared their presence."""
        return f"{_hash_tagged(self.lbs)}:present"

    @property
    def watch(self) -> str:
        """The key that says who watches those that are present."""
        return f"{_hash_tagged(self.lbs)}:watch"

    @property
    def paused(self) -> str:
        """The key that says that nobody is to take new streams, since when, and why."""
        return f"{_hash_tagged(self.lbs)}:paused"

    @property
    def _lock_prefix(self) -> str:
        return f"{_hash_tagged(self.lbs)}:lock:"

    def lock(self, consumer: str) -> str:
        """The lock of a consumer."""
        return self._lock_prefix + consumer

    def drain(self, consumer: str) -> str:
        """The order that a consumer is to drain, for when it has no lock."""
        return f"{_hash_tagged(self.lbs)}:drain:{consumer}"

    def progress(self, stream: str) -> str:
        """The progress record of a data stream, in the same slot as the stream.

        Two different pairs of stream and service must never share a record. Without care ``{call-1}`` would share
        one with ``call-1``, and the stream ``{x}:b`` of service ``a`` with the stream ``x`` of service ``b:a``. So
        the record of a name that is a single hash tag gets a suffix, and colons in the service are escaped.
        """
        record = f"{_hash_tagged(stream)}:{_escaped(self.service)}:progress"
        return f"{record}:tagged" if _ONE_TAG.fullmatch(stream) else record

    def former_progress(self, stream: str) -> str | None:
        """The key that version 0.1 used for this record; None if it is the same."""
        former = f"{_hash_tagged(stream)}:{self.service}:progress"
        return None if former == self.progress(stream) else former

    def lock_events(self, db: int) -> str:
        """The pattern of the keyspace notifications of all locks in database ``db``."""
        escaped = _GLOB.sub(r"\\\1", self._lock_prefix)
        return f"__keyspace@{db}__:{escaped}*"

    def presence_channel(self, consumer: str, db: int) -> str:
        """The channel that a consumer subscribes to for as long as it lives: that of its own lock's keyspace
        events, which it needs permission for anyway. It ends with the name of the consumer."""
        return f"__keyspace@{db}__:{self.lock(consumer)}"

    def consumer_of(self, channel: bytes, db: int) -> str | None:
        """The consumer whose lock this keyspace notification is about, or None."""
        prefix = f"__keyspace@{db}__:{self._lock_prefix}".encode()
        if not channel.startswith(prefix):
            return None
        return channel[len(prefix) :].decode(errors="replace")
