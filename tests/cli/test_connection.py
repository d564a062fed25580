"""From a URL to a client: the grammar, passwords, and every deployment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.connection import SSLConnection

from redis_stream_client import Fleet
from redis_stream_client._model.keys import Keys
from redis_stream_client.cli.connection import connected, full_url, parse
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.target import Target, Url
from tests.harness.commands import run_command
from tests.harness.masses import make_members, make_streams
from tests.harness.ports import HOST
from tests.harness.sentinel import NAME, deploy
from tests.harness.tls import Certificate, NoOpenSSL, serve_tls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.cluster import Cluster
    from tests.harness.servers import Server


@pytest.mark.parametrize(
    ("text", "kind", "hosts", "master", "options"),
    [
        ("redis://h", "", [("h", 6379)], "", {"host": "h", "port": 6379}),
        ("redis://h:1/2", "", [("h", 1)], "", {"port": 1, "db": 2}),
        ("redis://[::1]:7?socket_timeout=2", "", [("::1", 7)], "", {"host": "::1", "socket_timeout": 2.0}),
        (
            "rediss://a@h?ssl_ca_certs=x",
            "",
            [("h", 6379)],
            "",
            {"connection_class": SSLConnection, "username": "a"},
        ),
        ("redis://a:b%2F@h", "", [("h", 6379)], "", {"username": "a", "password": "b/"}),
        ("unix:///run/redis.sock?db=1", "", [], "", {"path": "/run/redis.sock", "db": 1}),
        ("redis+cluster://h,i:2", "cluster", [("h", 6379), ("i", 2)], "", {}),
        ("rediss+cluster://a:b@h/", "cluster", [("h", 6379)], "", {"username": "a", "password": "b"}),
        ("redis+sentinel://h,i:2/m", "sentinel", [("h", 26379), ("i", 2)], "m", {}),
        ("redis+sentinel://a@h/m%20x/3?sentinel_username=s", "sentinel", [("h", 26379)], "m x", {"db": 3}),
        ("REDISS+SENTINEL://h/m", "sentinel", [("h", 26379)], "m", {"connection_class": SSLConnection}),
    ],
)
def test_a_url_says_where_redis_is(
    text: str, kind: str, hosts: list[tuple[str, int]], master: str, options: dict[str, Any]
) -> None:
    place = parse(Url(text, typed=False))
    assert (place.kind, list(place.hosts), place.master) == (kind, hosts, master)
    assert place.options | options == place.options


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h,i",
            "redis://h/x",
            "redis://h/1/2",
            "redis://h:99999",
        ),
        *("redis+cluster://h/1", "redis+sentinel://h", "redis+sentinel://h/m/x", "redis+other://h", "redis://h?x"),
        *("redis://a:secret/b@h", "redis://a:se#secret@h", "redis://h?secret=1", "redis://h?db=secret"),
        *("redis+cluster://h,", "redis+sentinel://,/m", "redis://[secret", "redis://a:b@secret@h"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
def test_what_is_no_url_of_redis_is_refused_without_repeating_it(text: str, typed: bool) -> None:
    with pytest.raises(Unusable, match=r"^--redis: not a usable URL; it must begin with redis://") as refused:
        parse(Url(text, typed))
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        *("redis://:secret@h", "rediss://a:secret@h/1", "redis+cluster://a:secret@h", "unix://a:secret@/s"),
        *("redis://h?password=secret", "redis+sentinel://h/m?sentinel_password=secret"),
    ],
)
def test_a_password_must_not_be_typed(text: str) -> None:
    with pytest.raises(Unusable, match="can be read by everybody on this machine") as refused:
        parse(Url(text, typed=True))
    assert "secret" not in str(refused.value)
    assert "REDIS_PASSWORD or a file" in str(refused.value)
    assert "secret" in parse(Url(text, typed=False)).options.values()
    assert "secret" not in repr(Url(text, typed=False))
    assert "secret" not in repr(parse(Url(text, typed=False)))


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("of the file\nmore\n")

    def used(text: str, password_file: Path | None = None) -> object:
        target = Target(service="orders", redis=Url(text, typed=False), password_file=password_file)
        return parse(target.redis, target.password(), prefer=password_file is not None).options.get("password")

    assert used("redis://h") is None
    monkeypatch.setenv("REDIS_PASSWORD", "of the environment")
    assert used("redis://h") == "of the environment"
    assert used("redis://:own@h") == "own"
    assert used("redis://:own@h", file) == used("redis://h", file) == "of the file"


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"\nx", "empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_file_without_a_password(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unusable, match=f"^--password-file: .*{why}"):
        Target(service="orders", password_file=file).password()


def test_the_demo_gets_a_url_with_the_password_in_it() -> None:
    assert (
        full_url(Url("redis://a@[::1]:7/2?socket_timeout=1", typed=False), None, prefer=False)
        == "redis://a@[::1]:7/2?socket_timeout=1"
    )
    assert full_url(Url("redis://a@h/2", typed=True), "b@/", prefer=False) == "redis://a:b%40%2F@h/2"
    with pytest.raises(Unusable, match=r"one server is needed here, not redis\+cluster"):
        full_url(Url("redis+cluster://h", typed=True), None, prefer=False)


# Every deployment.


def test_behind_sentinel(
    service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with deploy() as deployment:
        make_streams(deployment.master, service, 1, members=0)
        url = f"redis+sentinel://{HOST}:1,{HOST}:{deployment.sentinel.port}/{NAME}"
        monkeypatch.setenv("REDIS_STREAM_SERVICE", service)
        status, printed, errors = run_command(capsys, "owner", "call-0", "--redis", url)
        assert (status, errors) == (0, [])
        assert printed[0].split() == ["stream", "call-0"]
        status, _, errors = run_command(capsys, "owner", "call-0", "--redis", f"{url}-no-such")
        assert status == 2
        assert len(errors) == 1


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_on_a_cluster(
    cluster: Cluster,
    service: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    """Streams are spread over all nodes, and any node will do."""
    monkeypatch.setenv("REDIS_STREAM_SERVICE", service)
    make_streams(cluster.owner_of(Keys(service).lbs), service, 12, members=0, prefix=f"{service}-call-")
    for node in cluster.masters:
        url = node.url.replace("redis://", f"{scheme}://{HOST}:1," if scheme != "redis" else "redis://")
        status, printed, errors = run_command(capsys, "status", "--lag", "--redis", url)
        assert (status, errors) == (0, [])
        assert "12 waiting" in printed[0]
        assert printed[1] == "nothing to read in 12 streams"


async def test_over_tls_with_a_password(own_server: Callable[..., Server], service: str, tmp_path: Path) -> None:
    try:
        certificate = Certificate(tmp_path)
    except NoOpenSSL as error:
        pytest.skip(str(error))
    async with serve_tls(own_server, certificate) as port:
        url = f"rediss://{HOST}:{port}?ssl_ca_certs={certificate.path}"
        async with connected(Target(service=service, redis=Url(url, typed=True))) as redis:
            assert (await Fleet(redis, service).status()).members == ()


def test_where_info_is_not_permitted_a_node_of_a_cluster_is_found_out_by_what_it_refuses(
    cluster: Cluster, service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_STREAM_SERVICE", service)
    owner = cluster.owner_of(Keys(service).lbs)
    make_members(owner, service, 1)
    for node in cluster.masters:
        node.command("ACL", "SETUSER", "oncall", "on", ">secret", "~*", "+@all", "-info")
    try:
        monkeypatch.setenv("REDIS_PASSWORD", "secret")
        for node in cluster.masters:
            url = re.sub("://", "://oncall@", node.url)
            assert run_command(capsys, "status", "--redis", url).status == 0
    finally:
        for node in cluster.masters:
            node.command("ACL", "DELUSER", "oncall")
