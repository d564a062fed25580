"""A client and forks: who joins is a consumer of its own, and a copy of a joined client touches nothing."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed, Lease, RedisStreamClient
from redis_stream_client._model.keys import Keys
from tests.harness.loops import loop_factory
from tests.harness.runs import Running, add, idle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PROGRAM = """
import asyncio, gc, json, multiprocessing, os, signal, sys, threading, time, warnings
from redis_stream_client import RedisStreamClient
url, service = sys.argv[1:]
warnings.simplefilter("error")

def child(work):
    '''What `work` returns in a forked child, or the error that it raises; and the child's exit code.'''
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = work()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = json.loads(pipe.read())
    return told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def idle(lease):
    async for _ in lease.entries():
        pass

async def joined(client):
    async with client:
        return client.id, os.getpid()

client = RedisStreamClient.from_url(url, service, consumer_name="web")
"""


async def program(server: Server, service: str, text: str, first: str = "") -> Any:
    """Run a program, which begins with `first`, before all imports; what it prints at last, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", first + PROGRAM + text, server.url, service),
        stdout=-1,
        stderr=-1,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(20):
            out, err = await process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with its children, which would keep the pipes open
        await process.wait()
        raise
    assert process.returncode == 0, err.decode()
    assert not err, err.decode()
    return json.loads(out.decode().splitlines()[-1])


async def test_two_processes_that_were_forked_from_one_client_are_two_consumers(
    server: Server, redis: Connection, service: str
) -> None:
    here, children = await program(
        server,
        service,
        """
before = client.id
assert client.id == before
children = [child(lambda: asyncio.run(joined(client)))[0] for _ in range(2)]
assert client.id == before
print(json.dumps([asyncio.run(joined(client)), children]))
""",
    )
    ids = [here[0], *(id for id, _ in children)]
    assert len(set(ids)) == 3
    assert len({pid for _, pid in [here, *children]}) == 3
    assert all(id.startswith("redis-consumer-web-") for id in ids)
    assert {c["name"].decode() for c in await redis.xinfo_consumers(Keys(service).lbs, Keys(service).group)} >= {
        *ids
    }


async def test_multiprocessing_forks_are_consumers_of_their_own(server: Server, service: str) -> None:
    ids = await program(
        server,
        service,
        """
def work(queue):
    queue.put(asyncio.run(joined(client))[0])

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
workers = [context.Process(target=work, args=(queue,)) for _ in range(2)]
for worker in workers:
    worker.start()
ids = [queue.get() for _ in workers]
for worker in workers:
    worker.join()
print(json.dumps([client.id, *ids]))
""",
    )
    assert len(set(ids)) == 3


async def test_a_copy_of_a_joined_client_says_what_to_do_and_touches_nothing(
    server: Server, redis: Connection, service: str
) -> None:
    told = await program(
        server,
        service,
        """
told = {}

def use(what):
    async def used():
        await what()
    return lambda: asyncio.run(used())

def forget():
    global client
    async def collect():
        global client, lease
        events = lease = client = None
        gc.collect()
        await asyncio.sleep(0.05)
        gc.collect()
    asyncio.run(collect())

def state():
    return [client.alive, len(client.leases), lease.owned, client.id]

async def main():
    global lease
    async with client:
        told["id"] = client.id
        while not client.leases:
            await anext(client.events())
        lease = next(iter(client.leases.values()))
        for name, what in {
            "enter": lambda: client.__aenter__(),
            "run": lambda: client.run(idle),
            "events": lambda: anext(client.events()),
            "done": lambda: client.done(),
            "lease.done": lambda: lease.done(),
            "checkpoint": lambda: lease.checkpoint("1-0"),
            "release": lambda: lease.release(),
            "aclose": lambda: client.aclose(),
        }.items():
            told[name] = child(use(what))
        told["state"] = child(state)
        told["forget"] = child(forget)
        await asyncio.sleep(2.5)  # longer than the lock lives
        assert client.alive
        assert lease.owned
        await lease.checkpoint("1-0")
        told["lapses"] = client.statistics().lapses
        told["reconnects"] = client.statistics().reconnects

import redis as sync
from redis_stream_client import LoadBalancerStream
from redis.asyncio import Redis
async def announce():
    async with Redis.from_url(url) as r:
        await LoadBalancerStream(r, service).add("call-1")
asyncio.run(announce())
asyncio.run(main())
print(json.dumps(told))
""",
    )
    for name in ("enter", "run", "events", "done", "lease.done", "checkpoint", "release"):
        said, code = told[name]
        assert said.startswith("RuntimeError: this client joined in process"), (name, said)
        assert "make a new RedisStreamClient" in said
        assert code == 0
    assert told["aclose"] == [None, 0]
    assert told["forget"] == [None, 0]
    assert told["state"] == [[False, 0, False, told["id"]], 0]
    assert told["lapses"] == told["reconnects"] == 0


AT_BIRTH = """
import os, signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
"""


@pytest.mark.parametrize("first", ["", AT_BIRTH], ids=["later", "at birth"])
async def test_a_child_that_is_terminated_does_not_drain_its_parent(
    server: Server, service: str, first: str
) -> None:
    told = await program(
        server,
        service,
        """
async def main():
    running = asyncio.create_task(client.run(idle, handle_signals=True))
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        await asyncio.sleep(0.01)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    worker.terminate()
    await asyncio.to_thread(worker.join)
    await asyncio.sleep(0.2)
    told = [worker.exitcode, running.done()]
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    return told
print(json.dumps(asyncio.run(main())))
""",
        first,
    )
    assert told == [-15, False]


# Other copies, and other loops.


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_client_is_not_copied(server: Server, service: str, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="belongs to its process"):
        duplicate(RedisStreamClient.from_url(server.url, service))


async def test_a_client_that_is_used_on_another_loop_says_so_and_goes_on(
    server: Server, redis: Connection, service: str
) -> None:
    leases: list[Lease] = []

    async def handle(lease: Lease) -> None:
        leases.append(lease)
        await idle(lease)

    raised: list[BaseException] = []

    def elsewhere(client: RedisStreamClient) -> None:
        async def use() -> None:
            for call in (
                lambda: client.__aenter__(),
                lambda: client.run(idle),
                lambda: anext(client.events()),
                lambda: client.aclose(),
                lambda: leases[0].done(),
                lambda: leases[0].release(),
                lambda: leases[0].checkpoint("1-0"),
            ):
                try:
                    async with asyncio.timeout(5):
                        await call()
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                    raised.append(error)

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(use())

    async with Running(server.url, service, handle, lock_ttl=1.0) as run:
        await add(redis, service, ["call-1"])
        await run.handles("call-1")
        thread = threading.Thread(target=elsewhere, args=(run.client,))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert run.client.alive
        await run.handles("call-1")
    assert len(raised) == 7
    for error in raised:
        assert isinstance(error, RuntimeError)
        assert "another event loop" in str(error)


def test_a_client_whose_loop_has_ended_is_closed(server: Server, service: str) -> None:
    client = RedisStreamClient.from_url(server.url, service)

    async def join() -> None:
        await client.__aenter__()
        assert client.alive

    async def again() -> None:
        await client.aclose()
        for use in (client.__aenter__, lambda: client.run(idle), client.done):
            with pytest.raises(ClientClosed):
                await use()

    for work in (join, again):
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(work())
