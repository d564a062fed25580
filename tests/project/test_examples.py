"""The programs in examples/, run as a user would run them, and watched from outside."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from examples.sql_guard import Ledger, StaleFence
from redis_stream_client import DeadLetters, Fence, LoadBalancerStream
from redis_stream_client._model.log_fields import table
from tests.harness.documents import ROOT
from tests.harness.programs import START, Program
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALL = "call-17"


class Fleet:
    """The service that the programs work for, seen from outside."""

    def __init__(self, redis: Connection, server: Server, service: str) -> None:
        self.redis = redis
        self.service = service
        self.url = server.url

    def program(self, name: str, **environment: str) -> Program:
        """Make a worker of this service."""
        return Program(
            *("-W", "error", f"examples/{name}"), REDIS_URL=self.url, SERVICE=self.service, **environment
        )

    async def announce(self, stream: str = CALL) -> None:
        """Announce a data stream."""
        await LoadBalancerStream(self.redis, self.service).add(stream)

    async def say(self, *texts: str, stream: str = CALL) -> list[str]:
        """Add entries to a data stream, and return their ids."""
        return [(await self.redis.xadd(stream, {"text": text})).decode() for text in texts]

    async def end(self, stream: str = CALL) -> None:
        """Add the end marker."""
        await self.redis.xadd(stream, {"type": "end"})

    async def owners(self) -> list[bytes]:
        """For whom the announcements are pending that are not finished."""
        pending = await self.redis.xpending_range(f"{self.service}-input", f"{self.service}-group", "-", "+", 100)
        return [entry["consumer"] for entry in pending]

    async def locks(self) -> list[bytes]:
        """The consumer locks that exist."""
        keys: list[bytes] = await self.redis.keys(f"{{{self.service}-input}}:lock:*")
        return keys

    async def checkpoint(self, stream: str = CALL) -> str:
        """The last entry of a data stream that was processed."""
        id: bytes | None = await self.redis.hget(self.progress(stream), "checkpoint")
        return (id or b"").decode()

    def progress(self, stream: str = CALL) -> str:
        """The key of a data stream's record."""
        return f"{{{stream}}}:{self.service}:progress"

    async def checkpointed(self, id: str, stream: str = CALL) -> None:
        """Wait until an entry was processed, and is the last one."""

        async def is_last() -> bool:
            return await self.checkpoint(stream) == id

        await wait_until(is_last, f"{stream} is processed up to {id}", START)

    async def finished(self) -> None:
        """Wait until every announcement is finished."""

        async def empty() -> bool:
            return bool(await self.redis.xlen(f"{self.service}-input") == 0)

        await wait_until(empty, "the load balancer stream is empty", START)


@pytest.fixture
def fleet(redis: Connection, server: Server, service: str) -> Fleet:
    return Fleet(redis, server, service)


# worker.py


def handled(program: Program) -> list[str]:
    """What the worker says that it processed."""
    return [line.partition(" worker: ")[2] for line in program.lines if " worker: " in line]


