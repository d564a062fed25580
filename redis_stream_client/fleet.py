"""A service in the hands of whoever is on call: its members, where its announcements stand, and what can be done
about it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Literal

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import NotInTime, RedisRejected, StreamGone, UnknownConsumer
from redis_stream_client._model.fleet_status import FleetMember, FleetStatus, Lag, StreamStatus, Unread
from redis_stream_client._model.keys import NOBODY, Keys, require_name
from redis_stream_client._model.orders import Pause, Release
from redis_stream_client._protocol import lock_value, survey
from redis_stream_client._protocol.base import ABSENT
from redis_stream_client._protocol.listing import Listed, Listing
from redis_stream_client._protocol.operating import Operator, decode_pause
from redis_stream_client._protocol.positions import Position, Positions
from redis_stream_client._protocol.survey import Findings, Seen
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls

LOOKS = (0.02, 0.25)
"""Shortest and longest pause between two looks at what comes of an order, in seconds."""

ASK_AGAIN = 0.5
"""Seconds after which an owner is asked for a stream again."""

UNDONE = "nothing was changed"
"""The hint where Redis has certainly not executed an order."""

READING = 1.5
"""Seconds after which a member that has no lock, and may not know that, reads no more: a read blocks for 1 s at
most, and before the next one it hears of a pause. They count from when it was last heard of. Before Redis 7.2 a
read that brings nothing is no sign of life, so they count from the beginning of the pause, too."""

LONGEST_REASON = 500
"""Characters of the reason of a pause: each member reads it about once in a second."""


class Fleet:
    """The members and the streams of a service, seen from outside, by whoever is on call. It is no member.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Of a ``Redis``, it borrows connections from the pool;
            of a cluster, it only reads the settings, and keeps its own connections for 10 s after their last use.
        service: name of the service.

    All methods raise `RedisUnavailable` if Redis does not answer, as `LoadBalancerStream` does, and
    `RedisRejected` if Redis refuses. All can be repeated.

    `status`, `streams`, `owner` and `lag` only read. The others, `pause`, `resume`, `drain`, `evict` and
    `release`, change something and need permissions of their own. What they order stands in Redis before they wait
    for what comes of it, so a call that is cancelled while it waits has only stopped waiting. The hint of a
    `RedisUnavailable` says whether the order stands, was not given, or may have been.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._pooled = Pooled(redis, self._keys.lbs)
        self._calls = ScriptCalls(redis, self._pooled, self._keys.lbs)
        self._listing = Listing(self._calls, self._keys)
        self._operator = Operator(self._calls, self._keys)

    @property
    def service(self) -> str:
        """Name of the service."""
        return self._keys.service

    def __repr__(self) -> str:
        return f"<Fleet of {self._keys.service!r}>"

    # Looking.

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

    # The whole fleet.

    async def pause(self, reason: str, *, timeout: float = 5.0) -> tuple[str, ...]:
        """Have nobody take new streams, until somebody calls `resume`: announcements that no member has been given
        yet wait, also those of sessions that wake.

        What has an owner goes on, also by take-over: streams of members that die, and those that are released, get
        a new owner as ever, so a crash in a pause is no outage of a stream. Streams do not move to even out the
        load. Producers can announce and write.

        The pause outlives restarts of members, and of Redis, if that keeps its data. It is in
        `FleetStatus.paused`, in ``client.statistics().paused`` and ``client.health()``, and in the log of each
        member when it begins and ends. Calling again changes the reason.

        Members of versions that do not know pauses go on as before, and so do those that Redis does not permit to
        read it.

        Args:
            reason: why, for whoever looks; at most 500 characters.
            timeout: seconds to wait until the living members have said that they take no new streams. A member
                ends a read that is under way first, which takes ``lock_ttl / 2``, at most 1 s. 0: do not wait.

        Returns:
            The ids of members that have not said so by then, and may take a few streams more: of those that live,
            and in the first 1.5 s of those that have no lock, since they may not know that yet. Empty: the pause
            is in effect.

        Raises:
            TypeError, ValueError: a wrong argument.
        """
        _check_reason(reason)
        until = clock.now() + _seconds(timeout)
        with self._translated("pause the fleet", "the fleet may be paused now; repeating is safe", UNDONE):
            pause = await self._operator.pause(reason)
        with self._waiting("see who takes no new streams", "the fleet is paused; call again to wait again"):
            backoff = Backoff(*LOOKS)
            while True:
                findings = await survey.explore(self._calls, self._keys)
                status = _status(self._keys.service, findings)
                lasts = status.time - pause.since
                left = tuple(member.id for member in status.members if _may_take(member, lasts))
                ended = status.paused is None or status.paused.since != pause.since
                if not left or ended or not await _again(backoff, until):
                    return left

    async def resume(self) -> Pause | None:
        """End the pause. Members hear of it at once, or within a second.

        Returns:
            The pause that has ended; None: there was none, or it was ended already.
        """
        maybe = "the pause may be over; repeating is safe, and returns None if it is"
        with self._translated("resume the fleet", maybe, UNDONE):
            return await self._operator.resume()

    # One member.

    async def drain(self, consumer: str, *, timeout: float = 60.0) -> None:
        """Have a member do what ``client.drain()`` does, and wait until it has left.

        It takes no new streams, its handlers come to a checkpoint within its ``drain_timeout``, their streams go
        to its peers, and its ``run()`` returns. A member whose program reads ``events()`` takes no new streams,
        and goes on with those that it has: its program must end it.

        The order concerns this member alone, and stays with it until it has left. It hears of it at once, or
        within a second; one of an older version never does. A consumer that is dead counts as one that has left.
        If it only stood still, it joins again, and drains then; for that the order is kept for a day.

        Args:
            consumer: its id.
            timeout: seconds to wait until it has left. 0: do not wait. The order stands, however long you wait.

        Raises:
            TypeError, ValueError: a wrong argument.
            UnknownConsumer: there is no such consumer.
            NotInTime: it has not left by then.
        """
        _check_consumer(consumer)
        until = clock.now() + _seconds(timeout)
        with self._translated("drain a member", "it may have been ordered to drain; repeating is safe", UNDONE):
            outcome = await self._operator.order_drain(consumer)
        if outcome == "unknown":
            raise _unknown(consumer)
        if outcome == "foreign":
            raise RedisRejected(f"the lock of {consumer!r} was not written by this library", owner=consumer)
        with self._waiting("see whether the member has left", "it is to drain; call again to wait again"):
            backoff = Backoff(*LOOKS)
            while outcome == "ordered" and timeout > 0 and await self._operator.lives(consumer):
                if not await _again(backoff, until):
                    raise NotInTime(
                        f"{consumer!r} has not left within {timeout:g} s; it is still to drain",
                        owner=consumer,
                        hint="its drain_timeout may be longer; a reader of events() must be ended by its program, "
                        "and an older version by a signal",
                    )

    async def evict(self, consumer: str) -> int:
        """Take a member out of the fleet, without asking it: its streams are released, and its lock is gone.

        This is for one that hangs, or whose host cannot be reached, while its lock still lives. Its peers take
        over at once. It may still be at work: nothing that it does from then on with a stream that a peer has
        begun counts, nor elsewhere what is guarded by ``lease.fence``. For its streams this is no death of an
        owner, which would count towards the dead letters.

        A member that lives learns it as a lapse, loses its streams, and joins again. To be rid of it, `drain` it
        first.

        Args:
            consumer: its id.

        Returns:
            How many streams were released. 0 for a consumer that is dead: its peers take over what it has left.

        Raises:
            TypeError, ValueError: a wrong argument.
            UnknownConsumer: there is no such consumer; the fleet forgets dead ones after a while.
        """
        _check_consumer(consumer)
        released, more = 0, True
        while more:
            undone = (
                f"{released} of its streams were released; repeat the call for the others" if released else UNDONE
            )
            with self._translated("evict a member", "it may have been evicted; repeating is safe", undone):
                evicted = await self._operator.evict(consumer)
            if evicted is None:
                raise _unknown(consumer)
            released, more = released + evicted[0], evicted[1]
        return released

    # One stream.

    async def release(self, stream: str, *, timeout: float = 10.0, force: bool = False) -> Release:
        """Have the owner of a stream give it back, so that a peer takes it.

        Its handler is stopped as when the load is evened out: at its first step of ``entries()`` or ``batches()``
        after a checkpoint. A stream that is pinned stays until it is not. A reader of ``events(rebalance=True)``
        gets a `StreamWanted`. The owner is asked again and again, and leaves the stream to its peers for
        ``lock_ttl``, at most 2 s; a lone member takes it back then.

        Owners of older versions do not know the question, and readers of plain ``events()`` are not asked.

        If the stream was announced several times, its newest announcement is meant, as in `owner`.

        Args:
            stream: name of the data stream.
            timeout: seconds to wait until it is given.
            force: take it from an owner that has not given it by then; with a `timeout` of 0 at once. The owner
                may still be at work: nothing that it does counts from when its successor has begun. That is no
                death of an owner.

        Returns:
            What came of it.

        Raises:
            TypeError, ValueError: a wrong argument.
            StreamGone: the stream is not announced: it may sleep, be finished, or be among the dead letters.
            NotInTime: its owner has not given it back by then, and was not forced to.
        """
        require_name(stream, "stream")
        until = clock.now() + _seconds(timeout)
        with self._translated("release a stream", UNDONE, UNDONE):
            asked = await self._listing.find(stream)
            if asked is None:
                raise StreamGone(
                    f"{stream!r} is not announced: it sleeps, is finished, or is a dead letter", stream=stream
                )
            if asked.consumer in ("", NOBODY) or not await self._operator.lives(asked.consumer):
                return Release(stream, asked.lbs_id, "unowned", None, None)
        with self._waiting("see whether the stream is given", "its owner was asked, and may give it"):
            found = await self._given(asked, until) if timeout > 0 else asked
        outcome: Literal["given", "forced"] = "given"
        if found == asked:
            if not force:
                raise _not_given(stream, asked, timeout)
            outcome = await self._taken(asked)
            with self._waiting("see who has the stream now", "its owner has lost it, and a peer takes it"):
                found = await self._listing.one(asked.lbs_id)
        if found is None:
            return Release(stream, asked.lbs_id, "ended", asked.consumer, None)
        owner = None if found.consumer == NOBODY else found.consumer
        return Release(stream, asked.lbs_id, outcome, asked.consumer, owner)

    async def _taken(self, asked: Listed) -> Literal["given", "forced"]:
        """Take a stream from its owner, unless that has given it."""
        maybe = (
            "it may have been taken away; look who owns it before you repeat the call, which would take it from "
            "that one"
        )
        with self._translated("take a stream from its owner", maybe, "it was not taken away"):
            return "forced" if await self._operator.take_away(asked) else "given"

    async def _given(self, asked: Listed, until: float) -> Listed | None:
        """Ask the owner of an announcement for it until it has changed, or the time is over. Returns how it
        stands then; None: it is over."""
        backoff = Backoff(*LOOKS)
        ask_at = 0.0
        while True:
            if clock.now() >= ask_at:
                await self._operator.ask_for(asked)
                ask_at = clock.now() + ASK_AGAIN
            again = await _again(backoff, until)
            found = await self._listing.one(asked.lbs_id)
            if found != asked or not again:
                return found

    @contextmanager
    def _translated(self, doing: str, maybe: str | None = None, undone: str | None = None) -> Generator[None]:
        """Translate the errors of a block that does one thing: "could not …".

        Args:
            doing: what it does.
            maybe: the hint if Redis may have done it.
            undone: the hint if Redis has certainly not done it.
        """
        try:
            yield
        except (Unanswered, RedisRejected) as fault:
            unknown = isinstance(fault, Unanswered) and fault.maybe_executed
            error = self._pooled.translated(fault, doing, maybe if unknown else undone)
            raise error from error.__cause__

    @contextmanager
    def _waiting(self, doing: str, stands: str) -> Generator[None]:
        """Translate the errors of a block that only looks what comes of an order, which stands: say so."""
        try:
            with self._translated(doing, stands, stands):
                yield
        except RedisRejected as refused:
            refused.hint = f"{stands}; {refused.hint}" if refused.hint else stands
            raise


