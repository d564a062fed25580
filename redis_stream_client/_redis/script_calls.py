"""Script calls and commands for those outside of a fleet: each goes to the server that holds its keys, wherever
that is now."""

import asyncio
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisError, ResponseError

from redis_stream_client._concurrency import clock, forks
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import error_mapping, wire
from redis_stream_client._redis.endpoint import Endpoint, Node, Slot
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.node_connections import NodeConnections, NotLent
from redis_stream_client._redis.placement import placement_for
from redis_stream_client._redis.pooled import CONNECT_TIMEOUT, REPLY_TIMEOUT, Loan, Pooled
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.topology import Address, Topology

PAUSE = (0.05, 0.5)
"""Shortest and longest pause before a call is repeated that certainly was not executed, in seconds."""

AGAIN = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "LOADING"}
"""Refusals of a node of a cluster that soon pass, or that another node does not repeat."""


class Call(NamedTuple):
    """One call of a script. Its keys are in one slot. `reads`: it changes nothing, so it may be sent again."""

    script: Script
    keys: Sequence[str | bytes]
    args: Sequence[str | bytes]
    reads: bool = False

    @property
    def key(self) -> str:
        """The key by which its server is found."""
        first = self.keys[0]
        return first if isinstance(first, str) else first.decode()


class Command(NamedTuple):
    """One command. `key` is one of its keys, which are all in one slot. `reads` as of `Call`."""

    key: str
    words: Sequence[str | bytes | int]
    reads: bool = False


