"""Topology: which node of a Redis Cluster has which slot.

This module asks the nodes itself, within a time limit, on connections that it closes afterwards. redis-py's
``NodesManager``, of the user's class and with the user's settings, interprets the answers. No node is trusted for
ever: each look-up begins with another node, goes on to the next one after `STAGGER` seconds of silence, and asks
several if the last answer was of no use. The user's client itself is never used.
"""

import asyncio
import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio.cluster import ClusterNode, NodesManager, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import redis_py, wire
from redis_stream_client._redis.connecting import Connector, describe
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.unhelpful import Unhelpful

Address = tuple[str, int]

STAGGER = 0.1  # seconds of silence of a node after which the next one is asked, too
SEVERAL = 3  # how many nodes to ask if the last answer was of no use
GRACE = 0.3  # seconds to wait for other nodes that may contradict a doubtful answer

_learned: dict[frozenset[Address], tuple[Address, ...]] = {}
"""The nodes that this process has seen of the cluster behind these startup nodes, in case all of those are
gone."""


@dataclass(frozen=True, slots=True)
class View:
    """Which node has which slots, according to one node.

    Attributes:
        ranges: first slot, last slot and primary, in order.
        nodes: all primaries of slots, and their replicas.
    """

    ranges: tuple[tuple[int, int, Address], ...] = ()
    nodes: frozenset[Address] = frozenset()

    def owner(self, slot: int) -> Address | None:
        """The primary of a slot."""
        i = bisect.bisect_right(self.ranges, slot, key=lambda known: known[0]) - 1
        if i >= 0 and self.ranges[i][0] <= slot <= self.ranges[i][1]:
            return self.ranges[i][2]
        return None

    @property
    def primaries(self) -> frozenset[Address]:
        """The primaries that have slots."""
        return frozenset(primary for _, _, primary in self.ranges)

    @property
    def covered(self) -> int:
        """How many slots have a primary."""
        return sum(last - first + 1 for first, last, _ in self.ranges)

    def answers(self, slot: int | None) -> bool:
        """Whether this view answers the question: where one slot is, or, with None, where all are."""
        return self.covered == REDIS_CLUSTER_HASH_SLOTS if slot is None else self.owner(slot) is not None


class Topology:
    """Asks the nodes of one cluster."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._manager: NodesManager = cluster.nodes_manager
        startup = list(self._manager.startup_nodes.values())
        self._startup: tuple[Address, ...] = tuple((node.host, int(node.port)) for node in startup)
        self._origin = frozenset(self._startup)
        self._dynamic = redis_py.dynamic_startup_nodes(self._manager) is not False
        self._nodes: frozenset[Address] = frozenset()
        self._unhelpful = Unhelpful[Address]()
        self._turn = 0
        self._in_doubt = False
        self._said, self._view = "", View()
        self.connector = _connector(cluster, startup)

    @property
    def where(self) -> str:
        """The address of one of its nodes, for messages."""
        return f"the cluster of {self._startup[0][0]}:{self._startup[0][1]}"

    async def look(self, slot: int | None, timeout: float) -> View:
        """Ask where one slot is, or, with None, where all are. Raises `Unanswered` or `RedisRejected`.

        If a view does not have the slot, the next node is asked. For all slots, the fullest view is taken.
        """
        look = _Look(self, slot, self._in_doubt)
        try:
            async with asyncio.timeout(timeout):
                view = await look.run(self._candidates(), timeout)
        except TimeoutError:
            view = look.choose()
        finally:
            await look.close()
        if view is None:
            raise look.failure(f"no node of {self.where} named its slots in time")
        self._in_doubt = False
        self._nodes = view.nodes
        _learned[self._origin] = tuple(sorted(view.nodes))
        return view

    def doubt(self, node: Address | None = None) -> None:
        """Note that the last answer was of no use: it led to `node`, which does not answer."""
        self._in_doubt = True
        if node is not None:
            self.unhelpful(node)

    def unhelpful(self, node: Address) -> None:
        """Note that this node did not answer or did not know: ask it last for a while."""
        self._unhelpful.mark(node)

    def is_unhelpful(self, node: Address) -> bool:
        """Whether this node did not answer lately."""
        return node in self._unhelpful

    def remapped(self, address: Address) -> Address:
        """Where a node is that another one names, by the user's `address_remap`."""
        host, port = self._manager.remap_host_port(*address)
        return host, int(port)

    def continues(self, view: View) -> bool:
        """Whether this is the cluster of before. A node may have moved to another cluster."""
        common = len(view.nodes & self._nodes)
        return not self._nodes or 2 * common > min(len(view.nodes), len(self._nodes))

    def _candidates(self) -> list[Address]:
        """The nodes in the order to ask them: another one first each time, those that did not help last. They
        include the user's startup nodes and those that redis-py has learned."""
        self._turn += 1
        known = sorted(self._nodes) if self._dynamic else []
        turn = self._turn % len(known) if known else 0
        order = [*known[turn:], *known[:turn], *self._startup]
        if self._dynamic:
            order += [*_addresses(self._manager.nodes_cache.values()), *_learned.get(self._origin, ())]
        order += _addresses(self._manager.startup_nodes.values())
        order = list(dict.fromkeys(order))
        return sorted(order, key=self._unhelpful.since)

    async def ask(self, node: Address, timeout: float) -> View:
        """Ask one node for its view. Raises `Unanswered` or `RedisRejected`."""
        host, port = node
        connection = await self.connector.open(timeout, host=host, port=port)
        try:
            reply = await wire.roundtrip(connection, timeout, "CLUSTER", "SLOTS")
        except GroupMissing as error:
            raise Unanswered(str(error), maybe_executed=False) from error
        finally:
            wire.abort(connection)
        try:
            _name_hosts(node, reply)
            text = repr(reply)  # what redis-py makes of it costs some ten milliseconds, and changes it
            if text == self._said and self._manager.address_remap is None:
                return self._view
            view = await _interpret(self._manager, node, reply)
            self._said, self._view = text, view
            return view
        except Exception as error:  # the user's address_remap, or an answer that redis-py does not understand
            raise Unanswered(
                f"what {host}:{port} says about the cluster cannot be used: {describe(error)}",
                maybe_executed=False,
            ) from error


