"""The health file: when it appears, is renewed and removed, and what it leaves alone."""

from __future__ import annotations

import contextlib
import logging
import resource
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._model.logs import Log
from redis_stream_client._run import health_file
from redis_stream_client._run.answers import Answer
from redis_stream_client._run.health_file import HealthFile
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

READY = Answer(True, "ready")
UNREADY = Answer(False, "not ready: so be it")


class Client:
    """What the file asks: whether the client is live, and whether it is ready."""

    def __init__(self, path: Path, interval: float = 0.01) -> None:
        self.is_live = True
        self.is_ready = READY
        self.asked = 0
        self.path = path
        log = Log(service="orders", consumer="me")
        self.file = HealthFile(path, interval, live=self._live, ready=self._ready, log=log)

    def _live(self) -> Answer:
        self.asked += 1
        return Answer(self.is_live, "")

    def _ready(self) -> Answer:
        return self.is_ready

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        await self.file.open()
        self.file.start()
        try:
            yield
        finally:
            await self.file.close()

    @property
    def time(self) -> int:
        """When the file was renewed."""
        return self.path.stat().st_mtime_ns

    async def says(self, text: str) -> None:
        await wait_until(lambda: self.path.exists() and self.path.read_text() == f"{text}\n", f"it says {text}")

    async def renewed(self) -> None:
        before = self.time
        await wait_until(lambda: self.time > before, "its time is renewed")

    async def looked(self) -> None:
        """Wait until it has certainly seen what has changed."""
        before = self.asked
        await wait_until(lambda: self.asked >= before + 2, "it has asked")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "health")


async def test_it_appears_is_renewed_and_is_removed(client: Client) -> None:
    async with client.run():
        await client.says("ready")
        await client.renewed()
        await client.renewed()
        assert client.path.stat().st_mode & 0o777 == 0o644
    assert list(client.path.parent.iterdir()) == []


async def test_a_client_that_has_joined_and_is_not_ready_has_a_file(client: Client) -> None:
    """A startup probe must not restart it, as in a pause of the fleet."""
    client.is_ready = UNREADY
    async with client.run():
        await client.says("not ready: so be it")
        await client.renewed()
        client.is_ready = READY
        await client.says("ready")


async def test_a_client_that_is_not_ready_says_so_and_stays_live(client: Client) -> None:
    async with client.run():
        await client.says("ready")
        client.is_ready = UNREADY
        await client.says("not ready: so be it")
        await client.renewed()
        client.is_ready = READY
        await client.says("ready")


async def test_a_client_that_is_not_live_lets_it_grow_old(client: Client) -> None:
    async with client.run():
        await client.says("ready")
        client.is_live = False
        await client.looked()
        time = client.time
        await client.looked()
        await client.looked()
        assert client.time == time
        assert client.path.read_text() == "ready\n"


async def test_a_change_is_written_at_once_if_somebody_says_so(tmp_path: Path) -> None:
    client = Client(tmp_path / "health", interval=3600.0)
    async with client.run():
        await client.says("ready")
        client.is_ready = UNREADY
        client.file.look()
        await client.says("not ready: so be it")


@pytest.mark.parametrize("text", ["ready\n", "not ready: draining\n", ""])
async def test_what_a_killed_process_left_behind_is_removed_at_the_start(client: Client, text: str) -> None:
    client.path.write_text(text)
    await client.file.open()
    assert not client.path.exists()
    await client.file.close()


async def test_what_is_no_health_file_is_an_error_and_stays(client: Client, tmp_path: Path) -> None:
    client.path.write_text("ready for launch\n")
    with pytest.raises(FileExistsError, match=r"health_file='.*health': something else lies there"):
        await client.file.open()
    assert client.path.read_text() == "ready for launch\n"
    client.path.unlink()
    client.path.mkdir()
    with pytest.raises(FileExistsError):
        await client.file.open()
    client.path.rmdir()
    target = tmp_path / "target"
    target.write_text("ready\n")
    client.path.symlink_to(target)
    with pytest.raises(FileExistsError):
        await client.file.open()
    assert target.read_text() == "ready\n"
    await client.file.close()
    assert client.path.is_symlink()


