"""A service seen from outside, by whoever is on call: its members, and where its announcements stand."""

from collections.abc import AsyncIterator, Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.fleet_status import FleetMember, FleetStatus, Lag, StreamStatus, Unread
from redis_stream_client._model.keys import NOBODY, Keys, require_name
from redis_stream_client._protocol import lock_value, survey
from redis_stream_client._protocol.listing import Listed, Listing
from redis_stream_client._protocol.positions import Position, Positions
from redis_stream_client._protocol.survey import ABSENT, Findings, Seen
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls


class Fleet:
    """The members and the streams of a service, seen from outside. It is no member, creates nothing and changes
    nothing.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Of a ``Redis``, it borrows connections from the pool;
            of a cluster, it only reads the settings, and keeps its own connections for 10 s after their last use.
        service: name of the service.

    All methods raise `RedisUnavailable` if Redis does not answer, as `LoadBalancerStream` does, and
    `RedisRejected` if Redis refuses. They only read: a call can be repeated, and one that is cancelled leaves
    nothing behind.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._pooled = Pooled(redis, self._keys.lbs)
        self._calls = ScriptCalls(redis, self._pooled, self._keys.lbs)
        self._listing = Listing(self._calls, self._keys)

    def __repr__(self) -> str:
        return f"<Fleet of {self._keys.service!r}>"

    async def status(self) -> FleetStatus:
        """The members, and how many announcements wait, are owned, or are orphaned.

        A service that nobody has used yet has no members and no announcements. What is not permitted or does not
        answer, while the members and the announcements can be read, is in `FleetStatus.unread`.

        Three requests, or some more with over 1,000 members. Who lives and what is pending for whom is read in one
        step, so the numbers add up.
        """
        with self._translated("look at the fleet"):
            findings = await survey.explore(self._calls, self._keys)
        return _status(self._keys.service, findings)

    def streams(self, *, owner: str | None = None, behind: float | None = None) -> AsyncIterator[StreamStatus]:
        """The streams that are announced when it begins, the oldest announcement first: those that wait, are
        owned, or are orphaned. Sessions that sleep are not announced.

        ``async for stream in fleet.streams()`` reads pages of at most 250 streams, and holds no connection between
        two pages. ``break`` and a cancellation leave nothing behind. After an error the same iterator can go on
        where it was. A stream whose entries or progress record cannot be read, as those of a node that is away,
        comes too, and its `StreamStatus.unread` says why. A node that does not answer costs 5 s, and is not asked
        again for 30 s.

        Args:
            owner: only the streams of this consumer, by its id.
            behind: only streams that are at least so many seconds behind, and those that cannot be read.

        Raises:
            TypeError, ValueError: a wrong argument.
        """
        _check(owner, behind)
        return _Streams(self._listing, Positions(self._calls, self._keys), self._translated, owner, behind)

    async def owner(self, stream: str) -> StreamStatus | None:
        """One stream: who owns it, and how far behind it is. None: it is not announced; it may sleep, be finished,
        or be among the dead letters.

        If it was announced several times, that is its newest announcement, as far as producers of this library
        know. A stream that only another library has announced, or that is not announced, is searched in all
        announcements, which takes Redis about 2 s for a million, in pages.

        Raises:
            TypeError, ValueError: the argument is not the name of a stream.
        """
        require_name(stream, "stream")
        with self._translated("look for the owner"):
            found = await self._listing.find(stream)
            if found is None:
                return None
            [status] = await _statuses(Positions(self._calls, self._keys), [found])
        return status

    async def lag(self) -> Lag:
        """How far the service is behind: the sum of all streams, and the worst. It looks at all streams, in pages,
        as `streams` does."""
        entries = streams = waiting = unread = 0
        more, behind, worst = False, 0.0, None
        async for status in self.streams():
            streams += 1
            waiting += status.deliveries == 0
            unread += status.unread is not None
            entries += status.entries or 0
            more = more or status.more or status.unread is not None
            if status.behind is not None and status.behind > behind:
                behind, worst = status.behind, status.stream
        return Lag(entries, more, behind, worst, waiting, streams, unread)

    @contextmanager
    def _translated(self, doing: str) -> Generator[None]:
        try:
            yield
        except (Unanswered, RedisRejected) as fault:
            error = self._pooled.translated(fault, doing, None)
            raise error from error.__cause__


def _check(owner: object, behind: object) -> None:
    """Check the arguments of `Fleet.streams`."""
    if owner is not None and not isinstance(owner, str):
        raise TypeError(f"owner must be the id of a consumer, a str, not {type(owner).__name__}")
    if owner == "":
        raise ValueError("owner must not be empty")
    if behind is not None:
        if not isinstance(behind, int | float) or isinstance(behind, bool):
            raise TypeError(f"behind must be a number of seconds, not {type(behind).__name__}")
        if not behind >= 0:
            raise ValueError(f"behind must be at least 0, not {behind!r}")


class _Streams(AsyncIterator[StreamStatus]):
    """One walk through the streams. A failed or cancelled step skips nothing, and can be repeated."""

    def __init__(
        self,
        listing: Listing,
        positions: Positions,
        translated: Callable[[str], AbstractContextManager[None]],
        owner: str | None,
        behind: float | None,
    ) -> None:
        self._listing = listing
        self._positions = positions
        self._translated = translated
        self._owner = owner
        self._behind = behind
        self._newest: str | None = None  # when it began: announcements that come later are left to the next one
        self._after: str | None = None
        self._ended = False
        self._page: list[StreamStatus] = []  # in reverse

    async def __anext__(self) -> StreamStatus:
        while not self._page and not self._ended:
            with self._translated("list the streams"):
                await self._read()
        if not self._page:
            raise StopAsyncIteration
        return self._page.pop()

    async def _read(self) -> None:
        if self._newest is None:
            self._newest = await self._listing.newest()
        if self._newest is None:
            self._ended = True
            return
        page = await self._listing.page(self._after, self._newest, self._owner)
        statuses = await _statuses(self._positions, page.found)
        self._page = [status for status in reversed(statuses) if self._is_wanted(status)]
        self._after, self._ended = page.last, page.last is None

    def _is_wanted(self, status: StreamStatus) -> bool:
        return self._behind is None or status.behind is None or status.behind >= self._behind


async def _statuses(positions: Positions, found: Sequence[Listed]) -> list[StreamStatus]:
    """What is known of the streams of these announcements."""
    streams = [one.stream for one in found if one.stream is not None]
    owners = sorted({one.consumer for one in found} - {"", NOBODY})
    known, living = await positions.look(streams, owners)
    return [_stream(one, None if one.stream is None else known[one.stream], living) for one in found]


def _stream(found: Listed, position: Position | Exception | None, living: Collection[str]) -> StreamStatus:
    owner = None if found.consumer in ("", NOBODY) else found.consumer
    status = StreamStatus(found.stream, found.lbs_id, owner, found.consumer in living, found.deliveries)
    if position is None:
        return replace(status, unread="its announcement is malformed")
    if isinstance(position, Exception):
        return replace(status, unread=str(position))
    fails = position.fails_at(found.lbs_id)
    return replace(
        status,
        attempts=position.attempts_at(found.lbs_id),
        failures=position.failures if fails else 0,
        failing_since=position.failing_ms / 1000 if fails and position.failing_ms is not None else None,
        error=(position.error or None) if fails else None,
        checkpoint=position.checkpoint,
        behind=position.behind,
        entries=position.entries,
        more=position.more,
    )


def _status(service: str, findings: Findings) -> FleetStatus:
    found = findings.survey
    members = [_member(seen, findings) for seen in found.consumers if seen.name != NOBODY]
    released = sum(seen.pending for seen in found.consumers if seen.name == NOBODY)
    owned = sum(member.leases for member in members if member.alive)
    silent = [member.last_seen for member in members if member.leases and not member.alive]
    if released and isinstance(findings.released_ms, int):
        silent.append(findings.released_ms / 1000)
    oldest = found.oldest_waiting
    return FleetStatus(
        service=service,
        time=found.now_ms / 1000,
        members=tuple(sorted(members, key=lambda member: member.id)),
        waiting=max(found.waiting, found.entries - found.pending) if found.more else found.waiting,
        oldest_waiting=max(0.0, (found.now_ms - order(oldest)[0]) / 1000) if oldest else None,
        owned=owned,
        orphaned=found.pending - owned,
        orphaned_for=max(silent, default=None),
        released=released,
        dead_letters=None if isinstance(findings.letters, Exception) else findings.letters,
        unread=tuple(_unread(findings)),
    )


def _member(seen: Seen, findings: Findings) -> FleetMember:
    alive = seen.life_ms != ABSENT
    value = findings.values.get(seen.name)
    said = lock_value.describe(value) if alive and value is not None else None
    silent_ms = seen.idle_ms
    if said is not None and said.ttl_ms is not None and 0 <= seen.life_ms <= said.ttl_ms:
        silent_ms = min(silent_ms, said.ttl_ms - seen.life_ms)
    present = findings.present
    return FleetMember(
        id=seen.name,
        alive=alive,
        leases=seen.pending,
        last_seen=silent_ms / 1000,
        lock_left=seen.life_ms / 1000 if seen.life_ms >= 0 else None,
        presence=None if isinstance(present, Exception) else alive and seen.name in present,
        host=said.host if said else None,
        pid=said.pid if said else None,
        version=said.version if said else None,
        started=said.started if said else None,
        weight=said.holder.weight if said else None,
        max_streams=said.holder.max_streams if said else None,
    )


def _unread(findings: Findings) -> list[Unread]:
    asked = {
        "dead letters": findings.letters,
        "presence": findings.present,
        "released streams": findings.released_ms,
        "descriptions": findings.untold,
    }
    return [Unread(what, str(why)) for what, why in asked.items() if isinstance(why, Exception)]
