"""Script calls from outside of a fleet: on one server, and in a cluster whose slots move and whose nodes die."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from redis_stream_client import RedisRejected
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.node_connections import MOST
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.script_calls import Call, Command, ScriptCalls
from tests.harness.cluster import start_cluster
from tests.harness.cluster_proxies import ClusterProxies
from tests.harness.loops import loop_factory
from tests.harness.ports import HOST
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

INCREASE = Script.from_text("return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])} -- only here")


def calls_of(redis: Connection) -> ScriptCalls:
    return ScriptCalls(redis, Pooled(redis, "key"), "key")


def increase(key: str, by: object = 1) -> Call:
    return Call(INCREASE, [key], [str(by)])


@pytest.fixture
async def clustered(cluster: Cluster) -> AsyncIterator[Connection]:
    async with RedisCluster.from_url(cluster.url) as redis:
        yield redis


async def test_each_call_has_its_answer(redis: Connection) -> None:
    await redis.set("text", "a")
    answers = await calls_of(redis).run_all([increase("a"), increase("text"), increase("a", 2)])
    assert [answers[0], answers[2]] == [[b"a", 1], [b"a", 3]]
    assert isinstance(answers[1], RedisRejected)
    with pytest.raises(RedisRejected, match="not an integer"):
        await calls_of(redis).ask(increase("text"))
    assert await calls_of(redis).run_all([]) == []


async def test_scripts_and_commands_travel_together(redis: Connection) -> None:
    await redis.set("text", "a")
    asks: list[Call | Command] = [
        increase("a"),
        Command("text", ("GET", "text")),
        Command("text", ("HKEYS", "text")),
    ]
    for times in (1, 2):
        *answers, refused = await calls_of(redis).run_all(asks)
        assert answers == [[b"a", times], b"a"]
        assert isinstance(refused, RedisRejected)


async def test_a_text_is_sent_once_for_many_calls(redis: Connection, server: Server) -> None:
    def evals() -> int:
        return int(server.command("INFO", "commandstats").get("cmdstat_eval", {"calls": 0})["calls"])

    before, calls = evals(), calls_of(redis)
    for _ in range(2):
        answers = await calls.run_all([increase("a") for _ in range(10)])
        assert [by for _, by in answers][-1] in (10, 20)
    assert evals() - before == 1


async def test_where_nothing_was_sent_nothing_was_executed(proxy: TcpProxy) -> None:
    async with Redis.from_url(proxy.url) as redis:
        await proxy.refuse()
        [answer] = await calls_of(redis).run_all([increase("a")])
    assert isinstance(answer, Unanswered)
    assert not answer.maybe_executed


async def test_of_lost_replies_the_first_are_known(proxy: TcpProxy, redis: Connection) -> None:
    async with Redis.from_url(proxy.url, socket_timeout=0.3) as through:
        calls = calls_of(through)
        await calls.run_all([increase("a")])
        proxy.drop_replies_after(b"here")
        answers = await calls.run_all([increase("a"), increase("here")])
        assert all(isinstance(answer, Unanswered) and answer.maybe_executed for answer in answers)
        assert await redis.get("a") == b"2", "nothing is sent again"


async def test_a_master_that_is_none_any_more_is_left(own_server: Any) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as redis:
        calls = calls_of(redis)
        await calls.run_all([increase("a")])
        server.command("REPLICAOF", HOST, 1)
        [answer] = await calls.run_all([increase("a")])
        assert isinstance(answer, Unanswered)
        assert not answer.maybe_executed
        server.command("REPLICAOF", "NO", "ONE")
        assert await calls.ask(increase("a")) == [b"a", 2]


# A cluster.


async def test_calls_of_many_slots_go_to_their_nodes(clustered: Connection, service: str) -> None:
    calls = calls_of(clustered)
    names = [f"{service}-{n}" for n in range(300)]
    assert len({calls.slot(name) for name in names}) > 200
    for by in (1, 2):
        answers = await calls.run_all([increase(name) for name in names])
        assert answers == [[name.encode(), by] for name in names]


async def test_commands_follow_their_keys(cluster: Cluster, clustered: Connection, service: str) -> None:
    calls = calls_of(clustered)
    asks = [Command(name, ("INCR", name)) for name in (f"{service}-{n}" for n in range(100))]
    assert await calls.run_all(asks) == [1] * 100
    cluster.move(asks[0].key)
    assert await calls.run_all(asks) == [2] * 100
    with_script: list[Call | Command] = [*asks, increase(asks[0].key)]
    move = cluster.start_to_move(asks[0].key)
    assert (await calls.run_all(with_script))[:-1] == [3] * 100
    while move.keys():
        pass
    move.finish()


async def test_the_servers_of_keys(cluster: Cluster, clustered: Connection, redis: Connection) -> None:
    keys = [cluster.key_on(node, f"{n}-{{}}") for node in cluster.masters for n in range(2)]
    servers = await calls_of(clustered).servers(keys)
    assert None not in servers
    assert len(set(servers)) == 3
    assert servers[::2] == servers[1::2]
    assert await calls_of(redis).servers(keys) == [None] * 6


def test_the_slot_of_a_key(server: Server) -> None:
    assert calls_of(RedisCluster(host=HOST, port=server.port)).slot("{a}b") == key_slot(b"a")
    assert calls_of(Redis()).slot("{a}b") == 0


async def test_connections_are_kept(cluster: Cluster, clustered: Connection, service: str) -> None:
    calls = calls_of(clustered)
    await calls.ask(increase(service))
    node = cluster.owner_of(service)
    received = node.command("INFO", "stats")["total_connections_received"]
    for _ in range(20):
        await calls.ask(increase(service))
    now = node.command("INFO", "stats")["total_connections_received"]
    assert now - received <= 1, "one for this question"


async def test_many_at_once_share_a_few(cluster: Cluster, clustered: Connection, service: str) -> None:
    calls = calls_of(clustered)
    node = cluster.owner_of(service)
    before = len(clients_of(node))
    answers = await asyncio.gather(*(calls.ask(increase(service)) for _ in range(500)))
    assert sorted(by for _, by in answers) == list(range(1, 501))
    assert len(clients_of(node)) - before <= MOST


async def test_a_slot_that_moves_is_followed(cluster: Cluster, clustered: Connection, service: str) -> None:
    """Before, while the key is at the target and the slot at the source, and afterwards."""
    calls = calls_of(clustered)
    other = f"{{{service}}}:new"
    assert await calls.ask(increase(service)) == [service.encode(), 1]
    move = cluster.start_to_move(service)
    assert await calls.ask(increase(service)) == [service.encode(), 2]
    assert await calls.ask(increase(other)) == [other.encode(), 1], "a new key is asked for at the target"
    while move.keys():
        pass
    assert await calls.ask(increase(service)) == [service.encode(), 3]
    move.finish()
    for by in (4, 5):
        assert await calls.ask(increase(service)) == [service.encode(), by]
    assert move.target.command("GET", service) == b"5"


async def test_keys_of_which_some_have_moved_are_waited_for(
    cluster: Cluster, clustered: Connection, service: str
) -> None:
    both = Script.from_text("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
    keys = [service, f"{{{service}}}:other"]
    calls = calls_of(clustered)
    assert await calls.run(both, keys, []) == 2
    move = cluster.start_to_move(service)
    move.source.command("MIGRATE", HOST, move.target.port, "", 0, 5000, "KEYS", service)
    asking = asyncio.create_task(calls.run(both, keys, []))
    done, _ = await asyncio.wait((asking,), timeout=0.3)
    assert not done
    while move.keys():
        pass
    move.finish()
    assert await asking == 4


@pytest.mark.parametrize("how", ["kill", "freeze", "by hand"])
async def test_a_node_that_fails_over_is_followed(how: str) -> None:
    with contextlib.ExitStack() as stack:
        cluster = await asyncio.to_thread(stack.enter_context, start_cluster(1))
        redis = RedisCluster.from_url(cluster.url)
        calls = calls_of(redis)
        await calls.ask(increase("a"))
        node = cluster.owner_of("a")
        if how == "by hand":
            await asyncio.to_thread(cluster.fail_over, node)
        elif how == "kill":
            node.kill()
            await asyncio.sleep(0.05)  # time itself: the end of the connection arrives here
        else:
            node.freeze()
            [lost] = await calls.run_all([increase("a")])  # on a connection that is open
            assert isinstance(lost, Unanswered)
            assert lost.maybe_executed
        assert await calls.ask(increase("a")) == [b"a", 2]
        await redis.aclose()


async def test_a_lost_reply_is_not_followed_by_a_repeat(
    cluster: Cluster, clustered: Connection, service: str
) -> None:
    proxies = ClusterProxies(cluster)
    async with proxies.opened() as through:
        calls = calls_of(through)
        await calls.ask(increase(service))
        proxies.before(service).drop_replies_after(INCREASE.sha.encode(), cut=True)
        [answer] = await calls.run_all([increase(service)])
        assert isinstance(answer, Unanswered)
        assert answer.maybe_executed
    assert await clustered.get(service) == b"2"


async def test_what_only_reads_is_sent_again(cluster: Cluster, clustered: Connection, service: str) -> None:
    look = Script.from_text("return redis.call('GET', KEYS[1])")
    asks: list[Call | Command] = [
        Command(service, ("GET", service), reads=True),
        Call(look, [service], [], reads=True),
    ]
    await clustered.set(service, "7")
    proxies = ClusterProxies(cluster)
    async with proxies.opened() as through:
        calls = calls_of(through)
        for _ in range(2):
            assert await calls.run_all([*asks, increase(f"{{{service}}}-other")]) == [b"7", b"7", ANY]
            before = proxies.before(service)
            before.drop_replies_after(service.encode(), connections=1, cut=True)
            *answers, lost = await calls.run_all([*asks, increase(f"{{{service}}}-other")])
            assert answers == [b"7", b"7"]
            assert isinstance(lost, Unanswered)


async def test_a_cluster_that_is_away() -> None:
    redis = RedisCluster(host=HOST, port=1)
    [answer] = await calls_of(redis).run_all([increase("a")], patience=0.5)
    assert isinstance(answer, Unanswered)
    assert not answer.maybe_executed
    assert "refused" in str(answer)


async def test_of_a_node_that_stays_away_its_fault_is_said(cluster: Cluster) -> None:
    proxies = ClusterProxies(cluster)
    async with proxies.opened() as redis:
        calls = calls_of(redis)
        await calls.ask(increase("a"))
        before = proxies.before("a")
        await before.refuse()
        before.cut()
        for patience in (0.2, 0.3):
            [answer] = await calls.run_all([increase("a")], patience=patience)
            assert isinstance(answer, Unanswered)
            if not answer.maybe_executed:
                assert str(answer) == f"cannot connect to {HOST}:{before.port}: Connection refused"


async def test_a_wrong_password_is_refused_at_once(cluster: Cluster) -> None:
    redis = RedisCluster(host=HOST, port=cluster.nodes[0].port, username="nobody", password="wrong")
    async with asyncio.timeout(2):
        with pytest.raises(RedisRejected, match="login"):
            await calls_of(redis).ask(increase("a"))


async def test_a_cancelled_call_leaves_nothing_running(cluster: Cluster, service: str) -> None:
    proxies = ClusterProxies(cluster)
    async with proxies.opened() as through:
        calls = calls_of(through)
        names = [f"{service}-{n}" for n in range(100)]
        await calls.run_all([increase(name) for name in names])
        for proxy in proxies.by_port.values():
            proxy.freeze(requests=False)
        asking = asyncio.create_task(calls.run_all([increase(name) for name in names]))
        await wait_until(lambda: len(asyncio.all_tasks()) > 4, "it asks several nodes")
        asking.cancel()
        await asyncio.wait((asking,))
        assert asking.cancelled()
        assert not [task for task in asyncio.all_tasks() if "redis_stream_client" in task.get_name()]


def test_one_loop_after_the_other(cluster: Cluster, service: str) -> None:
    redis = RedisCluster.from_url(cluster.url)
    calls = calls_of(redis)

    async def main() -> list[Any]:
        return await asyncio.gather(*(calls.ask(increase(service)) for _ in range(50)))

    for _ in range(3):
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())
    assert cluster.owner_of(service).command("GET", service) == b"150"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are forks elsewhere")
def test_a_forked_child_leaves_its_parent_s_connections_alone(cluster: Cluster, service: str) -> None:
    calls = calls_of(RedisCluster.from_url(cluster.url))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert runner.run(calls.ask(increase(service))) == [service.encode(), 1]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with asyncio.Runner(loop_factory=loop_factory()) as other:
                    status = int(other.run(calls.ask(increase(service)))[1] != 2)
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended) == 0
        assert runner.run(calls.ask(increase(service))) == [service.encode(), 3]