def expected(answers: Sequence[Any]) -> Sequence[Any]:
    """The replies that `ScriptCalls.run_all` returns. Raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


class ScriptCalls:
    """Calls scripts and sends commands, each on the server of its first key.

    On a cluster it follows slots that move and nodes that fail over: what certainly was not executed, or only
    reads, is sent again, for a while. What may have changed something is never sent again.

    Args:
        redis: as for `Pooled`.
        pooled: lends the connections, if there is one server.
        key: any key.
    """

    def __init__(self, redis: Redis | RedisCluster, pooled: Pooled, key: str) -> None:
        self._cluster = redis if isinstance(redis, RedisCluster) else None
        self._pooled = pooled
        self._key = key
        self._nodes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Nodes] = weakref.WeakKeyDictionary()

    def slot(self, key: str) -> int:
        """The slot of a key. One call may use the keys of one slot only."""
        return 0 if self._cluster is None else key_slot(key.encode())

    async def run(self, script: Script, keys: Sequence[str | bytes], args: Sequence[str | bytes]) -> Any:
        """Call a script. Raises `Unanswered` or `RedisRejected`."""
        return await self.ask(Call(script, keys, args))

    async def ask(self, call: Call | Command) -> Any:
        """Make one call. Raises `Unanswered` or `RedisRejected`."""
        [reply] = expected(await self.run_all([call]))
        return reply

    async def run_all(self, calls: Sequence[Call | Command], *, patience: float = CONNECT_TIMEOUT) -> list[Any]:
        """Make some calls at once, in any order. Returns for each its reply, or an `Unanswered` or a
        `RedisRejected`.

        If the caller is cancelled, nothing is left running.

        Args:
            calls: what to ask.
            patience: seconds for which a cluster may not serve a slot before the calls fail that need it.
        """
        if not calls:
            return []
        if self._cluster is not None:
            return await self._here(self._cluster).run_all(calls, patience)
        loan: Loan | None = None
        try:
            async with self._pooled.lent() as connection:
                loan = Loan(connection)
                answers = [_mapped(reply) for reply in await _replies(loan, calls)]
                if any(isinstance(answer, Unanswered) and answer.elsewhere for answer in answers):
                    wire.abort(connection)  # the pool connects anew, to where the master is now
                return answers
        except Exception as error:
            if loan is not None and not isinstance(error, RedisError | OSError):
                raise  # anything else may come from a credential provider
            fault = error if isinstance(error, Unanswered) else _mapped(error)
            if isinstance(fault, Unanswered):
                fault.maybe_executed = False
            return [fault] * len(calls)

    async def servers(self, keys: Sequence[str]) -> list[Endpoint | None]:
        """The servers of keys, as far as they are known. The same server is always the same object. None: one
        server has all keys, or it is not known which."""
        if self._cluster is None:
            return [None] * len(keys)
        return await self._here(self._cluster).servers(keys)

    def _here(self, cluster: RedisCluster) -> "_Nodes":
        """What belongs to the running loop, in this process."""
        loop = asyncio.get_running_loop()
        nodes = self._nodes.get(loop)
        if nodes is None or nodes.process != forks.here():
            for ended in [other for other in self._nodes if other.is_closed()]:
                del self._nodes[ended]
            nodes = self._nodes[loop] = _Nodes(cluster, self._key)
        return nodes


class _Route(NamedTuple):
    """Where to send a call."""

    node: Endpoint
    asking: bool = False


class _Nodes:
    """The nodes of a cluster, for one event loop."""

    def __init__(self, cluster: RedisCluster, key: str) -> None:
        self.process = forks.here()
        self._topology = Topology(cluster)
        self._placement = placement_for(cluster, Slot(self._topology, key))
        self._connections = NodeConnections()
        self._named: dict[Address, Node] = {}  # by redirections

    async def servers(self, keys: Sequence[str]) -> list[Endpoint | None]:
        """As `ScriptCalls`."""
        try:
            return [await self._server(key, clock.now() + REPLY_TIMEOUT) for key in keys]
        except (Unanswered, RedisRejected):
            return [None] * len(keys)

    async def _server(self, key: str, until: float) -> Endpoint | None:
        if self._placement.endpoint(key) is None:
            await self._placement.learn(min(REPLY_TIMEOUT, max(0.0, until - clock.now())))
        return self._placement.endpoint(key)

    async def run_all(self, calls: Sequence[Call | Command], patience: float) -> list[Any]:
        """As `ScriptCalls`."""
        answers: list[Any] = [None] * len(calls)
        left: dict[int, _Route | None] = dict.fromkeys(range(len(calls)))  # with where a redirection leads
        until = clock.now() + patience
        backoff = Backoff(*PAUSE)
        while left:
            try:
                groups = await self._located(calls, left, until)
            except (Unanswered, RedisRejected) as fault:
                groups = {}
                answers = [fault if index in left else answer for index, answer in enumerate(answers)]
                if isinstance(fault, RedisRejected):
                    break
            if until - clock.now() < PAUSE[0] and all(answers[index] is not None for index in left):
                break  # the look-up took the rest of the time
            works = [self._ask(route, [calls[i] for i in some], until) for route, some in groups.items()]
            replies = (
                [await works[0]] if len(works) == 1 else await gather(*works, name="redis_stream_client call")
            )
            for (route, some), those in zip(groups.items(), replies, strict=True):
                for index, reply in zip(some, those, strict=True):
                    answers[index] = _mapped(reply)
                    if self._is_to_repeat(reply, calls[index]):
                        left[index] = self._redirected(reply, route)
                    else:
                        del left[index]
            pause = backoff.pause() if left and not all(left.values()) else 0.0
            if clock.now() + pause >= until:
                break  # an attempt without time would fail for that, and hide why those before it did
            if pause:
                await asyncio.sleep(pause)
        return answers

    async def _located(
        self, calls: Sequence[Call | Command], left: Mapping[int, _Route | None], until: float
    ) -> dict[_Route, list[int]]:
        """Which calls to send where. Raises `Unanswered` or `RedisRejected`."""
        keys = [calls[index].key for index, route in left.items() if route is None]
        if any(self._placement.endpoint(key) is None for key in keys):
            await self._placement.learn(min(REPLY_TIMEOUT, max(0.0, until - clock.now())))
        groups: dict[_Route, list[int]] = defaultdict(list)
        for index, known in left.items():
            key = calls[index].key
            route = known
            if route is None:
                node = self._placement.endpoint(key)
                if node is None:
                    self._placement.forget()
                    raise Unanswered(f"no node of {self._topology.where} serves {key!r}", maybe_executed=False)
                route = _Route(node)
            groups[route].append(index)
        return groups

    async def _ask(self, route: _Route, calls: Sequence[Call | Command], until: float) -> list[Any]:
        """Send calls to one node in one pipeline. Returns replies, refusals and `Unanswered`."""
        left = max(0.0, until - clock.now())
        try:
            async with self._connections.lent(route.node, min(REPLY_TIMEOUT, left), left) as connection:
                replies = await _replies(Loan(connection), calls, asking=route.asking)
        except NotLent as fault:
            return [fault] * len(calls)
        except (Unanswered, RedisRejected) as fault:
            replies = [fault] * len(calls)
        if any(isinstance(reply, Unanswered) for reply in replies):
            self._connections.close(route.node)
            self._placement.forget()
        return replies

    def _is_to_repeat(self, reply: Any, call: Call | Command) -> bool:
        """Whether a call certainly was not executed, or only reads, and may be answered soon."""
        if isinstance(reply, Unanswered):
            return call.reads or not reply.maybe_executed
        return isinstance(reply, ResponseError) and error_mapping.read(reply)[0] in AGAIN

    def _redirected(self, reply: Any, route: _Route) -> _Route | None:
        """Where a node sends us. None: not known, so look where the slot is."""
        if isinstance(reply, ResponseError):
            code, text = error_mapping.read(reply)
            if code != "ASK":
                self._placement.forget()
            host, _, port = text.rpartition(" ")[2].rpartition(":")
            if code in ("MOVED", "ASK") and host not in ("", "?") and port.isdecimal():
                address = self._topology.remapped((host, int(port)))
                node = self._named.setdefault(address, Node(self._topology.connector, address))
                if not (route.node is node and code == "MOVED"):
                    return _Route(node, code == "ASK")
        return None


async def _replies(loan: Loan, calls: Sequence[Call | Command], *, asking: bool = False) -> list[Any]:
    """Make calls on one connection, in one pipeline; once more with the texts of scripts that the server does not
    know. Returns replies, refusals, and `Unanswered` where no reply came."""
    replies: list[Any] = [None] * len(calls)
    left = list(range(len(calls)))
    for with_text in (False, True):
        commands: list[tuple[Any, ...]] = []
        told: set[str] = set()
        fault: Unanswered | None = None
        for index in left:
            call = calls[index]
            if asking:
                commands.append(("ASKING",))
            if isinstance(call, Command):
                commands.append(tuple(call.words))
                continue
            script, keys, args, _ = call
            if with_text and script.sha not in told:
                told.add(script.sha)
                head = ("EVAL", script.text)
            else:
                head = ("EVALSHA", script.sha)
            commands.append((*head, len(keys), *keys, *args))
        try:
            await loan.together(*commands)
        except (RedisError, OSError) as error:
            why = error_mapping.map_error(error)
            fault = Unanswered(str(why), maybe_executed=loan.unanswered > 0)
            fault.__cause__ = why.__cause__
        heard: list[Any] = loan.replies[1::2] if asking else loan.replies
        for number, index in enumerate(left):
            replies[index] = heard[number] if number < len(heard) else fault
        left = [index for index in left if isinstance(replies[index], NoScriptError)]
        if not left or fault is not None:
            break
    return replies


def _mapped(reply: Any) -> Any:
    """A reply as it is; what a refusal or an error means."""
    if not isinstance(reply, Exception) or isinstance(reply, Unanswered | RedisRejected):
        return reply
    fault = error_mapping.map_error(reply)
    return Unanswered(str(fault), maybe_executed=False) if isinstance(fault, GroupMissing) else fault
