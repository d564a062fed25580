"""What presence costs Redis while nobody crashes."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from benchmarks.measure import Work
from redis_stream_client import RedisStreamClient
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.harness.servers import Server
from tests.proof import test_cost

SERVICE = "bench"

LOOKS = 1_000

SUBSCRIBED_AT_ONCE = 100


async def commands_alone(*, presence: bool) -> float:
    """Commands per second of a client that has no peers, those inside scripts included."""
    with Server() as server:
        async with (
            Redis.from_url(server.url) as redis,
            RedisStreamClient.from_url(server.url, SERVICE, presence=presence) as client,
        ):
            await test_cost.hold(client, redis, SERVICE, 10)
            return await test_cost.rate(redis)


@dataclass(frozen=True, slots=True)
class Looks:
    """CPU seconds of Redis, for one request of each kind: its reading and answering included.

    Attributes:
        watching: of the member that watches all others.
        other: of another member, which asks whether somebody watches.
    """

    watching: float
    other: float


async def looks(members: int) -> Looks:
    """Back to back, so that how cold the caches are does not count."""
    keys, db = Keys(SERVICE), 0
    names = [f"redis-consumer-worker-5f7d9c-{i:08x}" for i in range(members)]
    watch = scripts.load("watch")
    with Server() as server:
        async with Redis.from_url(server.url) as redis, redis.pubsub() as listeners:
            run_id = (await redis.info("server"))["run_id"]
            for start in range(0, members, SUBSCRIBED_AT_ONCE):
                at_once = names[start : start + SUBSCRIBED_AT_ONCE]
                await listeners.subscribe(*(keys.presence_channel(name, db) for name in at_once))
            await redis.hset(keys.present, mapping=dict.fromkeys(names, f"{run_id} 150 1"))
            await redis.script_load(watch.text)

            async def look(me: str) -> float:
                lock = keys.lock(me)
                await redis.set(lock, "")
                before = await Work.of(redis)
                for _ in range(LOOKS):
                    await redis.evalsha(
                        watch.sha,
                        3,
                        *(lock, keys.watch, keys.present),
                        *(me, 60_000, keys.presence_channel("", db), 1),
                    )
                return ((await Work.of(redis)).cpu - before.cpu) / LOOKS

            return Looks(await look(names[0]), await look(names[-1]))
