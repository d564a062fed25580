"""Test your own handlers without Redis, under the rules of `run()`.

``lease()`` makes a real `Lease` of a data stream that lives in memory. ``controller()`` does to it what happens to
leases in production. ``run_handler()`` runs a handler as ``client.run()`` does, and returns how that ended::

    async def test_a_summary_goes_on_where_the_last_owner_stopped() -> None:
        call = testing.lease("call-17", entries=[{"text": "hello"}, {"text": "bye"}], position="1-0")
        outcome = await testing.run_handler(summarise, call)
        assert outcome.status == "done"
        assert outcome.position == "2-0"

    async def test_a_summary_is_not_written_after_the_stream_was_lost() -> None:
        call = testing.lease("call-17", entries=[{"text": "hello"}])
        running = asyncio.create_task(testing.run_handler(summarise, call))
        await testing.wait_until(lambda: testing.controller(call).checkpoints, "the first entry is processed")
        testing.controller(call).lose()
        assert (await running).status == "lost"
        assert "call-17" not in summaries

This module works with every test framework. It leaves out the pauses that `run()` makes. ``expire()`` is for tests
with a real Redis.
"""

import asyncio
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar, get_args, overload

import anyio
from redis.asyncio import Redis, RedisCluster

from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model import announcement, leaving, options, retention, retry_policy
from redis_stream_client._model import observer as observers
from redis_stream_client._model.announcement import Info
from redis_stream_client._model.entry import Entry, order, require_id
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._model.observer import Observer, SafeObserver
from redis_stream_client._model.public_names import claim_exports
from redis_stream_client._model.retention import OnDone
from redis_stream_client._model.retry_policy import NOT_GIVEN, NotGiven, RetryPolicy
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._run.handler import Handler, require_handler
from redis_stream_client._run.handler_task import Alone, HandlerTask, Strict
from redis_stream_client._run.outcome import Outcome, Rules, Status
from redis_stream_client._run.watchdogs import start_watches
from redis_stream_client.testing._memory import CONSUMER, Fields, Memory, MemoryLease, Record

__all__ = [
    "Controller",
    "Entry",
    "Outcome",
    "Status",
    "controller",
    "expire",
    "lease",
    "run_handler",
    "wait_until",
]

T = TypeVar("T")

Loss = Literal["expired", "claimed", "gone", "superseded", "closed"]
"""Why a lease is lost, other than by its holder's own call. See `LossReason`."""

POLL = 0.005

_announcements = itertools.count(1)


# Without Redis.


def lease(
    stream: str,
    *,
    info: Info | None = None,
    entries: Iterable[Entry | Fields] = (),
    position: str | None = None,
    attempts: int | None = None,
    failures: int | None = None,
    deaths: int = 0,
    failing_for: float | None = None,
) -> Lease:
    """Make a lease of a data stream that lives in memory. It stays owned until the test says otherwise.

    It is a `Lease` like any other: give it to `run_handler`, or use it with ``async with``. Its fence is greater
    than that of every lease made before. You need no event loop to make it.

    Args:
        stream: name of the data stream.
        info: what the producer announced: a mapping that can be encoded as JSON.
        entries: what is in the stream. An `Entry` keeps its id. A mapping of names to values gets the next of the
            ids ``1-0``, ``2-0``, …; its names and values are encoded as redis-py does it.
        position: the checkpoint that an earlier owner has left; ``lease.entries()`` begins after it.
        attempts: what ``lease.attempts`` says: how many owners have tried, this one included, since one got on;
            default: one more than `failures` and `deaths` say. Given alone: all before this one have failed.
        failures: how often the handlers of earlier owners failed, since one got on.
        deaths: how many earlier owners died, since one got on.
        failing_for: for how many seconds that has been so; default 0.

    Raises:
        TypeError, ValueError: such a lease can never come from Redis or `run()`.
    """
    payload = announcement.encode(stream, info)
    if position is not None:
        position = require_id(position)
    deaths = _count(deaths, "deaths")
    if attempts is None:
        attempts = 1 + deaths + (_count(failures, "failures") if failures is not None else 0)
    options.count(attempts, "attempts")
    failures = _count(failures, "failures") if failures is not None else max(0, attempts - 1 - deaths)
    if attempts != 1 + failures + deaths:
        raise ValueError(f"attempts must be 1 + failures + deaths = {1 + failures + deaths}, not {attempts}")
    since = options.seconds(failing_for, "failing_for", at_least=0.0) if failing_for is not None else 0.0
    if failing_for is not None and attempts == 1:
        raise ValueError("failing_for needs failures or deaths")
    record = None
    if position is not None or attempts > 1:
        trouble = Trouble.found(failures, since, "") if attempts > 1 else None
        record = Record(position, deaths, trouble)
    memory = Memory(stream, record)
    memory.stream.add(entries)
    if position is not None:
        memory.stream.last = max(memory.stream.last, position, key=order)
    announced = announcement.decode((announcement.FIELD.encode(), payload))
    return MemoryLease(f"{next(_announcements)}-0", announced, attempts, deaths, memory)


