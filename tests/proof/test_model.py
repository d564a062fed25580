"""The protocol, exhaustively: no interleaving of a small fleet breaks a guarantee, and each known bug does."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from redis_stream_client import NotOwner
from redis_stream_client._model.keys import Keys
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.binaries import chosen
from tests.harness.fleet import Member, announce
from tests.proof.model.clients import Model
from tests.proof.model.configurations import MUTANTS, QUICK
from tests.proof.model.conformance import Mirror, walk
from tests.proof.model.explore import explore
from tests.proof.model.mutations import Mutation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

WALKS = 300
LENGTH = 40  # calls
WORDS = {
    "claim": {"won", "gone", "owner", "alive", "lapsed"},
    "claim_many": {"won", "alive", "lapsed"},
    "adopt": {"won", "changed", "lapsed"},
    "done": {"done", "gone", "owner"},
    "release": {"released", "gone", "owner"},
    "bury": {"buried", "gone", "owner"},
    "lift": {"lifted", "gone", "owner"},
    "begin": {"begun", "fresh", "refused"},
    "checkpoint": {"advanced", "kept", "refused"},
}


@pytest.mark.parametrize("name", QUICK)
def test_no_interleaving_breaks_a_guarantee(name: str) -> None:
    result = explore(Model(QUICK[name]))
    assert not result.violation, f"\n{result}"
    assert result.states > 100


@pytest.mark.parametrize("mutation", Mutation, ids=lambda mutation: mutation.name.lower())
def test_a_known_bug_is_found(mutation: Mutation) -> None:
    guarantee, bounds = MUTANTS[mutation]
    result = explore(Model(bounds, mutation))
    print(f"When {mutation.value}:\n{result}")
    assert result.violation, "the model has lost its teeth"
    assert result.violation[0] == guarantee
    assert not explore(Model(bounds)).violation, "and not by the bug"


async def test_the_model_does_what_the_scripts_do(redis: Connection, service: str) -> None:
    mirror = Mirror(redis, service)
    said: defaultdict[str, set[str]] = defaultdict(set)
    for _ in range(WALKS):
        seed = random.random()
        calls = walk(random.Random(seed), LENGTH, keeps_trimmed=chosen() == "redis-6.2")
        real = await mirror.repeat(calls)
        for i, (call, (reply, state)) in enumerate(zip(calls, real, strict=True), 1):
            way = "\n".join(f"{c.name}{c.args}: {c.reply}" for c in calls[:i])
            assert reply == call.reply, f"walk {seed}:\n{way}"
            assert state == call.after, f"walk {seed}:\n{way}"
            words = (
                call.reply[:1] if call.name != "adopt" or call.reply == ("lapsed",) else [r[0] for r in call.reply]
            )
            said[call.name].update(map(str, words))
    assert {name: said[name] & words for name, words in WORDS.items()} == WORDS, "some answer was never given"


async def test_a_repeated_done_is_not_believed_when_the_lock_was_evicted(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """Found by the model. Between two beats the lock is evicted, and a peer takes the stream and finishes it."""
    keys = Keys(service)
    async with Member(proxy.url, service, lock_ttl=8.0) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await redis.config_set("notify-keyspace-events", "")
        parts = member.client._lifecycle.parts
        assert parts is not None
        deliveries = parts.operations.deliveries
        send, calls = deliveries.done, 0

        async def send_after_eviction(entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise Unanswered("the request was lost", maybe_executed=True)
            async with redis.pipeline(transaction=True) as peer:
                peer.delete(keys.lock(member.client.id))
                peer.xclaim(keys.lbs, keys.group, "peer", 0, [lbs_id])
                peer.xack(keys.lbs, keys.group, lbs_id)
                peer.xdel(keys.lbs, lbs_id)
                await peer.execute()
            return await send(entries, timeout)

        with patch.object(deliveries, "done", send_after_eviction), pytest.raises(NotOwner) as refused:
            await member.lease("call-1").done()
        assert refused.value.gone


async def test_a_repeated_done_is_not_believed_before_the_audit_of_a_fail_over(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """Found by the model. The promoted replica knows of no delivery, and is asked for done first."""
    keys = Keys(service)
    async with Member(proxy.url, service, lock_ttl=8.0) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        parts = member.client._lifecycle.parts
        assert parts is not None
        deliveries, identity = parts.operations.deliveries, parts.connections.identity
        send, calls = deliveries.done, 0

        async def lose_the_first_reply(entries: Sequence[tuple[str, int]], timeout: float) -> list[str]:
            nonlocal calls
            calls += 1
            reply = await send(entries, timeout)
            if calls == 1:
                raise Unanswered("the reply was lost", maybe_executed=True)
            return reply

        await redis.xack(keys.lbs, keys.group, lbs_id)
        identity.history = "the replica's"
        with patch.object(deliveries, "done", lose_the_first_reply), pytest.raises(NotOwner) as refused:
            await member.lease("call-1").done()
        assert refused.value.gone
        assert await redis.xlen(keys.lbs) == 1
