"""A member of the fleet, as a user would write it: `python -m tests.proof.chaos.member <setup as JSON>`.

Of the library it uses the public interface alone: `run()`, or `events()` with `claim()`. From its standard input
it takes orders to misbehave with the next entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_stream_client import (
    AlreadyClaimed,
    ClientClosed,
    Entry,
    ExpiredStream,
    Lease,
    NotJoined,
    NotOwner,
    Rebalance,
    RedisStreamClient,
    RedisUnavailable,
    RetryPolicy,
    StreamAdded,
    StreamExpired,
    StreamGone,
)
from redis_stream_client._model.entry import order
from tests.harness.loops import loop_factory
from tests.proof.chaos import sessions
from tests.proof.chaos.checker import DRAIN, LOOK
from tests.proof.chaos.history import Writer, now
from tests.proof.chaos.ledger import Away, Ledger, Refused, connect
from tests.proof.chaos.link import link
from tests.proof.chaos.stacks import stacks
from tests.proof.chaos.trouble import LONGEST_PAUSE, POISON, POISON_KNOWN

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

END = b"end"
WORK = 0.01
"""Seconds that an entry takes at the most."""
AT_ONCE = 0.1
"""How often a handler that looks itself whether its session is idle does so right after a checkpoint."""
HEALTH = 1.0
"""Seconds between two looks at what the client says is stuck."""
LAG = 0.02
"""Seconds between two looks at the event loop's lateness, and from which on it is written down."""
CONNECT_TIMEOUT = 20.0
TIMEOUT = 5.0
RETRY_ATTEMPTS, PATIENCE = 6, 1.5
"""So few and so little that an outage of the ledger would bury streams if its failures counted."""
REBALANCE = Rebalance(settle=0.3)
"""Between two faults the fleet is still for long enough, so that streams move all the time."""
BAD = (0.1, 0.6)
"""Seconds after it joined in which a bad version dies."""


class Poisoned(Exception):
    """It is known that no handler can process this stream."""


RETRY = RetryPolicy(
    max_attempts=RETRY_ATTEMPTS,
    patience=PATIENCE,
    first_pause=0.05,
    longest_pause=LONGEST_PAUSE,
    bury_on=(Poisoned,),
)


class Mischief(Exception):
    """A handler failed, as it was told to."""


async def watch_lag(history: Writer) -> None:
    """Write down when the event loop is late."""
    while True:
        due = now() + LOOK
        await asyncio.sleep(LOOK)
        if (late := now() - due) > LAG:
            history.write("lag", round(late, 4))


