"""The log: a handler of the user's that fails ends nothing, and every exception can be shown."""

from __future__ import annotations

import ast
import asyncio
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import redis_stream_client
from redis_stream_client import Lease, testing
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model import logs
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.logs import MINUTE, MOST, Log
from tests.harness.exceptions import ERRORS, Ours
from tests.harness.fleet import Member
from tests.harness.logs import CONSUMER, LOG, SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from tests.harness.servers import Server


class Broken(logging.Handler):
    """A handler that fails on every record with an exception, or on every record at all."""

    def __init__(self, failure: Callable[[], BaseException], always: bool) -> None:
        super().__init__()
        self._failure = failure
        self._always = always
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Fail, as handlers of the user's may."""
        if self._always or record.exc_info:
            raise self._failure()
        self.messages.append(record.getMessage())


@pytest.fixture
def broken() -> Iterator[Callable[..., Broken]]:
    """A function that adds a broken handler to the package's logger for this test."""
    log = logging.getLogger("redis_stream_client")
    added: list[Broken] = []

    def add_broken(failure: Callable[[], BaseException], *, always: bool = False) -> Broken:
        added.append(Broken(failure, always))
        log.addHandler(added[-1])
        return added[-1]

    yield add_broken
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("failure", [ZeroDivisionError, RecursionError, Ours, SystemExit, asyncio.CancelledError])
async def test_a_log_handler_that_fails_costs_its_record_and_nothing_else(
    failure: Callable[[], BaseException],
    broken: Callable[..., Broken],
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = broken(failure)

    async def handle(lease: Lease) -> None:
        raise ValueError("the handler's")

    outcome = await testing.run_handler(handle, testing.lease("call-1"))
    assert outcome.status == "failed"
    assert any("the handler of call-1 failed" in text and "the handler's" in text for text in handler.messages)
    assert f"a log handler failed: {failure.__name__}" in capsys.readouterr().err


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_logged(error: str, caplog: pytest.LogCaptureFixture) -> None:
    raised = ERRORS[error]()
    LOG.error("it failed: %s", "call-1", error=raised)
    [record] = caplog.records
    assert record.getMessage() == "it failed: call-1"
    text = logging.Formatter().format(record)
    assert len(text) < 100_000
    text.encode()


def test_names_that_are_no_text_are_written_so_that_every_handler_can_write_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    LOG.warning(
        "%s has %s: %s (%d)", "x\udcff", Path("\udcff"), ValueError("\udcff é"), 3, extra={"new_owner": "\udcff"}
    )
    [record] = caplog.records
    assert record.getMessage() == r"x\udcff has \udcff: \udcff é (3)"
    assert vars(record)["new_owner"] == r"\udcff"
    LOG.warning("%(who)s: %(seconds).1f s", {"who": "\udcff", "seconds": 2})
    assert caplog.records[-1].getMessage() == r"\udcff: 2.0 s"


# Whose a line is.

PACKAGE = Path(redis_stream_client.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}

WITHOUT_CONSUMER = {"dead_letters.py", "fleet.py", "producer.py"}
"""What works without a consumer: its lines name the service alone."""

MAKERS = {"_consumer/parts.py", "_run/probes.py", "testing/_memory.py"} | WITHOUT_CONSUMER
"""Who may make a log; all others get the one of their consumer. The probes begin before it joins."""


def test_nobody_writes_a_line_but_by_a_log() -> None:
    def uses_logging(tree: ast.AST) -> bool:
        return any(isinstance(node, ast.Import) and node.names[0].name == "logging" for node in ast.walk(tree))

    assert {name for name, tree in MODULES.items() if uses_logging(tree)} == {"_model/logs.py"}


def test_a_log_is_made_once_for_each_consumer_and_names_it() -> None:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Log":
                assert name in MAKERS, f"{name} makes a log of its own: take that of the consumer, by name"
                keywords = {keyword.arg for keyword in node.keywords}
                assert keywords == {"service"} | (set() if name in WITHOUT_CONSUMER else {"consumer"})


LEVELS = ("debug", "info", "warning", "error")


def is_constant(text: ast.expr) -> bool:
    """Whether it is a text, or one of several."""
    match text:
        case ast.Constant(value=str()):
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_constant(body) and is_constant(orelse)
        case _:
            return False


def test_what_changes_in_a_line_is_an_argument_so_that_tools_can_group_lines_and_floods_are_found() -> None:
    lines = [
        (name, node)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS
        if "log" in ast.unparse(node.func.value).rpartition(".")[2]
    ]
    assert len(lines) > 60
    assert [f"{name}:{node.lineno}" for name, node in lines if not is_constant(node.args[0])] == []


def test_a_line_has_the_fields_of_whose_it_is_of_what_it_is_about_and_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = LeaseState("1-0", Announcement("call-1", None), 3)
    LOG.warning("it happened", about=state, extra={"lbs_id": "2-0"})
    [record] = caplog.records
    fields = {
        "service": SERVICE,
        "consumer": CONSUMER,
        "stream": "call-1",
        "lbs_id": "2-0",
        "fence": str(state.fence),
    }
    assert vars(record).items() >= fields.items()
    assert record.filename == Path(__file__).name


def test_a_level_that_is_off_costs_nothing() -> None:
    class Expensive:
        def log_fields(self) -> NoReturn:
            raise AssertionError("nobody reads this line")

        def __str__(self) -> NoReturn:
            raise AssertionError("nobody reads this line")

    logging.getLogger("redis_stream_client").setLevel(logging.ERROR)
    try:
        for write in (LOG.debug, LOG.info, LOG.warning):
            write("it happened: %s", Expensive(), about=Expensive())
    finally:
        logging.getLogger("redis_stream_client").setLevel(logging.NOTSET)


# Floods.


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that lets a minute pass for the log."""
    now = time.monotonic()
    passed = 0.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now + passed))

    def pass_() -> None:
        nonlocal passed
        passed += MINUTE

    return pass_


def test_of_thousands_of_lines_alike_few_are_written_and_the_others_are_counted(
    caplog: pytest.LogCaptureFixture, minute: Callable[[], None]
) -> None:
    log = Log(service=SERVICE, consumer=CONSUMER)
    for number in range(1_000):
        log.error("the handler of %s failed", number, error=ValueError(number))
        log.debug("the handler of %s failed", number)
    log.error("another one")
    assert len(caplog.records) == MOST + 1
    minute()
    log.error("the handler of %s failed", 1_000)
    note, line = caplog.records[-2:]
    assert (vars(note)["left_out"], note.levelno) == (1_000 - MOST, logging.ERROR)
    assert "'the handler of %s failed'" in note.getMessage()
    assert line.getMessage() == "the handler of 1000 failed"
    minute()
    log.error("the handler of %s failed", 1_001)
    assert len(caplog.records) == MOST + 4, "nothing was left out meanwhile"


def test_at_debug_all_lines_are_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    log = Log(service=SERVICE, consumer=CONSUMER)
    for number in range(2 * MOST):
        log.warning("lost %s", number)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * MOST + [logging.DEBUG] * MOST


def test_one_client_does_not_use_up_what_another_may_write(caplog: pytest.LogCaptureFixture) -> None:
    one, other = (Log(service=SERVICE, consumer=f"{name}") for name in ("one", "other"))
    for _ in range(2 * MOST):
        one.warning("lost")
    other.warning("lost")
    assert vars(caplog.records[-1])["consumer"] == "other"


# Several clients.


async def test_two_clients_of_one_process_write_each_its_own_id(
    server: Server, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    async with Member(server.url, service) as one, Member(server.url, service) as other:
        pass
    written = [vars(record) for record in caplog.records if record.name == "redis_stream_client"]
    assert {line["consumer"] for line in written} == {one.client.id, other.client.id}
    joined = [line["consumer"] for line in written if line["msg"].startswith("joined")]
    assert joined == [one.client.id, other.client.id]