async def test_nothing_is_written_through_a_link(client: Client, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    time = target.stat().st_mtime_ns
    async with client.run():
        await client.says("ready")
        client.path.unlink()
        client.path.symlink_to(target)
        await wait_until(lambda: not client.path.is_symlink(), "the link is replaced")
        await client.says("ready")
        await client.renewed()
    assert (target.read_text(), target.stat().st_mtime_ns) == ("precious", time)


async def test_one_that_somebody_removes_comes_back(client: Client) -> None:
    async with client.run():
        await client.says("ready")
        client.path.unlink()
        await client.says("ready")


async def test_the_file_of_another_process_is_not_removed(client: Client) -> None:
    async with client.run():
        await client.says("ready")
        client.is_live = False
        await client.looked()
        client.path.unlink()
        client.path.write_text("ready\n")
    assert client.path.exists()


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    said = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert all(record.__dict__["consumer"] == "me" for record in said)
    return [(record.levelno, record.getMessage()) for record in said]


async def test_a_disk_that_refuses_is_told_of_once_and_once_when_it_is_over(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    folder = client.path.parent / "100%s"
    client = Client(folder / "health")
    async with client.run():
        await client.looked()
        await client.looked()
        folder.mkdir()
        await client.says("ready")
        await wait_until(lambda: len(lines(caplog)) == 2, "it says that it is over")
    [(warning, failed), (info, over)] = lines(caplog)
    assert (warning, info) == (logging.WARNING, logging.INFO)
    assert failed.startswith(f"the health file {client.path} cannot be written, since ")
    assert "No such file or directory" in failed
    assert over.startswith(f"the health file {client.path} is written again, after ")


@contextlib.contextmanager
def full_disk() -> Generator[None]:
    """This process can write to no file, as on a disk that is full; nor can pytest to its log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_on_a_full_disk_the_client_stays_live_and_leaves_no_litter(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.run():
        await client.says("ready")
        with full_disk():
            client.is_ready = UNREADY
            await wait_until(lambda: lines(caplog), "the log says so")
            await client.renewed()
            await client.renewed()
            assert client.path.read_text() == "ready\n"  # nothing else can be written
            client.is_ready = READY
            await client.looked()
    await wait_until(lambda: list(client.path.parent.iterdir()) == [], "nothing is left")
    assert len(lines(caplog)) == 1


async def test_a_disk_that_hangs_holds_nobody_up(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    make, go_on, waiting = tempfile.mkstemp, threading.Event(), []

    def hang(*arguments: Any, **options: Any) -> Any:
        waiting.append(1)
        go_on.wait()
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", hang)
    monkeypatch.setattr(health_file, "PATIENCE", 0.02)
    try:
        async with client.run():
            await wait_until(lambda: lines(caplog), "the log says so")
            before = client.asked
            await wait_until(lambda: client.asked > before + 2, "it tries again")
            go_on.set()
            await client.says("ready")
            await wait_until(lambda: len(lines(caplog)) == 2, "it says that it is over")
            go_on.clear()
            await client.looked()
            client.path.unlink()
            await wait_until(lambda: len(waiting) == 2, "it hangs again")
            await client.looked()
    finally:
        go_on.set()
    assert lines(caplog)[0][1].startswith(f"the health file {client.path} cannot be written, since ")
    assert "Z: the disk does not answer; " in lines(caplog)[0][1]
    assert len(waiting) == 2  # and no thread queued up behind another
    await wait_until(lambda: not list(client.path.parent.iterdir()), "the last thread leaves nothing behind")


async def test_closing_without_a_start(client: Client) -> None:
    await client.file.open()
    await client.file.close()
    await client.file.close()
    assert list(client.path.parent.iterdir()) == []