class Member:
    """One client and its handlers."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.name: str = setup["name"]
        self.mode: str = setup["mode"]
        self.history = Writer(Path(setup["directory"]), self.name)
        self.client = RedisStreamClient(
            link(setup, timeout=TIMEOUT),
            setup["service"],
            consumer_name=self.name,
            lock_ttl=setup["lock_ttl"],
            presence=setup["presence"],
            connect_timeout=CONNECT_TIMEOUT,
        )
        self.ledger = Ledger(connect(setup["ledger"]))
        self.bad: bool = setup["bad"]
        self.away_until = 0.0
        self.orders: deque[str] = deque()
        self.leases = 0
        self.fences: dict[int, str] = {}
        """The fence under which each handler was handed its last entry, by the number of its lease."""
        self.tasks: set[asyncio.Task[None]] = set()

    async def main(self) -> None:
        """Work until a signal."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self.take_orders)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(stacks(), file=sys.stderr))
        watches = (watch_lag(self.history), self.watch_beliefs(), self.watch_health())
        background = [asyncio.create_task(watch) for watch in watches]
        if self.mode == "run":
            await self.client.run(
                self.handle, handle_signals=True, drain_timeout=DRAIN, retry=RETRY, rebalance=REBALANCE
            )
        else:
            await self.serve()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, *self.tasks, return_exceptions=True)
        self.history.write("left")

    def take_orders(self) -> None:
        """Read what is there; its end says that the run is gone."""
        if not (text := os.read(sys.stdin.fileno(), 4096)):
            os._exit(1)
        for said in text.decode().splitlines():
            what, _, seconds = said.partition(" ")
            if what == "away":
                self.away_until = now() + float(seconds)
            else:
                self.orders.append(said)

    async def watch_beliefs(self) -> None:
        """Write down when the client has joined, when it believes that it is alive, or no longer, and whether its
        presence is declared."""
        believed: bool | None = None
        present = ""
        while True:
            if self.client.alive is not (believed or False):
                if believed is None:
                    self.history.write("joined", self.client.id, self.mode)
                    if self.bad:
                        asyncio.get_running_loop().call_later(random.uniform(*BAD), self.die)
                believed = self.client.alive
                self.history.write("alive" if believed else "lapsed")
            if believed and present != (present := self.client.statistics().presence.state):
                self.history.write("presence", present)
            await asyncio.sleep(LOOK)

    async def watch_health(self) -> None:
        """Write down what the client says is stuck."""
        while True:
            await asyncio.sleep(HEALTH)
            if stuck := self.client.health().stuck:
                self.history.write("stuck", [(one.what, one.stream, round(one.age, 3)) for one in stuck])

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task of the program's own."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # With events().

    async def serve(self) -> None:
        """Take what is added, and claim what is offered, until SIGTERM."""
        serving = asyncio.create_task(self.read_events())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    async def read_events(self) -> None:
        """Until cancelled."""
        async with self.client:
            async for event in self.client.events():
                match event:
                    case StreamAdded(lease):
                        self.spawn(self.work(lease))
                    case StreamExpired(orphan):
                        self.history.write("offered", orphan.stream, orphan.lbs_id)
                        self.spawn(self.claim(orphan))
                    case _:  # the lease's block is told, too
                        pass

    async def claim(self, orphan: ExpiredStream) -> None:
        """Take over a stream, unless a peer is first."""
        with contextlib.suppress(AlreadyClaimed, StreamGone, NotJoined, RedisUnavailable, ClientClosed):
            await self.work(await self.client.claim(orphan))

    async def work(self, lease: Lease) -> None:
        """Process a stream, and let go of it in the end, whatever the end is."""
        handled = False
        with contextlib.suppress(NotOwner, RedisUnavailable, ClientClosed, Refused, Away, Mischief, Poisoned):
            async with lease:
                await self.handle(lease)
                handled = True
        while handled and lease.owned:  # without an answer the end of the block leaves it to us to say it again
            with contextlib.suppress(NotOwner, RedisUnavailable, ClientClosed):
                await lease.done()

    # The work itself.

    async def handle(self, lease: Lease) -> None:
        """Process a stream, and write down how that ends."""
        self.leases += 1
        number = self.leases
        words = (number, lease.stream, lease.lbs_id, str(lease.fence), lease.attempts, lease.position or "")
        self.history.write("leased", *words)
        self.fences[number] = str(lease.fence)
        self.spawn(self.watch(lease, number))
        try:
            await self.look_around(lease)
            if sessions.is_session(lease.stream):
                await random.choice(SESSIONS)(self, lease, number)
            else:
                await self.follow(lease, number)
        except BaseException as error:
            self.history.write("failed", number, f"{type(error).__name__}: {error}"[:200])
            raise
        finally:
            del self.fences[number]
        self.history.write("returned", number)

    async def watch(self, lease: Lease, number: int) -> None:
        """Write down when and why a lease ends."""
        self.history.write("lost", number, await lease.lost())

    async def follow(self, lease: Lease, number: int) -> None:
        """An effect and a checkpoint for each entry. The end marker has no checkpoint: who dies before it has said
        that the stream is finished leaves the marker to the next owner."""
        async for entry in lease.entries():
            await self.process(lease, number, entry)
            if END in entry.fields:
                return
            await self.checkpoint(lease, number, entry.id)

    async def process(self, lease: Lease, number: int, entry: Entry) -> None:
        """An effect for an entry."""
        if self.fences.get(number) != str(lease.fence):
            self.fences[number] = str(lease.fence)
            self.history.write("fenced", number, str(lease.fence))
        self.history.write("handed", number, entry.id)
        if self.orders:
            self.misbehave(self.orders.popleft())
        await asyncio.sleep(random.uniform(0.0, WORK))
        await self.write_effect(lease, number, entry.id, end=END in entry.fields)

    # The work on sessions, in the three ways there are. It ends when the session sleeps.

    async def until_idle(self, lease: Lease, number: int) -> None:
        """Entry by entry; the loop ends by itself."""
        async for entry in lease.entries(idle=sessions.idle(lease.stream)):
            await self.process(lease, number, entry)
            await self.checkpoint(lease, number, entry.id)

    async def until_idle_by_batches(self, lease: Lease, number: int) -> None:
        """The same by batches."""
        async for batch in lease.batches(idle=sessions.idle(lease.stream)):
            for entry in batch:
                await self.process(lease, number, entry)
            await self.checkpoint(lease, number, batch[-1].id)

    async def until_idle_by_itself(self, lease: Lease, number: int) -> None:
        """The handler looks itself when it has waited for long enough, and now and then at once."""
        idle = sessions.idle(lease.stream)
        entries = lease.entries()
        while True:
            try:
                async with asyncio.timeout(idle):
                    entry = await anext(entries)
            except TimeoutError:
                pass
            else:
                await self.process(lease, number, entry)
                await self.checkpoint(lease, number, entry.id)
                if random.random() > AT_ONCE:
                    continue
            if await lease.done_if_idle():
                return

    def misbehave(self, order: str) -> None:
        """What handlers do that should not."""
        what, _, seconds = order.partition(" ")
        match what:
            case "raise":
                raise Mischief
            case "suicide":
                self.die()
            case "block":
                self.history.write("blocked", float(seconds))
                time.sleep(float(seconds))
                self.history.write("unblocked")
            case _:
                raise ValueError(order)

    def die(self) -> None:
        """As a process does that is killed, or crashes."""
        self.history.write("suicide")
        os.kill(os.getpid(), signal.SIGKILL)

    async def look_around(self, lease: Lease) -> None:
        """Raise what any handler of this stream raises now."""
        if lease.stream.startswith(POISON_KNOWN):
            raise Poisoned
        if lease.stream.startswith(POISON):
            raise Mischief
        if now() < self.away_until:
            raise Away
        await self.ledger.look()

    async def write_effect(self, lease: Lease, number: int, id: str, *, end: bool) -> None:
        """Write an effect. Raises `Refused`."""
        if now() < self.away_until:
            raise Away
        sent = now()
        writer = (self.name, number, lease.stream, str(lease.fence))
        outcome = await self.ledger.write(*writer, id, end=end)
        self.history.write("effect", number, id, outcome, round(sent, 5))
        if outcome == "refused":
            raise Refused(f"{lease.stream} has a newer owner than {lease.fence}")

    async def checkpoint(self, lease: Lease, number: int, id: str) -> None:
        """Set a checkpoint, and write down what became of it."""
        sent = now()
        outcome = "unknown"
        try:
            await lease.checkpoint(id)
            # An entry that was handed out before Redis restarted or failed over comes again.
            outcome = "accepted" if order(lease.position or "0-0") >= order(id) else "void"
        except NotOwner:
            outcome = "refused"
            raise
        finally:
            self.history.write("checkpoint", number, id, outcome, round(sent, 5))


SESSIONS = (Member.until_idle, Member.until_idle, Member.until_idle_by_batches, Member.until_idle_by_itself)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Member(json.loads(sys.argv[1])).main())
