"""Names of keys: what one script touches lies in one slot, and two services never meet."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from redis_stream_client._model.keys import NOBODY, Keys, name_problem, require_name

CONSUMER = "redis-consumer-a-00c0ffee"

services = st.text(alphabet=st.sampled_from("ab{}:-*?[]\\ é"), min_size=1, max_size=12).filter(
    lambda name: name_problem(name) is None
)


def all_keys(keys: Keys) -> list[str]:
    return [keys.lbs, keys.dead, keys.announced, keys.control, keys.sweep, keys.lock(CONSUMER), keys.lock(NOBODY)]


def test_the_keys_are_the_documented_ones() -> None:
    keys = Keys("orders")
    assert keys.lbs == "orders-input"
    assert keys.group == "orders-group"
    assert keys.lock(CONSUMER) == "{orders-input}:lock:redis-consumer-a-00c0ffee"
    assert keys.dead == "{orders-input}:dead"
    assert keys.announced == "{orders-input}:announced"
    assert keys.control == "{orders-input}:control"
    assert keys.sweep == "{orders-input}:sweep"


def test_a_hash_tag_in_the_service_is_reused() -> None:
    keys = Keys("{a}b")
    assert keys.lbs == "{a}b-input"
    assert keys.lock(CONSUMER) == "{a}b-input:lock:redis-consumer-a-00c0ffee"
    assert key_slot(keys.lock(CONSUMER).encode()) == key_slot(b"a")


@given(services)
def test_all_keys_of_a_service_lie_in_one_slot(service: str) -> None:
    keys = Keys(service)
    assert len({key_slot(key.encode()) for key in all_keys(keys)}) == 1


@given(services, services)
def test_two_services_never_share_a_key(one: str, other: str) -> None:
    assume(one != other)
    assert not set(all_keys(Keys(one))) & set(all_keys(Keys(other)))


@pytest.mark.parametrize("name", ["a", "a:b", "{a}", "{a}b", "x{a}y", "{a}{b}", "{a{b}c}", "ümlaut", "a b", "*"])
def test_a_name_whose_braces_are_balanced_is_taken(name: str) -> None:
    assert require_name(name, "service") == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must not be empty"),
        ("{", "has unbalanced braces"),
        ("}", "has unbalanced braces"),
        ("a{b", "has unbalanced braces"),
        ("a}b{", "has unbalanced braces"),
        ("{a}}", "has unbalanced braces"),
        ("{}", "has empty braces"),
        ("{a}{}", "has empty braces"),
        ("a{}b", "has empty braces"),
        ("\udcff", "cannot be encoded as UTF-8"),
    ],
)
def test_a_name_that_would_break_the_hash_tag_is_a_value_error_that_says_why(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"service {problem}"):
        require_name(name, "service")


@pytest.mark.parametrize("name", [None, 17, b"orders", ["orders"]])
def test_a_name_that_is_no_text_is_a_type_error(name: Any) -> None:
    with pytest.raises(TypeError, match=f"service must be a str, not {type(name).__name__}"):
        require_name(name, "service")


@pytest.mark.parametrize("db", [0, 1, 15])
def test_the_notifications_are_those_of_the_connections_own_database(db: int) -> None:
    keys = Keys("orders")
    assert keys.lock_events(db) == f"__keyspace@{db}__:{{orders-input}}:lock:*"
    channel = f"__keyspace@{db}__:{keys.lock(CONSUMER)}".encode()
    assert keys.consumer_of(channel, db) == CONSUMER
    assert keys.consumer_of(channel, db + 1) is None


@pytest.mark.parametrize("char", ["*", "?", "[", "]", "\\"])
def test_glob_characters_in_the_service_are_escaped(char: str) -> None:
    assert f"{{a\\{char}b-input}}" in Keys(f"a{char}b").lock_events(0)


@pytest.mark.parametrize("service", ["a*", "a?", "[ab]", "a"])
def test_a_pattern_matches_no_other_services_locks(service: str) -> None:
    keys = Keys(service)
    pattern = keys.lock_events(0)
    for char in "*?[]":  # fnmatch has no backslash: it writes these as sets
        pattern = pattern.replace(f"\\{char}", f"[{char}]")
    assert fnmatch.fnmatchcase(f"__keyspace@0__:{keys.lock(CONSUMER)}", pattern)
    for other in ("ab", "b", "aa", "abc"):
        assert not fnmatch.fnmatchcase(f"__keyspace@0__:{Keys(other).lock(CONSUMER)}", pattern)


def test_what_is_heard_about_another_services_lock_is_nobodys() -> None:
    channel = f"__keyspace@0__:{Keys('other').lock(CONSUMER)}".encode()
    assert Keys("orders").consumer_of(channel, 0) is None


# The records of progress.


def test_a_record_is_where_it_has_been() -> None:
    keys = Keys("orders")
    assert keys.progress("call-1") == "{call-1}:orders:progress"
    assert keys.progress("{a}b") == "{a}b:orders:progress"
    assert keys.progress("b{a}") == "b{a}:orders:progress"
    assert [keys.former_progress(stream) for stream in ("call-1", "{a}b", "b{a}", "{a}{b}", "{{a}}")] == [None] * 5


def test_a_name_that_is_one_hash_tag_has_a_record_of_its_own() -> None:
    keys = Keys("orders")
    assert keys.progress("{call-1}") == "{call-1}:orders:progress:tagged"
    assert keys.former_progress("{call-1}") == "{call-1}:orders:progress"


def test_the_colons_of_a_service_are_escaped() -> None:
    assert Keys("prod:orders").progress("call-1") == "{call-1}:prod%3Aorders:progress"
    assert Keys("prod:orders").former_progress("call-1") == "{call-1}:prod:orders:progress"
    assert Keys("a").progress("{x}:b") != Keys("b:a").progress("x")
    assert Keys("b%3Aa").progress("x") != Keys("b:a").progress("x")


streams = st.text(alphabet=st.sampled_from("ab{}:%3A "), min_size=1, max_size=14).filter(
    lambda name: name_problem(name) is None
)
hosts = st.text(alphabet=st.sampled_from("ab{}:%3A "), min_size=1, max_size=10).filter(
    lambda name: name_problem(name) is None
)


@given(streams, hosts)
def test_a_record_is_in_its_streams_slot(stream: str, service: str) -> None:
    assert key_slot(Keys(service).progress(stream).encode()) == key_slot(stream.encode())


@given(st.tuples(streams, hosts), st.tuples(streams, hosts))
def test_two_streams_never_share_a_record(one: tuple[str, str], other: tuple[str, str]) -> None:
    assume(one != other)
    assert Keys(one[1]).progress(one[0]) != Keys(other[1]).progress(other[0])


@given(streams, hosts, hosts)
def test_a_record_is_no_key_of_a_service(stream: str, service: str, other: str) -> None:
    assert Keys(service).progress(stream) not in all_keys(Keys(other))


def test_a_channel_that_is_no_utf8_is_survived() -> None:
    keys = Keys("orders")
    channel = f"__keyspace@0__:{keys.lock('')}".encode() + b"\xff"
    assert keys.consumer_of(channel, 0) == "\ufffd"