def _may_take(member: FleetMember, paused_for: float) -> bool:
    """Whether a member may take new streams in a pause. One that has lost its lock may not know it yet."""
    return not member.paused if member.alive else min(member.last_seen, paused_for) < READING


async def _again(backoff: Backoff, until: float) -> bool:
    """Pause before another look. False: the time is over."""
    left = until - clock.now()
    if left <= 0:
        return False
    await asyncio.sleep(min(backoff.pause(), left))
    return True


def _seconds(timeout: object) -> float:
    """Check a timeout."""
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0, not {timeout!r}")
    return timeout


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}")
    if not reason.strip():
        raise ValueError("reason must not be empty: others will want to know it")
    if len(reason) > LONGEST_REASON:
        raise ValueError(f"reason must have at most {LONGEST_REASON} characters, not {len(reason)}")


def _check_consumer(consumer: object) -> None:
    if not isinstance(consumer, str):
        raise TypeError(f"consumer must be the id of a consumer, a str, not {type(consumer).__name__}")
    if not consumer or consumer == NOBODY:
        raise ValueError(f"consumer must be the id of a consumer, not {consumer!r}")


def _unknown(consumer: str) -> UnknownConsumer:
    return UnknownConsumer(
        f"there is no consumer {consumer!r}", owner=consumer, hint="status() lists the ids of all consumers"
    )


