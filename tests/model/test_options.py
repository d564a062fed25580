"""What a client is made with: wrong arguments say which and why, and making one touches nothing."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
import redis as sync_redis
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode

from redis_stream_client import LoadBalancerStream, RedisStreamClient
from tests.harness.options import checked

NAN = float("nan")


def make(service: Any = "orders", **parameters: Any) -> RedisStreamClient:
    return RedisStreamClient(Redis(), service, **parameters)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"service": None}, TypeError, "service must be a str, not NoneType"),
        ({"service": b"orders"}, TypeError, "service must be a str, not bytes"),
        ({"service": ""}, ValueError, "service must not be empty"),
        ({"service": "or{ders"}, ValueError, "service has unbalanced braces"),
        ({"service": "or{}ders"}, ValueError, "service has empty braces"),
        ({"lock_ttl": "2"}, TypeError, "lock_ttl must be a number of seconds, not str"),
        ({"lock_ttl": None}, TypeError, "lock_ttl must be a number of seconds, not NoneType"),
        ({"lock_ttl": True}, TypeError, "lock_ttl must be a number of seconds, not bool"),
        ({"lock_ttl": 0}, ValueError, "lock_ttl must be between 0.1 s and 86400 s, not 0 s"),
        ({"lock_ttl": -1.0}, ValueError, "lock_ttl must be between"),
        ({"lock_ttl": 0.09}, ValueError, "lock_ttl must be between"),
        ({"lock_ttl": 2000.0 * 1000}, ValueError, "lock_ttl must be between"),
        ({"lock_ttl": NAN}, ValueError, "lock_ttl must be between"),
        ({"lock_ttl": float("inf")}, ValueError, "lock_ttl must be between"),
        ({"lock_ttl": 10**400}, ValueError, "lock_ttl must be between"),
        ({"heartbeat_interval": "1"}, TypeError, "heartbeat_interval must be a number of seconds, not str"),
        ({"heartbeat_interval": 0}, ValueError, "heartbeat_interval must be between"),
        ({"heartbeat_interval": NAN}, ValueError, "heartbeat_interval must be between"),
        ({"heartbeat_interval": 1.1}, ValueError, "heartbeat_interval must be at most lock_ttl / 2 = 1 s"),
        ({"max_streams": 1.0}, TypeError, "max_streams must be an int, not float"),
        ({"max_streams": True}, TypeError, "max_streams must be an int, not bool"),
        ({"max_streams": 0}, ValueError, "max_streams must be at least 1, not 0"),
        ({"weight": "2"}, TypeError, "weight must be a number, not str"),
        ({"weight": True}, TypeError, "weight must be a number, not bool"),
        ({"weight": 0}, ValueError, "weight must be between 0.001 and 1000, not 0"),
        ({"weight": -1.0}, ValueError, "weight must be between"),
        ({"weight": 1001}, ValueError, "weight must be between"),
        ({"weight": NAN}, ValueError, "weight must be between"),
        ({"weight": float("inf")}, ValueError, "weight must be between"),
        ({"on_forgotten": "never"}, ValueError, "on_forgotten must be one of from_start, from_now, not 'never'"),
        ({"on_forgotten": None}, ValueError, "on_forgotten must be one of from_start, from_now, not None"),
        ({"observer": "none"}, TypeError, "observer must be an Observer or None, not str"),
        ({"prefetch": None}, TypeError, "prefetch must be an int, not NoneType"),
        ({"prefetch": "32"}, TypeError, "prefetch must be an int, not str"),
        ({"prefetch": 0}, ValueError, "prefetch must be at least 1, not 0"),
        ({"prefetch": -5}, ValueError, "prefetch must be at least 1, not -5"),
        ({"connect_timeout": "5"}, TypeError, "connect_timeout must be a number of seconds, not str"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout must be between"),
        ({"connect_timeout": NAN}, ValueError, "connect_timeout must be between"),
        ({"progress_ttl": "7"}, TypeError, "progress_ttl must be a number of seconds, not str"),
        ({"progress_ttl": None}, TypeError, "progress_ttl must be a number of seconds, not NoneType"),
        ({"progress_ttl": -1}, ValueError, "progress_ttl must be between 0 s and 315360000 s, not -1 s"),
        ({"progress_ttl": NAN}, ValueError, "progress_ttl must be between"),
        ({"progress_ttl": float("inf")}, ValueError, "progress_ttl must be between"),
        ({"consumer_name": 17}, TypeError, "consumer_name must be a str or None, not int"),
        ({"consumer_name": ""}, ValueError, "consumer_name must be printable"),
        ({"consumer_name": "a b"}, ValueError, "consumer_name must be printable, without spaces"),
        ({"consumer_name": "a\nb"}, ValueError, "consumer_name must be printable"),
        ({"consumer_name": "\udcff"}, ValueError, "consumer_name must be printable"),
        ({"group": "x"}, TypeError, "group"),
    ],
    ids=lambda value: re.sub(r"0{9,}", "…", repr(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_argument_is_refused_at_construction_and_named(
    parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"lock_ttl": 1},
        {"lock_ttl": 0.1},
        {"lock_ttl": 2.0, "heartbeat_interval": 1.0},
        {"lock_ttl": 86_400},
        {"weight": 1000},
        {"weight": 0.001},
        {"max_streams": 1},
        {"prefetch": 1},
        {"connect_timeout": 0.5},
        {"progress_ttl": 0},
        {"progress_ttl": 30 * 86_400},
        {"consumer_name": "wörker:{1}"},
        {"service": "{a}b"},
    ],
    ids=repr,
)
def test_what_is_allowed_is_taken(parameters: dict[str, Any]) -> None:
    make(**parameters)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        RedisStreamClient(Redis(), "orders", "worker")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("heartbeat_interval", [None, 0.03, 0.05])
@pytest.mark.parametrize("lock_ttl", [0.1, 0.4, 1.0, 2.0])
def test_up_to_the_default_everything_goes_with_the_life_of_the_lock(
    lock_ttl: float, heartbeat_interval: float | None
) -> None:
    options = checked(lock_ttl=lock_ttl, heartbeat_interval=heartbeat_interval)
    assert options.pace == lock_ttl
    assert options.patience == options.longest_patience == options.block == lock_ttl / 2
    assert options.beat_patience == options.heartbeat_interval == (heartbeat_interval or lock_ttl / 4)
    assert options.longest_pause == options.heartbeat_interval / 2


@pytest.mark.parametrize("lock_ttl", [2.1, 10.0, 86_400.0])
def test_a_longer_life_of_the_lock_makes_nothing_else_slower(lock_ttl: float) -> None:
    options, default = checked(lock_ttl=lock_ttl), checked()
    for what in ("pace", "patience", "block", "beat_patience", "longest_pause"):
        assert getattr(options, what) == pytest.approx(getattr(default, what)), what
    assert options.heartbeat_interval == lock_ttl / 4
    assert options.longest_patience == lock_ttl / 2


def test_beats_that_are_asked_for_more_often_are_repeated_as_soon() -> None:
    assert checked(lock_ttl=10.0, heartbeat_interval=0.2).beat_patience == 0.2
    assert checked(lock_ttl=10.0, heartbeat_interval=5.0).beat_patience == 1.0
    assert checked(lock_ttl=86_400.0, heartbeat_interval=1.0).longest_pause >= 0.1


@pytest.mark.parametrize("kind", [RedisStreamClient, LoadBalancerStream])
@pytest.mark.parametrize(
    "redis",
    [
        pytest.param(None, id="None"),
        pytest.param("redis://localhost", id="URL"),
        pytest.param(Redis().connection_pool, id="pool"),
        pytest.param(sync_redis.Redis(), id="blocking client"),
        pytest.param(Redis, id="class"),
    ],
)
def test_what_is_no_asyncio_client_is_refused_and_what_is_allowed_is_said(kind: Any, redis: Any) -> None:
    with pytest.raises(TypeError, match=r"redis must be a redis\.asyncio\.Redis or RedisCluster, not"):
        kind(redis, "orders")


def test_a_blocking_client_is_named_in_the_refusal() -> None:
    with pytest.raises(TypeError, match=r"not redis\.client\.Redis"):
        RedisStreamClient(sync_redis.Redis(), "orders")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_making_a_client_needs_no_event_loop_and_no_server() -> None:
    sentinel: Any = Sentinel
    clients: list[Any] = [
        Redis(host="192.0.2.1", port=1),
        Redis.from_url("unix:///nowhere.sock"),
        sentinel([("192.0.2.1", 1)]).master_for("mymaster"),
        RedisCluster(startup_nodes=[ClusterNode("192.0.2.1", 1)]),
    ]
    for redis in clients:
        client = RedisStreamClient(redis, "orders")
        assert client.alive is False
        assert not client.leases
        assert client.statistics().leases == 0
        assert "not joined" in repr(client)
        LoadBalancerStream(redis, "orders")


@pytest.mark.parametrize(
    "url", ["redis://localhost:6390/3", "rediss://u:p@localhost", "unix:///tmp/redis.sock?db=2"]
)
def test_a_client_can_be_made_from_a_url(url: str) -> None:
    client = RedisStreamClient.from_url(url, "orders", lock_ttl=1.0, consumer_name="a")
    assert client.id.startswith("redis-consumer-a-")


@pytest.mark.parametrize(
    ("url", "parameters", "error", "message"),
    [
        ("http://localhost", {}, ValueError, "redis://"),
        (None, {}, TypeError, "url must be a str, not NoneType"),
        (b"redis://localhost", {}, TypeError, "url must be a str, not bytes"),
        ("redis://localhost", {"lock_ttl": "2"}, TypeError, "lock_ttl"),
        ("redis://localhost", {"socket_timeout": 2}, TypeError, "socket_timeout"),
    ],
)
def test_a_wrong_url_or_option_is_refused(
    url: Any, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RedisStreamClient.from_url(url, "orders", **parameters)


@pytest.mark.parametrize(
    ("given", "environment", "name"),
    [
        ("mine", {"POD_NAME": "pod", "POD_IP": "10.0.0.7"}, "mine"),
        (None, {"POD_NAME": "pod", "POD_IP": "10.0.0.7"}, "pod"),
        (None, {"POD_IP": "10.0.0.7"}, "10.0.0.7"),
        (None, {"POD_NAME": "", "POD_IP": ""}, socket.gethostname()),
        (None, {}, socket.gethostname()),
    ],
)
def test_the_id_carries_the_given_name_or_the_pods_or_the_hosts(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: dict[str, str], name: str
) -> None:
    for variable in ("POD_NAME", "POD_IP"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert re.fullmatch(rf"redis-consumer-{re.escape(name)}-[0-9a-f]{{8}}", make(consumer_name=given).id)


def test_two_clients_of_one_name_are_two_consumers() -> None:
    assert len({make(consumer_name="a").id for _ in range(100)}) == 100


@pytest.mark.parametrize("variable", ["POD_NAME", "POD_IP"])
def test_a_name_from_the_environment_that_no_server_could_store_is_refused_or_replaced(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("POD_NAME", raising=False)
    monkeypatch.setenv(variable, "\udcff")  # what os.environ shows for bytes that are no UTF-8
    try:
        client = make()
    except ValueError:
        return
    assert client.id.encode()


@pytest.mark.parametrize("lock_ttl", [0.1, 0.1004, 1 / 3, 2.0, 2.0001])
def test_redis_keeps_the_lock_no_shorter_than_is_believed(lock_ttl: float) -> None:
    assert lock_ttl <= checked(lock_ttl=lock_ttl).lock_ttl_ms / 1000 < lock_ttl + 0.0011