def _count(value: object, parameter: str) -> int:
    """Check a number of at least 0. Raises ``TypeError`` or ``ValueError``."""
    if type(value) is int and value < 1:
        if value < 0:
            raise ValueError(f"{parameter} must be at least 0, not {value}")
        return 0
    return options.count(value, parameter)


def controller(lease: Lease) -> "Controller":
    """The controller of a lease that `lease()` made.

    Raises:
        TypeError: the argument is not a lease.
        ValueError: it is the lease of a client.
    """
    return Controller(lease)


class Controller:
    """Does to a lease what happens to leases in production, and shows which of its calls were accepted.

    Call its methods on the event loop on which the lease is used. They take effect at once.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = _in_memory(lease)
        self._memory = self._lease.memory

    # What happens.

    def feed(self, *entries: Entry | Fields) -> list[str]:
        """Add entries to the data stream, as a producer does, and wake whoever waits for them.

        Args:
            entries: as for `lease()`. New ids go on after the greatest so far.

        Returns:
            The ids of the entries.

        Raises:
            TypeError, ValueError: Redis would not accept one of the entries; nothing was added.
        """
        return self._memory.stream.add(entries)

    def lose(self, reason: Loss = "claimed") -> None:
        """Let the lease be lost, by default to a peer.

        The block or handler is cancelled, and every later call on the lease raises `NotOwner`. Does nothing to a
        lease that has ended.

        Raises:
            ValueError: leases are never lost for this reason.
        """
        if reason not in get_args(Loss):
            raise ValueError(f"reason must be one of {', '.join(get_args(Loss))}, not {reason!r}")
        self._memory.end(self._lease.state, reason)

    def drain(self) -> None:
        """Do what ``client.drain()`` does.

        The handler is cancelled at its first step of ``entries()`` or ``batches()`` after a checkpoint, or when
        `drain_timeout` is over. A handler that has not begun yet is never called. Only for a lease that
        `run_handler` works on, now or later.
        """
        self._memory.drain()

    def refuse_checkpoint(self) -> None:
        """Let a newer owner begin, without this one noticing, as after a freeze.

        The lease still looks owned. The next checkpoint or ``done()`` raises `NotOwner`, and the lease is lost.
        """
        self._memory.overtake()

    def unavailable(self) -> AbstractContextManager[None]:
        """Let Redis not answer in the ``with`` block, while the lock is still held: a partial or short outage.

        Checkpoints, ``done()``, ``release()`` and the first step of ``entries()`` raise `RedisUnavailable` at
        once, where a client waits for `lock_ttl` first, and nothing is stored. Later steps of ``entries()`` wait
        for the end of the outage. `run_handler` repeats what `run()` repeats.
        """
        return self._memory.outage()

    def in_doubt(self) -> AbstractContextManager[None]:
        """Let the lock be in doubt in the ``with`` block, as if the event loop had stood still for `lock_ttl`.

        ``lease.owned`` is false, and every call on the lease waits. After the block the lease is owned as before,
        unless you called `lose` meanwhile.
        """
        return self._memory.doubt()

    # What was accepted.

    @property
    def position(self) -> str | None:
        """The stored checkpoint. The ``entries()`` of the next owner begin after it."""
        return self._memory.record.checkpoint if self._memory.record is not None else None

    @property
    def attempts(self) -> int:
        """The attempts that are stored: the next owner's ``lease.attempts`` is one more."""
        record = self._memory.record
        if record is None:
            return 0
        return record.attempts + (record.trouble.failures if record.trouble is not None else 0)

    @property
    def checkpoints(self) -> Sequence[str]:
        """The ids of all accepted checkpoints, in order, even of those that came late and moved nothing."""
        return tuple(self._memory.checkpoints)

    @property
    def done(self) -> bool:
        """Whether the stream is finished, and its announcement deleted."""
        return self._memory.done

    @property
    def released(self) -> bool:
        """Whether the stream was given back, for a peer to take over."""
        return self._memory.released

    @property
    def dead(self) -> str | None:
        """Why the stream went to the dead letters; None if it did not."""
        return self._memory.dead

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries that are in the data stream now."""
        return tuple(self._memory.stream.entries)

    @property
    def deleted(self) -> bool:
        """Whether the data stream and its progress record were deleted, with ``on_done="delete"``."""
        return self._memory.deleted

    def __repr__(self) -> str:
        return f"<Controller of {self._lease!r} position={self.position} attempts={self.attempts}>"


async def run_handler(
    handler: Handler,
    lease: Lease,
    *,
    retry: RetryPolicy | None = None,
    max_attempts: int | NotGiven | None = NOT_GIVEN,
    progress_timeout: float | None = None,
    drain_timeout: float = 1.0,
    patience: float = 0.5,
    on_done: OnDone = "keep",
    observer: Observer | None = None,
) -> Outcome:
    """Give a lease to a handler with the code of ``client.run()``, and return how that ended.

    Whatever the handler raises is the ``error`` of the outcome, and is not raised. The call returns when the
    handler has ended, even where `run()` would go on without a handler that ignores its cancellation. If the call
    is cancelled, the handler is cancelled, and the stream released, as in `run()`.

    Args:
        handler: any async callable that takes a `Lease`.
        lease: made by `lease()`, and not used before.
        retry: as for `run()`. How long the stream has been failing is what the lease was made with, and goes on
            from there.
        max_attempts: as for `run()`.
        progress_timeout: as for `run()`, in seconds; default: never.
        drain_timeout: seconds that ``controller(lease).drain()`` gives the handler to reach a checkpoint;
            default 1.
        patience: seconds after which a cancelled handler that goes on loses its stream; in a client this is
            `lock_ttl`, at most 2, here the default is 0.5.
        on_done: as for `run()`, before the call returns: ``controller(lease).entries`` shows what is left.
        observer: as for a client. It is told of the handler, its checkpoints and failures, and of a dead letter;
            not of owners, since there is no fleet.

    Raises:
        TypeError, ValueError: an argument is not allowed, or it is the lease of a client: use `run()` for it.
        RuntimeError: the lease was entered before.
    """
    lease = _in_memory(lease)
    memory = lease.memory
    if progress_timeout is not None:
        progress_timeout = options.seconds(progress_timeout, "progress_timeout", at_least=0.01)
    drain_timeout = options.seconds(drain_timeout, "drain_timeout", at_least=0.0)
    rules = Rules(
        retry_policy.policy(retry, max_attempts),
        progress_timeout,
        options.seconds(patience, "patience", at_least=0.0),
        rests=False,
        on_done=on_done,
    )
    retention.check(on_done, trim=False)
    lease.state.on_done = on_done
    checked = observers.check(observer)
    observation = Observation(SafeObserver(checked, memory.log), CONSUMER) if checked is not None else None
    memory.observation = observation
    handler_task = HandlerTask(lease.state, lease, memory, require_handler(handler), rules, Strict(), Alone(rules))
    timers: list[asyncio.TimerHandle] = []

    def drain() -> None:
        handler_task.drain()
        timers.append(asyncio.get_running_loop().call_later(drain_timeout, handler_task.stop, "drained"))

    working = start_task(handler_task.run(), f"handler of {lease.stream}")
    watches = start_watches((handler_task,), rules, memory.acquit)
    try:
        with memory.drained_by(drain):
            await asyncio.wait((working,))
    except asyncio.CancelledError:
        await _cut_short(handler_task, working, memory)
        raise
    finally:
        for watch in watches:
            watch.cancel()
        for timer in timers:
            timer.cancel()
    outcome = working.result()
    if observation is not None:
        observation.handler_ended(lease.state, outcome.status, outcome.error)
    return outcome


async def _cut_short(handler_task: HandlerTask, working: "asyncio.Task[Outcome]", memory: Memory) -> None:
    """Release at once; a handler that does not end in time goes on without its stream."""
    working.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    handler_task.stop("drained")
    with anyio.move_on_after(leaving.HANDLERS, shield=True):
        await asyncio.wait((working,))
    if not working.done():
        lease = handler_task.lease
        memory.log.warning(
            "the handler of %s ignores its cancellation and goes on after the end of run()",
            lease.stream,
            about=lease,
        )
        if lease.lost is None:
            memory.start_release(lease)


def _in_memory(lease: Any) -> MemoryLease:
    if not isinstance(lease, Lease):
        raise TypeError(
            f"a lease is needed, made by redis_stream_client.testing.lease(), not {type(lease).__name__}"
        )
    if not isinstance(lease, MemoryLease):
        raise ValueError(
            f"{lease!r} belongs to a client: only a lease made by redis_stream_client.testing.lease() can be "
            "controlled, or given to run_handler()"
        )
    return lease


# With and without.


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T | None]], description: str, timeout: float = 10.0
) -> T: ...


@overload
async def wait_until(condition: Callable[[], T | None], description: str, timeout: float = 10.0) -> T: ...


async def wait_until(condition: Callable[[], Any], description: str, timeout: float = 10.0) -> Any:
    """Call the condition every few milliseconds until its value is true, and return that value.

    Args:
        condition: a plain function, or one that returns an awaitable.
        description: what you wait for; it is part of the error message.
        timeout: seconds to wait; after them the condition is called one last time.

    Raises:
        AssertionError: the condition has not come true in time. The message has the description and the last
            value.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        late = loop.time() >= deadline
        value = condition()
        result = await value if inspect.isawaitable(value) else value
        if result:
            return result
        if late:
            raise AssertionError(f"not within {timeout:g} s: {description} (last value: {result!r})")
        await asyncio.sleep(POLL)