def _not_given(stream: str, asked: Listed, timeout: float) -> NotInTime:
    return NotInTime(
        f"{asked.consumer!r} has not given {stream!r} back within {timeout:g} s",
        stream=stream,
        lbs_id=asked.lbs_id,
        owner=asked.consumer,
        hint="it comes to no checkpoint, is pinned, or its owner is not asked; force=True takes it away",
    )


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
    pause = None if isinstance(findings.paused, Exception) else decode_pause(findings.paused)
    members = [_member(seen, findings, pause) for seen in found.consumers if seen.name != NOBODY]
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
        paused=pause,
    )


def _member(seen: Seen, findings: Findings, pause: Pause | None) -> FleetMember:
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
        draining=said is not None and (said.says.draining or said.drain_ordered),
        paused=_knows(said, pause),
    )


def _knows(said: lock_value.Description | None, pause: Pause | None) -> bool:
    if said is None or pause is None or said.says.paused_ms is None:
        return False
    return said.says.paused_ms == round(pause.since * 1000)


def _unread(findings: Findings) -> list[Unread]:
    asked = {
        "dead letters": findings.letters,
        "presence": findings.present,
        "pause": findings.paused,
        "released streams": findings.released_ms,
        "descriptions": findings.untold,
    }
    return [Unread(what, str(why)) for what, why in asked.items() if isinstance(why, Exception)]
