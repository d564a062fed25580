"""Dead letters: listed, put back and discarded, whoever wrote them, and what is said when it fails."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis, RedisCluster, Sentinel

from redis_stream_client import (
    DeadLetter,
    DeadLetters,
    LoadBalancerStream,
    RedisRejected,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
    StreamGone,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._protocol import scripts
from redis_stream_client.dead_letters import MOST_FIELDS, PAGE
from tests.harness.connection import EVERY_SETTING, Connection, lent_by
from tests.harness.letters import CONSUMER, REASON, announcement, bury, bury_stream, flat, written
from tests.harness.ports import HOST, free_port
from tests.harness.scenes import bury_one, next_event
from tests.harness.sentinel import NAME, deploy
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tests.harness.cluster import Cluster
    from tests.harness.letters import Pair
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

PUT_BACK = scripts.load("put_back").sha.encode()
"""What marks the script's call on the wire."""


@pytest.fixture
def letters(redis: Connection, service: str) -> DeadLetters:
    return DeadLetters(redis, service)


async def listed(letters: DeadLetters) -> list[str]:
    return [letter.id async for letter in letters]


async def announced(redis: Connection, service: str) -> list[tuple[str, list[bytes]]]:
    """Id and words of everything on the load balancer stream."""
    entries = await redis.xrange(Keys(service).lbs)
    return [(lbs_id.decode(), flat(list(fields.items()))) for lbs_id, fields in entries]


async def write(redis: Connection, service: str, *streams: str) -> list[str]:
    """Write a letter about each stream; returns the letters' ids."""
    pipeline = redis.pipeline(transaction=False)
    for stream in streams:
        pipeline.execute_command("XADD", Keys(service).dead, "*", *written([announcement(stream)]))
    return [(id if isinstance(id, str) else id.decode()) for id in await pipeline.execute()]


# Reading them.


