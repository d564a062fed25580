"""The commands that change something: ``drain``, ``evict``, ``release``, ``pause``, ``resume``."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

from cyclopts import Parameter

from redis_stream_client import (
    Fleet,
    FleetMember,
    NotInTime,
    Pause,
    RedisStreamClientError,
    Release,
    StreamGone,
    UnknownConsumer,
)
from redis_stream_client.cli.arguments import duration, flag
from redis_stream_client.cli.connection import run
from redis_stream_client.cli.durations import show_duration
from redis_stream_client.cli.exit_status import FAILED, OK
from redis_stream_client.cli.failure import NotThere, Unusable
from redis_stream_client.cli.names import full_name, shown_name
from redis_stream_client.cli.target import Target
from redis_stream_client.terminal.text import plural, printable

NAMED = 10
"""Members that are named; the others are counted."""

Consumer = Annotated[
    str, Parameter(metavar="CONSUMER", help="the member: its id, as `status` shows it, or its `consumer_name`")
]
Yes = Annotated[bool, flag("do not ask whether you are sure")]


def drain(
    consumer: Consumer,
    /,
    *,
    timeout: Annotated[
        float,
        Parameter(show_default=lambda _: "60s"),
        duration("how long to wait until it has left; 0: do not wait. The order stands, however long you wait"),
    ] = 60.0,
    target: Target,
) -> int:
    """Have a member finish what it does, give its streams to its peers, and leave.

    Its `run()` returns, as after `client.drain()`: what runs it may start it again. A program that reads
    `events()` takes no new streams and must end by itself. A member of an older version does not hear of it. One
    that is dead counts as one that has left; if it only stood still, it drains when it comes back.

    Exit status: 0 it has left, or with `--timeout 0` it is to leave; 1 it has not left in time, or there is no
    such member; 2 it could not be done.
    """

    async def act(fleet: Fleet) -> int:
        member = await _member(fleet, consumer)
        await fleet.drain(member.id, timeout=0)
        if timeout == 0:
            print(f"{shown_name(member.id)} is to drain, with {plural(member.leases, 'stream')}")
            return OK
        if sys.stderr.isatty():
            print(
                f"{shown_name(member.id)} drains, with {plural(member.leases, 'stream')}; "
                "Ctrl-C ends the waiting, and not the order",
                file=sys.stderr,
            )
        await fleet.drain(member.id, timeout=timeout)
        print(f"{shown_name(member.id)} has left")
        return OK

    return _order(target, act)


def evict(consumer: Consumer, /, *, yes: Yes = False, target: Target) -> int:
    """Take a member out of the fleet without asking it: its peers get its streams at once.

    This is for a member that hangs, or whose host cannot be reached, while its lock still lives. It may still be
    at work: nothing that it does with a stream counts once a peer has begun with it, nor elsewhere what is
    guarded by the fence. One that lives joins again: to be rid of it, drain it first.

    On a terminal it asks whether you are sure. Scripts give `--yes`.

    Exit status: 0 done; 1 there is no such member, or you were not sure; 2 it could not be done.
    """

    async def act(fleet: Fleet) -> int:
        member = await _member(fleet, consumer)
        about = f"evict {shown_name(member.id)}"
        if member.alive:
            about += f", which is alive and has {plural(member.leases, 'stream')}"
        await _require_sure(about, yes=yes)
        released = await fleet.evict(member.id)
        if member.alive or released:
            print(f"{shown_name(member.id)} is evicted: {plural(released, 'stream')} released")
        else:
            print(f"{shown_name(member.id)} was dead: its peers take over what it has left")
        return OK

    return _order(target, act)


def release(
    stream: Annotated[str, Parameter(metavar="STREAM", help="name of the data stream")],
    /,
    *,
    timeout: Annotated[
        float, Parameter(show_default=lambda _: "10s"), duration("how long its owner has to give it back")
    ] = 10.0,
    force: Annotated[bool, flag("take it from an owner that has not given it back by then")] = False,
    yes: Yes = False,
    target: Target,
) -> int:
    """Have the owner of a stream give it back, so that a peer takes it.

    Its handler is stopped at its first step after a checkpoint. With `--force` it is taken away from a handler
    that comes to none: it may still be at work, and nothing that it does counts from when its successor has
    begun. On a terminal, `--force` asks whether you are sure. Scripts give `--yes`.

    Exit status: 0 done, or no living member had it; 1 it was not given back in time, it is not announced, or you
    were not sure; 2 it could not be done.
    """

    async def act(fleet: Fleet) -> int:
        if force:
            found = await fleet.owner(stream)
            owner = None if found is None or found.owner is None else shown_name(found.owner)
            if owner is not None:
                await _require_sure(f"take {printable(stream)} from {owner}", yes=yes)
        print(_outcome(await fleet.release(stream, timeout=timeout, force=force)))
        return OK

    return _order(target, act)


def pause(
    reason: Annotated[str, Parameter(metavar="REASON", help="why, for whoever looks")],
    /,
    *,
    timeout: Annotated[
        float,
        Parameter(show_default=lambda _: "5s"),
        duration("how long to wait until all living members have said that they take no new streams"),
    ] = 5.0,
    target: Target,
) -> int:
    """Have nobody take new streams, until somebody resumes.

    What has an owner goes on, also by take-over, and producers can announce and write. The pause outlives restarts
    of the members.

    Exit status: 0 it is in effect; 1 some members have not said so, and may take a few streams more; 2 it could
    not be done.
    """

    async def act(fleet: Fleet) -> int:
        others = await fleet.pause(reason, timeout=timeout)
        print(f"paused: {printable(reason)}")
        if not others or timeout == 0:
            return OK
        named = ", ".join(shown_name(id) for id in others[:NAMED])
        more = f" and {plural(len(others) - NAMED, 'other')}" if len(others) > NAMED else ""
        sys.stdout.flush()
        print(f"{plural(len(others), 'member')} have not said so: {named}{more}", file=sys.stderr)
        return FAILED

    return _order(target, act)


def resume(*, target: Target) -> int:
    """End a pause.

    Exit status: 0 there is no pause any more, 2 it could not be done.
    """

    async def act(fleet: Fleet) -> int:
        before = await fleet.resume()
        if before is None:
            print("there was no pause")
        else:
            print(f"resumed{await _lasted(fleet, before)}: {printable(before.reason)}")
        return OK

    return _order(target, act)


async def _lasted(fleet: Fleet, pause: Pause) -> str:
    """After how long, by the clock of Redis; nothing if that does not answer, since the pause is over anyway."""
    try:
        now = (await fleet.status()).time
    except RedisStreamClientError:
        return ""
    return f" after {show_duration(now - pause.since)}"


def _order(target: Target, act: Callable[[Fleet], Awaitable[int]]) -> int:
    async def ordered(fleet: Fleet) -> int:
        try:
            return await act(fleet)
        except (UnknownConsumer, StreamGone, NotInTime) as error:
            raise NotThere(str(error)) from None
        except ValueError as error:
            raise Unusable(str(error)) from None

    return run(target, lambda redis: ordered(Fleet(redis, target.service)))


async def _member(fleet: Fleet, given: str) -> FleetMember:
    status = await fleet.status()
    id = full_name(given, status)
    return next(member for member in status.members if member.id == id)


async def _require_sure(about: str, *, yes: bool) -> None:
    """Ask on the terminal. Raises `NotThere` if the answer is not yes, `Unusable` if there is nobody to ask."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Unusable(f"{about}? there is no terminal to ask on: give --yes")
    print(f"{about}? [y/N] ", end="", file=sys.stderr, flush=True)
    if (await _answer()).strip().lower() not in ("y", "yes"):
        raise NotThere("nothing was done")


async def _answer() -> str:
    """A line from the terminal. The event loop waits for it, so that Ctrl-C ends the waiting."""
    if sys.platform != "win32":  # whose event loop does not know terminals
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(sys.stdin, there.set)
        try:
            await there.wait()
        finally:
            loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


def _outcome(release: Release) -> str:
    stream = printable(release.stream)
    previous = "" if release.previous is None else shown_name(release.previous)
    if release.outcome == "unowned":
        return f"{stream}: no living member has it"
    if release.outcome == "ended":
        return f"{stream}: {previous} has finished it, or it is a dead letter"
    how = "has given it back" if release.outcome == "given" else "has lost it"
    if release.owner is None:
        return f"{stream}: {previous} {how}; it waits for a member"
    back = " again" if release.owner == release.previous else ""
    return f"{stream}: {previous} {how}; now {shown_name(release.owner)} has it{back}"
