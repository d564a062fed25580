"""The scripts about presence: who may declare it, who is seen absent, and who is deposed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._protocol.presence import PresenceScripts
from redis_stream_client._protocol.replies import Absent, Watch
from tests.harness.waiting import wait_until
from tests.protocol.consumer import SOON, Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.harness.connection import Connection

TENURE = 60.0
GRACE = 0.4


class Member:
    """A consumer with a subscription, as a live client has it."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.id = consumer.id
        self.scripts = PresenceScripts(consumer.options, db=0, beats=consumer.links[0])
        self._channel = consumer.keys.presence_channel(consumer.id, 0)
        self._pubsub = consumer.redis.pubsub()

    async def live(self) -> None:
        await self._pubsub.subscribe(self._channel)
        await wait_until(self._seen, "Redis has the subscription")

    async def crash(self) -> None:
        await self._pubsub.unsubscribe(self._channel)
        await wait_until(self._gone, "Redis has forgotten the subscription")

    async def _seen(self) -> bool:
        [(_, count)] = await self.consumer.redis.pubsub_numsub(self._channel)
        return bool(count)

    async def _gone(self) -> bool:
        return not await self._seen()

    async def close(self) -> None:
        await self._pubsub.aclose()

    async def declare(self, nonce: int = 1, grace: float = GRACE) -> str:
        return await self.scripts.present(nonce, grace, SOON)

    async def watch(self, nonce: int = 1, tenure: float = TENURE) -> Watch:
        return await self.scripts.watch(nonce, tenure, SOON)

    async def depose(self, *victims: Absent, nonce: int = 1) -> list[str]:
        return await self.scripts.depose(nonce, victims, SOON)

    async def declaration(self) -> bytes | None:
        found: bytes | None = await self.consumer.redis.hget(self.consumer.keys.present, self.id)
        return found


@contextlib.asynccontextmanager
async def present(consumer: Consumer) -> AsyncGenerator[Member]:
    member = Member(consumer)
    try:
        await member.live()
        assert await member.declare() == "present"
        yield member
    finally:
        await member.close()


@pytest.fixture
async def one(a: Consumer) -> AsyncIterator[Member]:
    """A member that is present."""
    async with present(a) as member:
        yield member


@pytest.fixture
async def two(b: Consumer) -> AsyncIterator[Member]:
    """Another one."""
    async with present(b) as member:
        yield member


async def run_id(redis: Connection) -> str:
    return str((await redis.info("server"))["run_id"])


# Declaring, and taking it back.


async def test_a_declaration_names_the_run_of_the_server_the_grace_and_the_nonce(
    redis: Connection, one: Member
) -> None:
    assert await one.declare(7, 0.25) == "present"
    assert await one.declaration() == f"{await run_id(redis)} 250 7".encode()


async def test_who_is_not_seen_cannot_declare(a: Consumer) -> None:
    member = Member(a)
    assert await member.declare() == "absent"
    assert await member.declaration() is None
    await member.close()


async def test_who_has_no_lock_cannot_declare(one: Member) -> None:
    await one.scripts.withdraw(SOON)
    await one.consumer.die()
    assert await one.declare() == "lapsed"
    assert await one.declaration() is None


async def test_withdrawing_takes_the_declaration_back_and_renews_the_lock(redis: Connection, one: Member) -> None:
    await redis.pexpire(one.consumer.lock_key, 1000)
    assert await one.scripts.withdraw(SOON) is True
    assert await one.declaration() is None
    assert await redis.pttl(one.consumer.lock_key) > 1000
    await one.consumer.die()
    assert await one.scripts.withdraw(SOON) is False
    assert not await redis.exists(one.consumer.lock_key)


async def test_joining_leaving_and_being_forgotten_take_it_back(one: Member, two: Member) -> None:
    await one.consumer.lock.join(SOON)
    assert await one.declaration() is None
    await one.declare()
    await one.consumer.lock.leave(SOON)
    assert await one.declaration() is None
    await one.consumer.lock.join(SOON)
    await one.declare()
    assert await two.consumer.group.forget(one.id, 0.0, SOON) is False  # it lives
    assert await one.declaration() is not None
    await one.consumer.die()
    assert await two.consumer.group.forget(one.id, 0.0, SOON) is True
    assert await one.declaration() is None