# With Redis.


async def expire(redis: Redis | RedisCluster, service: str, consumer_id: str) -> None:
    """Let the lock of a consumer expire now, as if it had not been renewed in time. Returns when the lock is gone.

    The peers are notified, and its streams are offered to them. If the consumer is alive, it takes its lock back
    with its next beat, after at most `heartbeat_interval` seconds. It keeps the streams that nobody has taken by
    then, and loses the others.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster`` of the server that the fleet uses.
        service: name of the service.
        consumer_id: the id of the consumer, ``client.id``.

    Raises:
        TypeError, ValueError: an argument is not allowed.
        LookupError: the consumer holds no lock.
        RedisUnavailable: no answer; the lock may be gone, and you can safely repeat the call.
        RedisRejected: Redis refuses.
    """
    keys = Keys(require_name(service, "service"))
    if not isinstance(consumer_id, str):
        raise TypeError(f"consumer_id must be a str, not {type(consumer_id).__name__}; pass client.id")
    lock = keys.lock(consumer_id)
    async with Pooled(redis, keys.lbs).connection("expire a lock", "repeating is safe") as loan:
        # A lifetime in the past would be a deletion. When the time is over, Redis notices it by being asked; and
        # should a beat have come in between, it is asked again.
        found = False
        while await loan.exchange(("PEXPIRE", lock, 1)) == [1]:
            found = True
            await asyncio.sleep(0.002)
    if not found:
        raise LookupError(f"{consumer_id!r} holds no lock of {service!r}: it has left, is dead, or never joined")


claim_exports(__name__)
