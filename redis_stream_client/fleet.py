"""A service seen from outside, by whoever is on call: its members, and where its announcements stand."""

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.fleet_status import FleetMember, FleetStatus, Unread
from redis_stream_client._model.keys import NOBODY, Keys, require_name
from redis_stream_client._protocol import lock_value, survey
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

    def __repr__(self) -> str:
        return f"<Fleet of {self._keys.service!r}>"

    async def status(self) -> FleetStatus:
        """The members, and how many announcements wait, are owned, or are orphaned.

        A service that nobody has used yet has no members and no announcements. What is not permitted or does not
        answer, while the members and the announcements can be read, is in `FleetStatus.unread`.

        Three requests, or some more with over 1,000 members. Who lives and what is pending for whom is read in one
        step, so the numbers add up.
        """
        try:
            findings = await survey.explore(self._calls, self._keys)
        except (Unanswered, RedisRejected) as fault:
            error = self._pooled.translated(fault, "look at the fleet", None)
            raise error from error.__cause__
        return _status(self._keys.service, findings)


def _status(service: str, findings: Findings) -> FleetStatus:
    found = findings.survey
    members = [_member(seen, findings) for seen in found.consumers if seen.name != NOBODY]
    released = sum(seen.pending for seen in found.consumers if seen.name == NOBODY)
    owned = sum(member.leases for member in members if member.alive)
    waiting = found.entries - found.pending if found.waiting is None else found.waiting
    silent = [member.last_seen for member in members if member.leases and not member.alive]
    if released and isinstance(findings.released_ms, int):
        silent.append(findings.released_ms / 1000)
    oldest = found.oldest_waiting
    return FleetStatus(
        service=service,
        time=found.now_ms / 1000,
        members=tuple(sorted(members, key=lambda member: member.id)),
        waiting=waiting,
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