# Watching.


async def test_one_watches_and_the_others_see_that_it_does(redis: Connection, one: Member, two: Member) -> None:
    assert await one.watch() == Watch("watching", 2)
    assert await two.watch() == Watch("other", 2)
    assert await one.watch() == Watch("watching", 2)
    keys = one.consumer.keys
    assert (await redis.get(keys.watch)).decode() == one.id
    assert 0 < await redis.pttl(keys.watch) <= TENURE * 1000


async def test_another_one_watches_when_the_tenure_is_over_or_the_watcher_is_absent(
    redis: Connection, one: Member, two: Member
) -> None:
    await one.watch()
    await redis.delete(one.consumer.keys.watch)
    assert (await two.watch()).what == "watching"
    assert (await one.watch()).what == "other"
    await two.crash()
    assert (await one.watch()).what == "watching"


async def test_who_is_absent_is_seen_with_its_grace_and_declaration(one: Member, two: Member) -> None:
    assert (await one.watch()).absent == ()
    await two.crash()
    declaration = await two.declaration()
    assert declaration is not None
    assert (await one.watch()).absent == (Absent(two.id, GRACE, declaration),)


async def test_who_never_declared_or_has_withdrawn_is_not_missed(one: Member, two: Member, a: Consumer) -> None:
    async with Consumer(a.redis, a.keys.service, "old"):
        await two.scripts.withdraw(SOON)
        await two.crash()
        assert await one.watch() == Watch("watching", 1)


@pytest.mark.parametrize("value", ["0123abcd 150 1", "garbage", "", "0123abcd 150"])
async def test_a_declaration_on_another_run_of_the_server_accuses_nobody_and_goes(
    redis: Connection, one: Member, two: Member, value: str
) -> None:
    key = one.consumer.keys.present
    await two.crash()
    await redis.hset(key, two.id, value)
    assert (await one.watch()).absent == ()
    assert await two.declaration() is None


async def test_one_on_another_run_stays_while_its_member_is_seen(
    redis: Connection, one: Member, two: Member
) -> None:
    await redis.hset(one.consumer.keys.present, two.id, "0123abcd 150 1")
    assert (await one.watch()).absent == ()
    assert await two.declaration() is not None


async def test_who_is_not_seen_itself_is_told(one: Member) -> None:
    await one.crash()
    assert await one.watch() == Watch("blind")


async def test_who_has_no_lock_is_told(one: Member) -> None:
    await one.consumer.die()
    assert await one.watch() == Watch("lapsed")


async def test_whose_declaration_is_lost_is_told_whether_it_watches_or_not(
    redis: Connection, one: Member, two: Member
) -> None:
    await one.watch()
    assert await two.watch(nonce=2) == Watch("undeclared")
    assert await one.watch(nonce=2) == Watch("undeclared")
    await redis.delete(one.consumer.keys.present)
    assert await two.watch() == Watch("undeclared")
    assert await one.watch() == Watch("undeclared")


@pytest.fixture
async def full(redis: Connection) -> AsyncIterator[None]:
    """The test may make Redis full."""
    yield
    await redis.config_set("maxmemory", 0)


@pytest.mark.usefixtures("full")
async def test_on_a_full_redis_crashes_are_noticed_all_the_same(
    redis: Connection, one: Member, two: Member
) -> None:
    await redis.config_set("maxmemory", 1)
    assert await one.watch() == Watch("full", 2)
    assert await two.watch() == Watch("full", 2)
    await two.crash()
    found = await one.watch()
    assert found.what == "full"
    assert await one.depose(*found.absent) == [two.id]
    assert await one.scripts.withdraw(SOON) is True
    assert await one.declare(2) == "present"


@pytest.mark.parametrize("members", [999, 1000, 1001, 2500])
async def test_a_large_fleet_is_watched(redis: Connection, one: Member, members: int) -> None:
    declaration = f"{await run_id(redis)} 150 1"
    absent = [f"redis-consumer-{n}" for n in range(members)]
    await redis.hset(one.consumer.keys.present, mapping=dict.fromkeys(absent, declaration))
    found = await one.watch()
    assert found.present == members + 1
    assert sorted(each.consumer for each in found.absent) == sorted(absent)