async def test_a_letter_says_what_was_buried_when_by_whom_and_why(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    async with RedisStreamClient(redis, service) as client:
        before = datetime.now(UTC)
        await bury_one(client, redis, service)
    [letter] = [letter async for letter in letters]
    assert "not JSON" in letter.reason
    assert letter.consumer == client.id
    assert letter.deliveries == 1
    assert letter.fields == ((b"lbs-input", b"not JSON"),)
    assert (letter.stream, letter.info) == (None, None)
    assert abs(letter.time - before) < timedelta(seconds=60)
    assert int(letter.lbs_id.partition("-")[0]) <= int(letter.id.partition("-")[0])
    assert await letters.get(letter.id) == letter
    assert await letters.count() == 1


async def test_a_letter_about_a_well_formed_announcement_names_the_stream(
    server: Server, service: str, letters: DeadLetters
) -> None:
    letter_id = bury(server, service, [(b"before", b"\xff"), announcement("call-17", 17), (b"", b"\r\n")])
    letter = await letters.get(letter_id)
    assert letter is not None
    assert (letter.stream, letter.info) == ("call-17", {"number": 17})
    assert (letter.reason, letter.consumer, letter.deliveries) == (REASON, CONSUMER, 1)
    assert letter.fields == ((b"before", b"\xff"), announcement("call-17", 17), (b"", b"\r\n"))
    assert hash(letter)
    assert "lbs-input" not in repr(letter)  # which may be long


DETAILS = LetterDetails("3-0", "4-0", "LookupError", "no such customer", 16, 1, 1_790_000_000.5)


@pytest.mark.parametrize("further", [0, 2_100], ids=["few fields", "many fields"])
async def test_a_letter_says_where_the_stream_stood_and_what_had_happened_to_it(
    server: Server, redis: Connection, service: str, letters: DeadLetters, further: int
) -> None:
    fields = [announcement("call-17", 17), *((b"%d" % number, b"") for number in range(further))]
    letter_id = bury(server, service, fields, details=DETAILS.encode())
    letter = await letters.get(letter_id)
    assert letter is not None
    assert (letter.stream, letter.fields) == ("call-17", tuple(fields))
    assert (letter.position, letter.last_entry) == ("3-0", "4-0")
    assert (letter.error_type, letter.error) == ("LookupError", "no such customer")
    assert (letter.failures, letter.deaths, letter.failing_since) == (16, 1, 1_790_000_000.5)
    lbs_id = await letters.put_back(letter)
    assert await announced(redis, service) == [(lbs_id, flat(fields))]


async def test_a_letter_of_an_earlier_version_says_less(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    [letter_id] = await write(redis, service, "call-17")
    letter = await letters.get(letter_id)
    assert letter is not None
    assert (letter.stream, letter.position, letter.last_entry) == ("call-17", None, None)
    assert (letter.error_type, letter.error, letter.failing_since) == (None, None, None)
    assert (letter.failures, letter.deaths) == (0, 0)


async def test_details_of_a_letter_that_make_no_sense_hide_nothing_else(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    words = written([])
    for details in (b"", b"\xff", b"[]", b'{"position": 5, "deaths": "many", "failing_since": NaN}'):
        fields = [*words, b"letter-details", details, *flat([announcement("call-17")])]
        letter_id = await redis.execute_command("XADD", Keys(service).dead, "*", *fields)
        letter = await letters.get(letter_id.decode())
        assert letter is not None
        assert (letter.stream, letter.position, letter.deaths) == ("call-17", None, 0)
        await letters.put_back(letter)
    assert [words for _, words in await announced(redis, service)] == [flat([announcement("call-17")])] * 4


async def test_letters_are_listed_in_pages_and_the_oldest_first(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    for count in (0, 1, PAGE, 2 * PAGE + 1):
        await redis.delete(Keys(service).dead)
        ids = await write(redis, service, *(f"call-{number}" for number in range(count)))
        assert await listed(letters) == ids
        assert await letters.count() == count


async def test_letters_that_are_removed_while_they_are_listed_disturb_nobody(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    ids = await write(redis, service, *(f"call-{number}" for number in range(4 * PAGE)))
    seen: list[str] = []
    async for letter in letters:
        seen.append(letter.id)
        assert await letters.discard(letter)
        if len(seen) == 1:
            await redis.xdel(Keys(service).dead, *ids[PAGE : 2 * PAGE], *ids[-PAGE:])
    assert seen == ids[:PAGE] + ids[2 * PAGE : 3 * PAGE]
    assert await letters.count() == 0


async def test_letters_that_are_buried_while_they_are_listed_come_the_next_time(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    await write(redis, service, *(f"call-{number}" for number in range(PAGE)))
    again = [await write(redis, service, "call-again") async for _ in letters]  # or this would never end
    assert (await listed(letters))[PAGE:] == [id for ids in again for id in ids]


async def test_leaving_a_listing_early_leaves_nothing_behind(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    ids = await write(redis, service, "a", "b", "c")
    for _ in range(3):
        async for letter in letters:
            assert letter.id == ids[0]
            break
    listing = aiter(letters)
    assert [letter.id async for letter in listing] == ids
    assert [letter async for letter in listing] == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([b"text", b"written by hand"], id="by hand"),
        pytest.param(flat([announcement("call-1")]), id="without head"),
        pytest.param([b"", b""], id="empty"),
        pytest.param([b"\xff", b"\xfe\n"], id="no text"),
        pytest.param(written([]), id="nothing but the head"),
        pytest.param([*written([])[:6], b"deliveries", b"many", b"a", b"b"], id="a head without number"),
        pytest.param([*written([])[:6], b"deliveries", b"9" * 5000], id="a head with a huge number"),
        pytest.param([b"reason", b"\xff\x1b[2J", *written([(b"a", b"b")])[2:]], id="a reason that is no text"),
        pytest.param(written([(b"fields-msgpack", b"\xdd\xff\xff\xff\xffno")]), id="packed badly"),
        pytest.param(written([(b"fields-msgpack", b"\x92\xa1a\xa1b")]), id="packed needlessly"),
        pytest.param(written([(b"lbs-input", b"\x00" * 2**20)]), id="1 MB"),
        pytest.param(written([(b"lbs-input", b'{"DataStreamName": "{"}')]), id="a name with a brace"),
    ],
)
async def test_what_somebody_else_wrote_is_listed_and_not_put_back(
    redis: Connection, service: str, letters: DeadLetters, words: list[bytes]
) -> None:
    raw = await redis.execute_command("XADD", Keys(service).dead, "*", *words)
    [good] = await write(redis, service, "call-17")
    broken, letter = [letter async for letter in letters]
    assert letter.id == good
    assert broken.id == raw.decode()
    assert broken.stream is None
    assert flat(broken.fields) == words[len(words) - 2 * len(broken.fields) :]
    assert (broken.reason == "") == (broken.consumer == "") == (broken.deliveries == 0)
    with pytest.raises(ValueError, match="cannot be put back"):
        await letters.put_back(broken)
    assert await letters.discard(broken)
    assert await listed(letters) == [good]


async def test_ids_that_no_clock_gives_are_listed_all_the_same(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    ids = ["0-1", f"{2**63}-7", f"{2**64 - 1}-{2**64 - 1}"]
    for id in ids:
        await redis.execute_command("XADD", Keys(service).dead, id, *written([announcement("call-1")]))
    assert await listed(letters) == ids
    times = [letter.time async for letter in letters]
    assert times[0] == datetime(1970, 1, 1, tzinfo=UTC)
    assert times[1] == times[2] > datetime(9999, 12, 31, tzinfo=UTC)
    for id in ids:
        assert await letters.discard(id)


async def test_a_letter_that_is_not_there(letters: DeadLetters) -> None:
    assert await letters.get("1-1") is None
    assert await letters.discard("1-1") is False
    assert await letters.count() == 0
    with pytest.raises(StreamGone, match="no dead letter 1-1"):
        await letters.put_back("1-1")


# Putting back.


async def test_a_stream_that_is_put_back_gets_an_owner_again(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    letter_id = bury_stream(server, service, "call-17")
    letter = await letters.get(letter_id)
    assert letter is not None
    async with RedisStreamClient(redis, service) as client:
        lbs_id = await letters.put_back(letter)
        lease = (await next_event(client, StreamAdded)).payload
        assert (lease.stream, lease.info, lease.lbs_id) == ("call-17", {"number": 0}, lbs_id)
        assert lease.lbs_id > letter.lbs_id  # so the fence is greater too
        assert await letters.count() == 0
        await lease.done()


@pytest.mark.parametrize("count", [0, 1, 1998, 1999, 2000, 2001, 2003, 3999, 5000, MOST_FIELDS - 1])
async def test_the_fields_are_announced_again_byte_for_byte(
    server: Server, redis: Connection, service: str, letters: DeadLetters, count: int
) -> None:
    further = [(b"%d\xff" % number, b"\x00\r\n" * (number % 99)) for number in range(count)]
    fields = [*further, announcement("call-17")]
    letter_id = bury(server, service, fields)
    letter = await letters.get(letter_id)
    assert letter is not None
    assert letter.fields == tuple(fields)
    lbs_id = await letters.put_back(letter_id)
    assert await announced(redis, service) == [(lbs_id, flat(fields))]
    assert await letters.count() == 0
    assert bury_again(server, service) > letter_id
    assert [again.fields async for again in letters] == [tuple(fields)]


def bury_again(server: Server, service: str) -> str:
    """Bury what was put back; returns the letter's id."""
    keys = Keys(service)
    [(lbs_id, _)] = server.command("XRANGE", keys.lbs, "-", "+")
    server.command("XREADGROUP", "GROUP", keys.group, CONSUMER, "STREAMS", keys.lbs, ">")
    arguments = (keys.group, CONSUMER, lbs_id, 1, REASON, "", "")
    names = (keys.lbs, keys.dead, keys.announced)
    assert server.command("EVAL", scripts.load("bury").text, 3, *names, *arguments) == b"buried"
    [(letter_id, _)] = server.command("XRANGE", keys.dead, "-", "+")
    return str(letter_id.decode())


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ([(b"lbs-input", b"no JSON")], r"malformed \(not JSON.* would only come back"),
        ([(b"other", b"field")], "no field 'lbs-input'"),
        ([announcement("call-1"), announcement("call-2")], "more than one field"),
        ([(b"%d" % number, b"") for number in range(3000)], "no field 'lbs-input'"),
        (
            [announcement("call-1"), *((b"%d" % number, b"") for number in range(MOST_FIELDS))],
            "10001 fields, more than 10000",
        ),
    ],
    ids=["no JSON", "no field", "two fields", "many fields", "too many fields"],
)
async def test_what_would_only_come_back_is_refused_and_stays_where_it_is(
    server: Server, redis: Connection, service: str, letters: DeadLetters, fields: Sequence[Pair], because: str
) -> None:
    letter_id = bury(server, service, fields)
    letter = await letters.get(letter_id)
    assert letter is not None
    for either in (letter, letter_id):
        with pytest.raises(ValueError, match=because) as refused:
            await letters.put_back(either)
        assert letter_id in str(refused.value)
        assert "discard it, or announce the stream with LoadBalancerStream.add()" in str(refused.value)
    assert [letter async for letter in letters] == [letter]
    assert await announced(redis, service) == []


async def test_a_letter_is_put_back_once_whoever_asks(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    letter = await letters.get(bury_stream(server, service, "call-17"))
    assert letter is not None
    outcomes = await asyncio.gather(*(letters.put_back(letter) for _ in range(8)), return_exceptions=True)
    [lbs_id] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    gone = [outcome for outcome in outcomes if isinstance(outcome, StreamGone)]
    assert len(gone) == 7
    assert {(error.stream, error.lbs_id) for error in gone} == {("call-17", letter.lbs_id)}
    assert [announcement[0] for announcement in await announced(redis, service)] == [lbs_id]
    assert await letters.discard(letter) is False


async def test_a_flush_of_the_scripts_goes_unnoticed(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    for number in range(3):
        await letters.put_back(bury_stream(server, service, f"call-{number}"))
        await redis.script_flush()
    assert len(await announced(redis, service)) == 3


# Misuse.


@pytest.mark.parametrize("method", ["get", "put_back", "discard"])
@pytest.mark.parametrize(
    ("letter", "error", "message"),
    [
        ("", ValueError, "looks like"),
        ("17", ValueError, "looks like"),
        ("17-", ValueError, "looks like"),
        ("-", ValueError, "looks like"),
        ("+", ValueError, "looks like"),
        ("(1-1", ValueError, "looks like"),
        ("1-1 ", ValueError, "looks like"),
        ("١-١", ValueError, "looks like"),
        (f"1-{2**64}", ValueError, "looks like"),
        (b"1-1", TypeError, "decode it first"),
        (17, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
    ],
)
async def test_what_is_no_letter_is_said(
    letters: DeadLetters, method: str, letter: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await getattr(letters, method)(letter)


async def test_what_cannot_be_a_service_is_said(redis: Connection) -> None:
    with pytest.raises(ValueError, match="service"):
        DeadLetters(redis, "{")
    with pytest.raises(TypeError, match="redis must be"):
        DeadLetters("redis://localhost", "orders")  # type: ignore[arg-type]
    assert repr(DeadLetters(redis, "orders")) == "<DeadLetters of 'orders'>"


# Any client, anywhere.


@EVERY_SETTING
async def test_any_client_will_do_and_gets_its_connection_back(
    server: Server, service: str, settings: dict[str, Any]
) -> None:
    async with Redis(host=HOST, port=server.port, **settings) as redis:
        lent = lent_by(redis)
        await everything(redis, service, await write(redis, service, "a", "b", "c"))
        assert not lent


async def everything(redis: Connection, service: str, ids: list[str]) -> None:
    """Do what can be done to three letters."""
    letters = DeadLetters(redis, service)
    assert await letters.count() == 3
    async for letter in letters:
        assert letter.id in ids
        if letter.id == ids[0]:
            assert await letters.discard(letter)
        else:
            assert isinstance(await letters.put_back(letter), str)
    assert await letters.count() == 0
    assert await redis.xlen(Keys(service).lbs) == 2


async def test_in_a_cluster(cluster: Cluster, service: str) -> None:
    services = [f"{service}-{number}" for number in range(20)]
    by_node = {cluster.owner_of(Keys(name).lbs).port: name for name in services}
    assert len(by_node) == len(cluster.nodes)
    async with RedisCluster.from_url(cluster.url) as redis:
        for name in by_node.values():
            node = cluster.owner_of(Keys(name).lbs)
            await everything(redis, name, [bury_stream(node, name, stream) for stream in "abc"])


async def test_through_sentinels(service: str) -> None:
    with deploy() as deployment:
        sentinel: Connection = Sentinel([(HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]
        async with sentinel.master_for(NAME) as redis:
            ids = [bury_stream(deployment.master, service, stream) for stream in "abc"]
            await everything(redis, service, ids)
        for known in sentinel.sentinels:
            await known.aclose()


OPERATOR = ("xadd", "xdel", "xlen", "xrange", "xrevrange", "eval", "evalsha")


@pytest.mark.parametrize("missing", [None, *OPERATOR[:-2]])
async def test_an_operator_needs_these_commands_on_two_keys(
    server: Server, redis: Connection, service: str, missing: str | None
) -> None:
    commands = [f"+{command}" for command in OPERATOR if command != missing]
    keys = [f"~{Keys(service).lbs}", f"~{Keys(service).dead}"]
    ids = [bury_stream(server, service, stream) for stream in "abc"]
    await redis.execute_command("ACL", "SETUSER", "operator", "on", ">secret", "resetkeys", *keys, *commands)
    try:
        async with Redis.from_url(server.url.replace("redis://", "redis://operator:secret@")) as guest:
            if missing is None:
                await everything(guest, service, ids)
            else:
                with pytest.raises(RedisRejected, match="does not permit"):
                    await everything(guest, service, ids)
    finally:
        await redis.acl_deluser("operator")


# Faults.


@pytest.fixture
async def single(proxy: TcpProxy) -> AsyncIterator[Redis]:
    """A client behind the proxy, with one connection, a short time-out and no retries."""
    url = f"{proxy.url}?max_connections=1&socket_timeout=0.3"
    async with Redis.from_url(url) as redis:
        yield redis


@pytest.mark.parametrize("cut", [False, True])
async def test_a_lost_reply_to_putting_back_never_announces_twice(
    server: Server, proxy: TcpProxy, single: Redis, redis: Connection, service: str, cut: bool
) -> None:
    lent = lent_by(single)
    letters = DeadLetters(single, service)
    await letters.put_back(bury_stream(server, service, "the server knows the script"))
    letter = await letters.get(bury_stream(server, service, "call-17"))
    assert letter is not None
    fault = proxy.drop_replies_after(PUT_BACK, cut=cut)
    with pytest.raises(RedisUnavailable, match="may have been put back; repeating is safe"):
        await letters.put_back(letter)
    await wait_until(lambda: fault.swallowed, "it was executed")
    proxy.heal()
    assert not lent
    with pytest.raises(StreamGone):
        await letters.put_back(letter)
    assert len(await announced(redis, service)) == 2


async def test_what_was_never_executed_can_be_repeated(
    server: Server, proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    letters = DeadLetters(single, service)
    letter_id = bury_stream(server, service, "call-17")
    proxy.drop_requests_matching(PUT_BACK)
    with pytest.raises(RedisUnavailable):
        await letters.put_back(letter_id)
    proxy.heal()
    lbs_id = await letters.put_back(letter_id)
    assert [announcement[0] for announcement in await announced(redis, service)] == [lbs_id]


async def test_a_lost_reply_to_discarding(server: Server, proxy: TcpProxy, single: Redis, service: str) -> None:
    letters = DeadLetters(single, service)
    letter_id = bury_stream(server, service, "call-17")
    fault = proxy.drop_replies_after(b"XDEL")
    with pytest.raises(RedisUnavailable, match="may have been discarded"):
        await letters.discard(letter_id)
    await wait_until(lambda: fault.swallowed, "it was executed")
    proxy.heal()
    assert await letters.discard(letter_id) is False


async def test_a_lost_request_to_discard(server: Server, proxy: TcpProxy, single: Redis, service: str) -> None:
    letters = DeadLetters(single, service)
    letter_id = bury_stream(server, service, "call-17")
    proxy.drop_requests_matching(b"XDEL")
    with pytest.raises(RedisUnavailable, match="repeating is safe"):
        await letters.discard(letter_id)
    proxy.heal()
    assert await letters.get(letter_id) is not None
    assert await letters.discard(letter_id) is True


async def test_a_listing_that_failed_can_be_continued_and_has_skipped_nothing(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    ids = await write(redis, service, *(f"call-{number}" for number in range(2 * PAGE + 1)))
    seen: list[str] = []
    failures: list[str] = []
    strikes = {1, PAGE + 1}
    listing = aiter(DeadLetters(single, service))
    while True:
        try:
            seen.append((await anext(listing)).id)
        except RedisUnavailable as error:
            failures.append(str(error))
            proxy.heal()
        except StopAsyncIteration:
            break
        if len(seen) in strikes:
            strikes.remove(len(seen))
            proxy.drop_replies_after(b"XRANGE")
    assert seen == ids
    assert len(failures) == 2
    assert all(failure.startswith("could not read the dead letters: ") for failure in failures)


@pytest.fixture
def large(redis: Connection, service: str) -> Callable[[int], Awaitable[list[str]]]:
    """Give a function that writes so many letters of a megabyte; it returns their ids."""

    async def write(count: int) -> list[str]:
        words = written([(b"lbs-input", b"x" * 10**6)])
        raw = [await redis.execute_command("XADD", Keys(service).dead, "*", *words) for _ in range(count)]
        return [id.decode() for id in raw]

    return write


async def test_large_letters_take_the_time_that_a_slow_line_needs(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str, large: Callable[[int], Awaitable[list[str]]]
) -> None:
    ids = await write(redis, service, *(f"call-{number}" for number in range(30)))
    ids += await large(6)
    ids += await write(redis, service, "last")
    proxy.bandwidth(replies=4_000_000)  # a letter takes 0.25 s, and all of them 1.5 s
    letters = DeadLetters(single, service)
    assert await listed(letters) == ids
    assert (await letters.get(ids[31])) is not None


async def test_letters_that_are_too_many_for_the_servers_buffers_come_in_smaller_pages(
    redis: Connection, service: str, large: Callable[[int], Awaitable[list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    small = await write(redis, service, *(f"call-{number}" for number in range(100)))
    ids = small + await large(25)
    await redis.config_set("client-output-buffer-limit", "normal 1500kb 1500kb 0")
    assert await listed(DeadLetters(redis, service)) == ids
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(r"dead letters in a page: 2 requests in a row without an answer, .* waits 5 s$", warning)


async def test_one_letter_that_is_too_large_says_what_may_be_the_matter(
    redis: Connection, service: str, large: Callable[[int], Awaitable[list[str]]]
) -> None:
    ids = await write(redis, service, "a", "b")
    [huge] = await large(1)
    ids += await write(redis, service, "c")
    await redis.config_set("client-output-buffer-limit", "normal 500kb 500kb 0")
    letters = DeadLetters(redis, service)
    listing = aiter(letters)
    assert [(await anext(listing)).id for _ in range(2)] == ids[:2]
    for _ in range(2):
        with pytest.raises(RedisUnavailable, match="client-output-buffer-limit"):
            await anext(listing)
    assert await letters.discard(huge)
    assert [letter.id async for letter in listing] == ids[2:]


async def test_a_cancelled_step_of_a_listing_can_be_repeated_and_skips_nothing(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    ids = await write(redis, service, *(f"call-{number}" for number in range(60)))
    listing = aiter(DeadLetters(single, service))
    seen: list[str] = []

    async def step() -> str:
        return (await anext(listing)).id

    cancelled = 0
    while len(seen) < 60:
        proxy.freeze(requests=False)
        stepping = asyncio.create_task(step())
        await asyncio.wait((stepping,), timeout=0.02)
        if stepping.cancel():
            cancelled += 1
            await asyncio.wait((stepping,))
        proxy.thaw()
        seen.append(await step() if stepping.cancelled() else stepping.result())
    assert seen == ids
    assert cancelled >= 4


async def test_a_cancelled_call_gives_back_a_connection_that_answers_nobody_else(
    server: Server, proxy: TcpProxy, single: Redis, service: str
) -> None:
    lent = lent_by(single)
    letters = DeadLetters(single, service)
    letter = await letters.get(bury_stream(server, service, "call-17"))
    assert letter is not None
    proxy.freeze(requests=False)
    task = asyncio.create_task(letters.put_back(letter))
    await wait_until(lambda: lent, "it waits for the reply")
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    proxy.thaw()
    assert not lent
    assert await single.ping() is True


async def test_a_server_that_is_not_there_is_unavailable(service: str) -> None:
    async with Redis.from_url(f"redis://{HOST}:{free_port()}") as nowhere:
        letters = DeadLetters(nowhere, service)
        calls: list[Callable[[], Any]] = [
            letters.count,
            lambda: letters.get("1-1"),
            lambda: letters.put_back("1-1"),
            lambda: letters.discard("1-1"),
            lambda: listed(letters),
        ]
        for call in calls:
            with pytest.raises(RedisUnavailable) as caught:
                await call()
            assert caught.value.__cause__ is not None
            assert "may have been" not in str(caught.value)
        with pytest.raises(RedisUnavailable, match=r"\(nothing was changed\)$"):
            await letters.discard("1-1")


async def test_a_full_redis_keeps_the_letter(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    letter_id, other_id = bury_stream(server, service, "call-17"), bury_stream(server, service, "call-18")
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match=r"OOM .*\(nothing was changed\)$"):
        await letters.put_back(letter_id)
    assert await listed(letters) == [letter_id, other_id]
    assert await letters.discard(other_id)
    await redis.config_set("maxmemory", 0)
    await letters.put_back(letter_id)
    assert len(await announced(redis, service)) == 1


async def test_another_type_under_the_services_keys_is_refused_for_good(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    lent = lent_by(redis)
    letter_id = bury_stream(server, service, "call-17")
    await redis.set(Keys(service).lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await letters.put_back(letter_id)
    assert await listed(letters) == [letter_id]
    await redis.set(Keys(service).dead, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await listed(letters)
    assert not lent


async def test_putting_back_works_after_the_load_balancer_stream_was_deleted(
    server: Server, redis: Connection, service: str, letters: DeadLetters
) -> None:
    letter_id = bury_stream(server, service, "call-17")
    await redis.delete(Keys(service).lbs)
    lbs_id = await letters.put_back(letter_id)
    async with RedisStreamClient(redis, service) as client:
        lease = (await next_event(client, StreamAdded, "call-17")).payload
        assert lease.lbs_id == lbs_id
        await lease.done()


async def test_a_malformed_announcement_is_announced_anew_and_its_letter_discarded(
    redis: Connection, service: str, letters: DeadLetters
) -> None:
    """What the refusal to put back a letter tells to do."""
    async with RedisStreamClient(redis, service) as client:
        await bury_one(client, redis, service)
        [letter] = [letter async for letter in letters]
        await LoadBalancerStream(redis, service).add("call-17")
        assert await letters.discard(letter)
        await (await next_event(client, StreamAdded, "call-17")).payload.done()


# What a script packed.


def test_a_letter_compares_by_what_was_buried() -> None:
    def letter(**changes: Any) -> DeadLetter:
        said: dict[str, Any] = {"id": "1-0", "reason": "r", "lbs_id": "1-0", "consumer": "c", "deliveries": 1}
        return DeadLetter(**(said | {"stream": None, "info": None, "fields": ()} | changes))

    assert letter() == letter()
    assert letter() != letter(id="2-0")