class _Look:
    """One look-up of the topology: the nodes that were asked, and their answers."""

    def __init__(self, topology: Topology, slot: int | None, in_doubt: bool) -> None:
        self._topology = topology
        self._slot = slot
        self._in_doubt = in_doubt
        self._asking: dict[asyncio.Task[View], tuple[Address, float]] = {}
        self._views: list[View] = []
        self._failures: list[Exception] = []

    async def run(self, candidates: Sequence[Address], timeout: float) -> View | None:
        """Ask until the answer is clear. None: no node knew."""
        left = list(candidates)
        first_answer: float | None = None
        while left or self._asking:
            answered = len(self._asking) + len(self._views) + len(self._failures)
            while left and (not self._asking or (self._in_doubt and answered < SEVERAL)):
                self._ask(left.pop(0), timeout)
                answered += 1
            if not await self._wait() and left:
                self._ask(left.pop(0), timeout)
            if any(view.answers(self._slot) for view in self._views):
                first_answer = first_answer or clock.now()
                if self._is_clear() or clock.now() - first_answer >= GRACE:
                    break
        return self.choose()

    def _ask(self, node: Address, timeout: float) -> None:
        name = f"redis_stream_client asking {node[0]}:{node[1]}"
        self._asking[start_task(self._topology.ask(node, timeout), name)] = (node, clock.now())

    async def _wait(self) -> bool:
        """Wait for an answer, for `STAGGER` seconds. Returns whether there was one."""
        done, _ = await asyncio.wait(self._asking, timeout=STAGGER, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            node, _ = self._asking.pop(task)
            try:
                view = task.result()
            except (Unanswered, RedisRejected) as error:
                self._failures.append(error)
                self._topology.unhelpful(node)
                continue
            self._views.append(view)
            if not view.answers(self._slot):
                self._topology.unhelpful(node)
        return bool(done)

    def _is_clear(self) -> bool:
        """Whether the answer is clear: one view of the known cluster, or several views that agree."""
        views = [view for view in self._views if view.answers(self._slot) and self._topology.continues(view)]
        return len(views) >= (2 if self._in_doubt else 1) and len({self._said(view) for view in views}) == 1

    def _said(self, view: View) -> object:
        return view.ranges if self._slot is None else view.owner(self._slot)

    def choose(self) -> View | None:
        """The most credible view: one of the known cluster, then the one that most nodes share, then the one with
        the fewest primaries that did not answer lately, then the fullest."""
        views = [view for view in self._views if view.answers(self._slot) or (self._slot is None and view.ranges)]
        said = [self._said(view) for view in views]

        def credibility(view: View) -> tuple[bool, int, int, int]:
            owners = view.primaries if self._slot is None else {view.owner(self._slot)}
            silent = sum(owner is not None and self._topology.is_unhelpful(owner) for owner in owners)
            return self._topology.continues(view), said.count(self._said(view)), -silent, view.covered

        return max(views, key=credibility, default=None)

    def failure(self, otherwise: str) -> Exception:
        """The error if no node knew. It is a refusal only if all nodes have refused."""
        refused = [error for error in self._failures if isinstance(error, RedisRejected)]
        if refused and len(refused) == len(self._failures) and not self._views and not self._asking:
            return refused[0]
        if self._views and self._slot is not None:
            return Unanswered(f"no node of {self._topology.where} serves slot {self._slot}", maybe_executed=False)
        unanswered = [error for error in self._failures if isinstance(error, Unanswered)]
        return unanswered[0] if unanswered else Unanswered(otherwise, maybe_executed=False)

    async def close(self) -> None:
        """Stop asking. A node that kept us waiting is asked last the next time."""
        now = clock.now()
        for task, (node, asked_at) in self._asking.items():
            task.cancel()
            if now - asked_at >= STAGGER:
                self._topology.unhelpful(node)
        if self._asking:
            await asyncio.wait(self._asking)
            for task in self._asking:
                if not task.cancelled():
                    task.exception()  # marks it as retrieved


class _Said(ClusterNode):
    """A node for redis-py's `NodesManager` that repeats an answer which we have already."""

    def __init__(self, node: Address, reply: Any) -> None:
        super().__init__(*node)
        self._reply = reply

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        return self._reply


async def _interpret(manager: NodesManager, node: Address, reply: Any) -> View:
    """Interpret an answer to ``CLUSTER SLOTS`` by redis-py, with the user's `address_remap` and
    ``NodesManager``."""
    if not reply:
        return View()
    dynamic = redis_py.dynamic_startup_nodes(manager)
    more: dict[str, Any] = {} if dynamic is None else {"dynamic_startup_nodes": False}
    reader = type(manager)(
        startup_nodes=[_Said(node, reply)],
        require_full_coverage=False,
        connection_kwargs={},
        address_remap=manager.address_remap,
        **more,
    )
    await reader.initialize()
    ranges: list[tuple[int, int, Address]] = []
    for slot, nodes in sorted(reader.slots_cache.items()):
        primary = (nodes[0].host, int(nodes[0].port))
        if ranges and ranges[-1][1] == slot - 1 and ranges[-1][2] == primary:
            ranges[-1] = (ranges[-1][0], slot, primary)
        else:
            ranges.append((slot, slot, primary))
    return View(tuple(ranges), frozenset(_addresses(reader.nodes_cache.values())))


def _name_hosts(node: Address, reply: Any) -> None:
    """Fill in the host of the node that was asked, where an answer names no host."""
    for _, _, *nodes in reply:
        for known in nodes:
            known[0] = _host(known) or node[0].encode()


def _host(known: Sequence[Any]) -> bytes | None:
    """The host of a node in ``CLUSTER SLOTS``. None: the host of the node that was asked."""
    host: bytes | None = known[0]
    if host == b"?" and len(known) > 3:  # a name is preferred, and this node has none
        more = dict(zip(known[3][::2], known[3][1::2], strict=False))
        host = more.get(b"ip", host)
    return host


def _addresses(nodes: Iterable[Any]) -> list[Address]:
    return [(node.host, int(node.port)) for node in nodes]


def _connector(cluster: RedisCluster, startup: Sequence[Any]) -> Connector:
    """The connector for all nodes of a cluster."""
    settings = {**cluster.nodes_manager.connection_kwargs, **startup[0].connection_kwargs}
    connection_class = settings.pop("connection_class", startup[0].connection_class)
    if issubclass(startup[0].connection_class, connection_class):
        connection_class = startup[0].connection_class
    if settings.get("redis_connect_func") == cluster.on_connect:
        overridden = type(cluster).on_connect is not RedisCluster.on_connect
        if not overridden:  # it asks for READONLY, which is for replicas
            del settings["redis_connect_func"]
    for name in ("host", "port"):
        settings.pop(name, None)
    return Connector(connection_class, settings)