# Deposing.


async def absent_at_first_look(one: Member, two: Member) -> Absent:
    await two.crash()
    [victim] = (await one.watch()).absent
    return victim


async def test_who_is_absent_loses_its_lock_and_the_peers_are_told(
    redis: Connection, one: Member, two: Member
) -> None:
    victim = await absent_at_first_look(one, two)
    async with redis.pubsub() as channel:
        await channel.subscribe(one.consumer.keys.control)
        await channel.get_message(timeout=SOON)
        assert await one.depose(victim) == [two.id]
        for word in ("deposed", "dead"):
            message: Any = await channel.get_message(timeout=SOON)
            assert message["data"] == f"{word} {two.id}".encode()
    assert not await redis.exists(two.consumer.lock_key)
    assert await two.declaration() is None
    assert await one.depose(victim) == []


async def test_who_is_back_stays(redis: Connection, one: Member, two: Member) -> None:
    victim = await absent_at_first_look(one, two)
    await two.live()
    assert await one.depose(victim) == []
    assert await redis.exists(two.consumer.lock_key)


async def test_who_has_withdrawn_or_declared_anew_stays(redis: Connection, one: Member, two: Member) -> None:
    victim = await absent_at_first_look(one, two)
    await two.scripts.withdraw(SOON)
    assert await one.depose(victim) == []
    await two.live()
    await two.declare(2)
    await two.crash()
    assert await one.depose(victim) == []
    assert await redis.exists(two.consumer.lock_key)
    assert await two.declaration() is not None


async def test_who_declared_on_another_run_of_the_server_stays(
    redis: Connection, one: Member, two: Member
) -> None:
    await two.crash()
    before = b"0123abcd 150 1"
    await redis.hset(one.consumer.keys.present, two.id, before)
    assert await one.depose(Absent(two.id, GRACE, before)) == []
    assert await redis.exists(two.consumer.lock_key)


async def test_who_is_gone_already_loses_its_declaration_only(redis: Connection, one: Member, two: Member) -> None:
    victim = await absent_at_first_look(one, two)
    await two.consumer.die()
    assert await one.depose(victim) == []
    assert await two.declaration() is None


@pytest.mark.parametrize("lost", ["lock", "subscription", "declaration", "nonce", "run"])
async def test_who_is_not_present_itself_deposes_nobody(
    redis: Connection, one: Member, two: Member, lost: str
) -> None:
    victim = await absent_at_first_look(one, two)
    match lost:
        case "lock":
            await one.consumer.die()
        case "subscription":
            await one.crash()
        case "declaration":
            await redis.hdel(one.consumer.keys.present, one.id)
        case "nonce":
            await one.declare(2)
        case "run":
            await redis.hset(one.consumer.keys.present, one.id, "0123abcd 150 1")
    assert await one.depose(victim) == []
    assert await redis.exists(two.consumer.lock_key)


async def test_many_are_deposed_at_once(redis: Connection, one: Member) -> None:
    declaration = f"{await run_id(redis)} 150 1".encode()
    names = [f"redis-consumer-{n}" for n in range(100)]
    keys = one.consumer.keys
    await redis.hset(keys.present, mapping=dict.fromkeys(names, declaration))
    for name in names[::2]:
        await redis.set(keys.lock(name), "")
    assert await one.depose(*(Absent(name, GRACE, declaration) for name in names)) == names[::2]
    assert await redis.hlen(keys.present) == 1


async def test_names_need_not_be_utf_8(redis: Connection, one: Member) -> None:
    declaration = f"{await run_id(redis)} 150 1".encode()
    keys = one.consumer.keys
    await redis.hset(keys.present, b"x\xff[*]", declaration)
    await redis.set(keys.lock("x").encode() + b"\xff[*]", "")
    [victim] = (await one.watch()).absent
    assert victim.consumer == "x\udcff[*]"
    assert await one.depose(victim) == [victim.consumer]
