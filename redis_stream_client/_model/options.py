"""The parameters of a client, and how they are checked."""

import math
import os
import re
import secrets
import socket
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from redis_stream_client._model import observer as observers
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._model.observer import Observer
from redis_stream_client._model.retention import OnForgotten, check_on_forgotten

MIN_LOCK_TTL = 0.1
MAX_OFFER_PAUSE = 5.0
MIN_WEIGHT = 0.001
MAX_WEIGHT = 1000.0

DAY = 86_400.0
YEAR = 365 * DAY

PROGRESS_TTL = 7 * DAY
"""Seconds that the progress record of a finished stream stays by default. A dead letter's stays no shorter."""

LONGEST_PACE = 2.0
"""The longest `Options.pace`, in seconds: the default of `lock_ttl`."""

FIRST_PAUSE = 0.005
"""Seconds before the first retry of a request without an answer. `Options.longest_pause` is the longest pause."""


class Parameters(TypedDict, total=False):
    """The keyword parameters of the constructor; see `RedisStreamClient`."""

    consumer_name: str | None
    lock_ttl: float
    heartbeat_interval: float | None
    max_streams: int | None
    prefetch: int
    connect_timeout: float
    progress_ttl: float
    presence: bool
    weight: float
    on_forgotten: OnForgotten
    observer: Observer | None


@dataclass(frozen=True, slots=True)
class Options:
    """The checked arguments of a client. Durations are in seconds."""

    keys: Keys
    consumer_name: str | None
    consumer: str
    lock_ttl: float
    heartbeat_interval: float
    max_streams: int | None
    prefetch: int
    connect_timeout: float
    progress_ttl: float
    presence: bool
    weight: float
    on_forgotten: OnForgotten
    observer: Observer | None = None

    def renamed(self) -> "Options":
        """The same options under a new consumer id."""
        return replace(self, consumer=_consumer_id(self.consumer_name))

    @property
    def lock_ttl_ms(self) -> int:
        """`lock_ttl` in whole milliseconds, as Redis takes it: rounded up, so that the lock outlives our belief in
        it."""
        return math.ceil(self.lock_ttl * 1000)

    @property
    def pace(self) -> float:
        """The time scale, in seconds, of everything but the life of the lock: of reads, requests, retries, sweeps
        and take-overs.

        Whoever wants to tolerate longer stalls makes `lock_ttl` longer. Then a member that has frozen is replaced
        later, and nothing else takes longer. What must not happen before a lock has expired, or goes on as long as
        one lives, counts in `lock_ttl`.
        """
        return min(self.lock_ttl, LONGEST_PACE)

    @property
    def block(self) -> float:
        """Seconds that a read may block. Shorter than `lock_ttl`, so that Redis gives nothing to a frozen consumer
        whose lock has expired."""
        return self.pace / 2

    @property
    def patience(self) -> float:
        """Seconds after which the client gives up an unanswered request and its connection. On a slow line it
        grows, up to `longest_patience`."""
        return self.pace / 2

    @property
    def longest_patience(self) -> float:
        """The longest patience with a request that cannot be made smaller: two of them fit into the life of the
        lock."""
        return self.lock_ttl / 2

    @property
    def beat_patience(self) -> float:
        """Seconds after which an unanswered beat is repeated on a new connection: `heartbeat_interval`, scaled to
        the pace."""
        scaled = self.heartbeat_interval * self.pace / self.lock_ttl
        return min(self.heartbeat_interval, max(scaled, self.pace / 4))

    @property
    def presence_patience(self) -> float:
        """Seconds after which an unanswered request about presence is repeated on a new connection. By then our
        lock is in doubt."""
        return min(self.heartbeat_interval, 0.5)

    @property
    def longest_pause(self) -> float:
        """The longest pause between two attempts, in seconds. Short enough for all tasks to be back before the
        quiet time after a lapse is over."""
        return self.beat_patience / 2


def check(
    service: str,
    *,
    consumer_name: str | None,
    lock_ttl: float,
    heartbeat_interval: float | None,
    max_streams: int | None,
    prefetch: int,
    connect_timeout: float,
    progress_ttl: float,
    presence: bool = True,
    weight: float = 1.0,
    on_forgotten: OnForgotten = "from_start",
    observer: Observer | None = None,
) -> Options:
    """Check the arguments of the constructor. A ``TypeError`` or ``ValueError`` names the parameter."""
    keys = Keys(require_name(service, "service"))
    lock_ttl = seconds(lock_ttl, "lock_ttl", at_least=MIN_LOCK_TTL)
    if heartbeat_interval is None:
        heartbeat_interval = lock_ttl / 4
    heartbeat_interval = seconds(heartbeat_interval, "heartbeat_interval", at_least=0.01)
    if heartbeat_interval > lock_ttl / 2:
        raise ValueError(
            f"heartbeat_interval must be at most lock_ttl / 2 = {lock_ttl / 2:g} s, not {heartbeat_interval:g} s"
        )
    if max_streams is not None:
        max_streams = count(max_streams, "max_streams")
    return Options(
        keys=keys,
        consumer_name=consumer_name,
        consumer=_consumer_id(consumer_name),
        lock_ttl=lock_ttl,
        heartbeat_interval=heartbeat_interval,
        max_streams=max_streams,
        prefetch=count(prefetch, "prefetch"),
        connect_timeout=seconds(connect_timeout, "connect_timeout", at_least=0.01),
        progress_ttl=seconds(progress_ttl, "progress_ttl", at_least=0.0, at_most=10 * YEAR),
        presence=switch(presence, "presence"),
        weight=_weight(weight),
        on_forgotten=check_on_forgotten(on_forgotten),
        observer=observers.check(observer),
    )


def _consumer_id(name: str | None) -> str:
    """``redis-consumer-<name>-<8 hex>``: every client gets a new id, even with the same name."""
    if name is None:
        name = os.environ.get("POD_NAME") or os.environ.get("POD_IP") or socket.gethostname() or "localhost"
        name = re.sub(r"[^\x21-\x7e]", "-", name)  # what the environment says must not keep us from starting
    elif not isinstance(name, str):
        raise TypeError(f"consumer_name must be a str or None, not {type(name).__name__}")
    elif not name or not name.isprintable() or " " in name:
        raise ValueError(f"consumer_name must be printable, without spaces and not empty: {name!r}")
    return f"redis-consumer-{name}-{secrets.token_hex(4)}"


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"weight must be a number, not {type(value).__name__}")
    if not MIN_WEIGHT <= value <= MAX_WEIGHT:  # also refuses NaN
        raise ValueError(f"weight must be between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}, not {value}")
    return float(value)


def seconds(value: Any, parameter: str, *, at_least: float, at_most: float = DAY) -> float:
    """Check a duration. A ``TypeError`` or ``ValueError`` names the parameter."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{parameter} must be a number of seconds, not {type(value).__name__}")
    if not at_least <= value <= at_most:  # also refuses NaN
        raise ValueError(f"{parameter} must be between {at_least:g} s and {at_most:.0f} s, not {value} s")
    return float(value)


def switch(value: Any, parameter: str) -> bool:
    """Check a bool. A ``TypeError`` names the parameter."""
    if not isinstance(value, bool):
        raise TypeError(f"{parameter} must be a bool, not {type(value).__name__}")
    return value


def count(value: Any, parameter: str) -> int:
    """Check a number of at least 1. Raises ``TypeError`` or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{parameter} must be at least 1, not {value}")
    return value