async def test_a_worker_follows_a_stream_to_its_end(fleet: Fleet) -> None:
    ids = await fleet.say("hello", "how are you", "goodbye")
    await fleet.end()
    await fleet.announce()
    async with fleet.program("worker.py") as worker:
        await fleet.finished()
        assert await fleet.checkpoint() == ids[-1]
        assert await fleet.redis.pttl(fleet.progress()) > 0
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
    said = [f"{CALL}: {{'text': '{text}'}}" for text in ("hello", "how are you", "goodbye")]
    assert handled(worker) == [*said, f"{CALL}: {{'type': 'end'}}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_told_to_leave_hands_its_streams_over(fleet: Fleet, number: signal.Signals) -> None:
    streams = ["call-1", "call-2"]
    for stream in streams:
        [id] = await fleet.say("hello", stream=stream)
        await fleet.announce(stream)
    async with fleet.program("worker.py") as first:
        for stream in streams:
            [id] = await fleet.say("how are you", stream=stream)
            await fleet.checkpointed(id, stream)
        first.send(number)
        assert await first.exit_code() == 0
    assert await fleet.owners() == [b"nobody", b"nobody"]
    assert await fleet.locks() == []
    for stream in streams:
        await fleet.end(stream)
    async with fleet.program("worker.py") as second:
        await fleet.finished()
        await second.kill()
    assert sorted(handled(second)) == [f"{stream}: {{'type': 'end'}}" for stream in streams]


async def test_a_worker_buries_what_is_no_text_and_goes_on_with_the_rest(fleet: Fleet) -> None:
    await fleet.redis.xadd(CALL, {"text": b"\xff"})
    await fleet.announce()
    await fleet.end("call-18")
    await fleet.announce("call-18")
    async with fleet.program("worker.py") as worker:
        await fleet.finished()
        await worker.printed(rf"goes to the dead letters: .* field b'text' of entry [0-9-]+ of '{CALL}'")
    [letter] = [letter async for letter in DeadLetters(fleet.redis, fleet.service)]
    assert (letter.stream, letter.error_type, letter.position) == (CALL, "UnicodeDecodeError", None)


@pytest.mark.parametrize("name", ["worker.py", "sql_guard.py"])
async def test_the_commands_of_the_readme_give_a_worker_something_to_do(
    fleet: Fleet, tmp_path: Path, name: str
) -> None:
    commands = re.findall(r"^\$ redis-cli (.+)$", (ROOT / "examples/README.md").read_text(), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        await fleet.redis.execute_command(*shlex.split(command.replace("orders-", f"{fleet.service}-")))
    async with fleet.program(name, DATABASE=str(tmp_path / "effects.db")):
        await fleet.finished()
    assert await fleet.checkpoint() != ""


def test_the_readme_knows_every_program() -> None:
    links = re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples/README.md").read_text())
    assert sorted(links) == sorted(path.name for path in (ROOT / "examples").glob("[!_]*.py"))


# logging_structlog.py


def logged(program: Program) -> list[dict[str, Any]]:
    """What the worker has logged: nothing but JSON."""
    return [json.loads(line) for line in program.lines]


async def test_structlog_renders_all_fields_as_json(fleet: Fleet) -> None:
    await fleet.say("hello")
    await fleet.end()
    await fleet.announce()
    await fleet.redis.xadd("call-18", {"text": b"\xff"})
    await fleet.announce("call-18")
    async with fleet.program("logging_structlog.py") as worker:
        await worker.printed("the handler of call-18 failed")
        await wait_until(lambda: any("end" in line for line in worker.lines), "call-17 is processed")
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
    lines = logged(worker)
    ours = [line for line in lines if line["logger"] == "redis_stream_client"]
    known = {"timestamp", "level", "event", "logger", "exception", *(field.name for field in table())}
    assert set[str]().union(*ours) <= known, "only the fields of the table"
    assert {line["service"] for line in ours} == {fleet.service}
    [consumer] = {line["consumer"] for line in ours}
    assert consumer.startswith("redis-consumer-")
    [failure] = [line for line in ours if line["event"].startswith("the handler of call-18 failed")]
    assert failure["level"] == "error"
    assert (failure["stream"], Fence.parse(failure["fence"]).lbs_id) == ("call-18", failure["lbs_id"])
    assert failure["error"].startswith("UnicodeDecodeError: ")
    assert failure["exception"][0]["exc_type"] == "UnicodeDecodeError"
    [processed, end] = [line for line in lines if line["logger"] == "worker"]
    assert (processed["stream"], processed["text"], end["type"]) == (CALL, "hello", "end")


# observability/


async def scrape(program: Program) -> str:
    """What Prometheus would get from a program that says where that is."""
    url = (await program.printed(r"metrics at (http://\S+)"))[1]
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).text


async def test_a_worker_and_its_fleet_are_measured(fleet: Fleet) -> None:
    label = f'redis_stream_client_service="{fleet.service}"'
    watch = fleet.program("observability/watch.py", METRICS_PORT="0", SERVICES=fleet.service)
    async with watch, fleet.program("observability/worker.py", METRICS_PORT="0", SPANS="1") as worker:
        await fleet.say("hello")
        await fleet.announce()
        await worker.printed("call-17: .*hello")

        async def counted() -> bool:
            return bool(
                re.search(rf"redis_stream_client_checkpoints_total{{.*{label}}} 1.0", await scrape(worker))
            )

        await wait_until(counted, "the worker says what it has done", START)
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
        spans = "\n".join(worker.lines)
        assert f'"name": "process {fleet.service}"' in spans
        assert f'"name": "handle {fleet.service}"' in spans

        async def seen() -> bool:
            return bool(re.search(rf"redis_stream_client_fleet_up{{.*{label}}} 1.0", await scrape(watch)))

        await wait_until(seen, "the fleet was looked at", START)


# sql_guard.py


class Guarded:
    """Workers of sql_guard.py on one database."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._path = folder / "effects.db"

    def worker(self) -> Program:
        """Make a worker that is soon missed."""
        return self._fleet.program("sql_guard.py", DATABASE=str(self._path), LOCK_TTL="0.5")

    def effects(self) -> list[tuple[str, str, str]]:
        """Everything that took effect, in the order in which it did: entry id, effect, fence."""
        return self._query("SELECT entry_id, effect, fence FROM effects ORDER BY rowid")

    def _query(self, statement: str) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path)) as database:
            try:
                return database.execute(statement).fetchall()
            except sqlite3.OperationalError:  # the tables are not there yet
                return []


@pytest.fixture
def guarded(fleet: Fleet, tmp_path: Path) -> Guarded:
    return Guarded(fleet, tmp_path)


def assert_once_and_in_order(guarded: Guarded, ids: list[str], texts: list[str]) -> None:
    effects = guarded.effects()
    assert [id for id, _, _ in effects] == ids
    assert [effect for _, effect, _ in effects] == [text.upper() for text in texts]
    fences = [fence for _, _, fence in effects]
    assert fences == sorted(fences)


async def test_every_entry_takes_effect_once_though_workers_are_killed(fleet: Fleet, guarded: Guarded) -> None:
    texts: list[str] = []
    ids: list[str] = []
    await fleet.announce()
    for owner in ("first", "second", "third"):
        before = len(guarded.effects())
        texts += (more := [f"{owner} {number}" for number in range(100)])
        ids += await fleet.say(*more)
        async with guarded.worker() as worker:
            await wait_until(lambda: len(guarded.effects()) > before, f"an effect by the {owner}", START)
            await worker.kill()
    texts.append("the last one")
    ids += await fleet.say(texts[-1])
    await fleet.end()
    async with guarded.worker():
        await fleet.finished()
    assert_once_and_in_order(guarded, ids, texts)
    assert len({fence for _, _, fence in guarded.effects()}) >= 4


async def test_a_frozen_worker_that_wakes_changes_nothing(fleet: Fleet, guarded: Guarded) -> None:
    texts = ["before"]
    ids = await fleet.say(*texts)
    await fleet.announce()
    async with guarded.worker() as frozen:
        await fleet.checkpointed(ids[-1])
        frozen.send(signal.SIGSTOP)  # between two entries: a frozen transaction would lock SQLite's one file
        texts += ["during", "after"]
        ids += await fleet.say("during")
        async with guarded.worker():
            await fleet.checkpointed(ids[-1])
            frozen.send(signal.SIGCONT)
            await frozen.printed(f"lost {CALL}")
            ids += await fleet.say("after")
            await fleet.end()
            await fleet.finished()
        frozen.send(signal.SIGTERM)
        assert await frozen.exit_code() == 0
    assert_once_and_in_order(guarded, ids, texts)
    before, during, after = (fence for _, _, fence in guarded.effects())
    assert before < during <= after


async def test_entries_that_are_read_again_have_no_second_effect(fleet: Fleet, guarded: Guarded) -> None:
    texts = ["one", "two", "three"]
    ids = await fleet.say(*texts)
    await fleet.announce()
    async with guarded.worker() as first:
        await fleet.checkpointed(ids[-1])
        first.send(signal.SIGTERM)
        assert await first.exit_code() == 0
    await fleet.redis.delete(fleet.progress())  # as if its owner had died before any checkpoint
    texts.append("four")
    ids += await fleet.say("four")
    await fleet.end()
    async with guarded.worker():
        await fleet.finished()
    assert_once_and_in_order(guarded, ids, texts)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "effects.db")


def stored(path: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        tables = ("SELECT * FROM streams", "SELECT * FROM effects")
        return [row for statement in tables for row in database.execute(statement).fetchall()]


def test_a_stale_fence_writes_nothing(path: str) -> None:
    ledger = Ledger(path)
    older, newer = Fence.of("5-0", 9), Fence.of("5-0", 10)
    assert ledger.begin(CALL, older) is None
    ledger.write(CALL, older, "1-1", "one")
    assert ledger.begin(CALL, newer) == "1-1"
    before = stored(path)
    with pytest.raises(StaleFence):
        ledger.write(CALL, older, "1-2", "two, by a zombie")
    with pytest.raises(StaleFence):
        ledger.begin(CALL, older)
    assert stored(path) == before
    ledger.write(CALL, newer, "1-2", "two")
    assert stored(path) == [
        (CALL, str(newer), "1-2"),
        (CALL, "1-1", "one", str(older)),
        (CALL, "1-2", "two", str(newer)),
    ]


def test_an_effect_that_fails_leaves_the_position(path: str) -> None:
    ledger = Ledger(path)
    fence = Fence.of("5-0", 1)
    ledger.begin(CALL, fence)
    ledger.write(CALL, fence, "1-1", "one")
    ledger.write(CALL, fence, "1-2", "two")
    before = stored(path)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.write(CALL, fence, "1-1", "one once more")
    assert stored(path) == before


def test_the_streams_of_one_database_have_fences_of_their_own(path: str) -> None:
    ledger = Ledger(path)
    ledger.begin("call-1", Fence.of("9-0", 1))
    assert Ledger(path).begin("call-2", Fence.of("5-0", 1)) is None
    ledger.write("call-2", Fence.of("5-0", 1), "1-1", "one")


# web.py


@asynccontextmanager
async def web(
    url: str, service: str, idle: float = 600.0
) -> AsyncGenerator[tuple[Program, httpx.AsyncClient], None]:
    """Run the application, on a port that the system chooses."""
    arguments = ("-m", "uvicorn", "examples.web:app", "--port", "0")
    async with Program(*arguments, REDIS_URL=url, SERVICE=service, IDLE=str(idle)) as program:
        address = await program.printed(r"running on (http://\S+)")
        async with httpx.AsyncClient(base_url=address[1], trust_env=False) as http:
            yield program, http


async def answered(http: httpx.AsyncClient, said: dict[str, str]) -> None:
    """Wait for these answers, by ids of entries, and no others."""

    async def are_these() -> bool:
        return bool((await http.get("/chats/17")).json() == said)

    await wait_until(are_these, f"answered: {said}", START)


def stops(code: int) -> bool:
    """Whether a server has ended in good order: uvicorn passes the signal on to itself in the end."""
    return code in (0, -signal.SIGTERM)


async def say(http: httpx.AsyncClient, *texts: str) -> dict[str, str]:
    """Say all of this at once. Returns the answers to expect, by the ids of the entries."""
    replies = await asyncio.gather(*(http.post("/chats/17", json={"text": text}) for text in texts))
    assert {reply.status_code for reply in replies} == {202}
    return {reply.json()["id"]: text.upper() for reply, text in zip(replies, texts, strict=True)}


async def test_a_chat_is_answered_and_stays_awake(fleet: Fleet) -> None:
    async with web(fleet.url, fleet.service) as (program, http):
        assert (await http.get("/health")).json() == {"awake": 0}
        assert (await http.get("/chats/17")).status_code == 404
        said = await say(http, "hello")
        await answered(http, said)
        assert (await http.get("/health")).json() == {"awake": 1}
        await answered(http, said | await say(http, "how are you"))
        assert await fleet.redis.xlen(f"{fleet.service}-input") == 1
        assert (await http.post("/chats/{17", json={"text": "no name"})).status_code == 422
        program.send(signal.SIGTERM)
        assert stops(await program.exit_code())
        assert await fleet.locks() == []


async def test_a_chat_falls_asleep_and_any_server_wakes_it(fleet: Fleet) -> None:
    async with web(fleet.url, fleet.service, idle=0.2) as (_, one):
        said = await say(one, "hello", "hi", "anybody there")  # one owner, however many requests begin it
        await answered(one, said)
        await fleet.finished()
        assert (await one.get("/health")).json() == {"awake": 0}
    async with web(fleet.url, fleet.service, idle=0.2) as (_, other):
        await answered(other, said | await say(other, "good morning"))
        await fleet.finished()


async def test_a_server_that_stops_hands_its_chats_over(fleet: Fleet) -> None:
    async with web(fleet.url, fleet.service) as (program, http):
        said = await say(http, "hello")
        await answered(http, said)
        program.send(signal.SIGTERM)
        assert stops(await program.exit_code())
    assert await fleet.owners() == [b"nobody"]
    assert await fleet.locks() == []
    async with web(fleet.url, fleet.service) as (_, http):
        await answered(http, said | await say(http, "goodbye"))


async def test_a_server_without_redis_is_not_ready_and_not_restarted(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with web(server.url, service) as (_, http):
        await wait_until(health_is(http, 200), "ready", START)
        server.freeze()
        await wait_until(health_is(http, 503), "not ready", START)
        server.thaw()
        await wait_until(health_is(http, 200), "ready again", START)


async def test_a_server_that_redis_refuses_for_good_ends(fleet: Fleet) -> None:
    async with web(fleet.url, fleet.service) as (program, http):
        await wait_until(health_is(http, 200), "ready", START)
        await fleet.redis.set(f"{fleet.service}-input", "not a stream")
        assert await program.exit_code() != 0
        await program.printed("RedisRejected")


def health_is(http: httpx.AsyncClient, status: int) -> Callable[[], Awaitable[bool]]:
    async def is_it() -> bool:
        return (await http.get("/health")).status_code == status

    return is_it
