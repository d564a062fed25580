"""The wire format of the load balancer stream: what is written, what is read, and what is refused."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._model.announcement import (
    FIELD,
    MAX_BYTES,
    MAX_TRACESTATE,
    Announcement,
    Malformed,
    carrier_of,
    decode,
    encode,
    trace_context,
)
from redis_stream_client._model.keys import name_problem

WRITTEN_BY_GO = [
    (b'{"DataStreamName":"call-17","Info":{"lang":"de"}}', Announcement("call-17", {"lang": "de"})),
    (b'{"DataStreamName":"call-17","Info":null}', Announcement("call-17", None)),
    (b'{"DataStreamName":"call-17"}', Announcement("call-17", None)),
    (b'{"DataStreamName":"a\\u003cb\\u0026","Info":{}}', Announcement("a<b&", {})),
]


def entry(value: bytes) -> list[bytes]:
    """The fields of an entry, as Redis gives them."""
    return [FIELD.encode(), value]


def names() -> st.SearchStrategy[str]:
    return st.text(min_size=1).filter(lambda name: name_problem(name) is None)


def infos() -> st.SearchStrategy[dict[str, Any] | None]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    values = st.recursive(
        scalars | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
    return st.none() | st.dictionaries(st.text(), values, max_size=5)


def test_the_field_has_the_name_that_the_go_library_gives_it() -> None:
    assert FIELD == "lbs-input"


def test_what_is_written_has_the_keys_that_the_go_library_reads() -> None:
    assert json.loads(encode("call-17", {"lang": "de"})) == {
        "DataStreamName": "call-17",
        "Info": {"lang": "de"},
    }


@pytest.mark.parametrize(("written", "announced"), WRITTEN_BY_GO)
def test_what_the_go_library_writes_is_read(written: bytes, announced: Announcement) -> None:
    assert decode(entry(written)) == announced


@given(stream=names(), info=infos())
def test_what_was_written_is_read_unchanged(stream: str, info: dict[str, Any] | None) -> None:
    assert decode(entry(encode(stream, info))) == Announcement(stream, info)


@given(st.lists(st.binary(max_size=30)) | st.builds(entry, st.binary(max_size=60)))
def test_any_bytes_are_either_an_announcement_or_malformed(fields: list[bytes]) -> None:
    try:
        announced = decode(fields)
    except Malformed:
        return
    else:
        assert announced.stream


def test_fields_of_others_beside_ours_are_ignored() -> None:
    assert decode([b"trace", b"\xff", *entry(encode("call-17"))]).stream == "call-17"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param([], "no field 'lbs-input'", id="no fields"),
        pytest.param([b"other", b"{}"], "no field 'lbs-input'", id="other field"),
        pytest.param([b"lbs-input"], "no field 'lbs-input'", id="name without value"),
        pytest.param(entry(b"{}") * 2, "more than one field", id="field twice"),
        pytest.param(entry(b""), "not JSON", id="empty"),
        pytest.param(entry(b"call-17"), "not JSON", id="not JSON"),
        pytest.param(entry(b'{"DataStreamName":"x"} '[:-2]), "not JSON", id="cut off"),
        pytest.param(entry(b'{"DataStreamName":"x","Info":{"a":NaN}}'), "NaN is not JSON", id="NaN"),
        pytest.param(entry(b"[" * 200_000), "not JSON", id="nested too deeply"),
        pytest.param(entry(b'{"DataStreamName":"\xff"}'), "not UTF-8", id="invalid UTF-8"),
        pytest.param(entry(b'["DataStreamName"]'), "not a JSON object but a list", id="list"),
        pytest.param(entry(b"17"), "not a JSON object but a int", id="number"),
        pytest.param(entry(b"null"), "not a JSON object", id="null"),
        pytest.param(entry(b"{}"), "no DataStreamName", id="no name"),
        pytest.param(entry(b'{"DataStreamName":null}'), "no DataStreamName", id="null name"),
        pytest.param(entry(b'{"DataStreamName":17}'), "DataStreamName is not a string", id="number as name"),
        pytest.param(entry(b'{"DataStreamName":["x"]}'), "DataStreamName is not a string", id="list as name"),
        pytest.param(entry(b'{"DataStreamName":""}'), "DataStreamName must not be empty", id="empty name"),
        pytest.param(entry(b'{"DataStreamName":"{x"}'), "unbalanced braces", id="unbalanced braces"),
        pytest.param(entry(b'{"DataStreamName":"}x{"}'), "unbalanced braces", id="braces the wrong way"),
        pytest.param(entry(b'{"DataStreamName":"{}x"}'), "empty braces", id="empty braces"),
        pytest.param(entry(b'{"DataStreamName":"\\ud800"}'), "UTF-8", id="half a surrogate pair"),
        pytest.param(entry(b'{"DataStreamName":"x","Info":"y"}'), "Info is not an object", id="text as info"),
        pytest.param(entry(b'{"DataStreamName":"x","Info":[]}'), "Info is not an object", id="list as info"),
        pytest.param(entry(b'{"DataStreamName":"x","Info":0}'), "Info is not an object", id="0 as info"),
        pytest.param(
            entry(b'{"DataStreamName":"x","Info":{"a":"' + b"a" * 2**20 + b'"}}'), "bytes, more than", id="1 MB"
        ),
    ],
)
def test_a_malformed_announcement_is_refused_with_its_reason(fields: list[bytes], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode(fields)


@pytest.mark.parametrize(
    ("stream", "info", "error", "message"),
    [
        (b"x", None, TypeError, "stream must be a str, not bytes"),
        (None, None, TypeError, "stream must be a str, not NoneType"),
        ("", None, ValueError, "stream must not be empty"),
        ("a}{b", None, ValueError, "stream has unbalanced braces"),
        ("{}", None, ValueError, "stream has empty braces"),
        ("\ud800", None, ValueError, "stream cannot be encoded"),
        ("x", "info", TypeError, "info must be a mapping or None, not str"),
        ("x", [("a", 1)], TypeError, "info must be a mapping or None, not list"),
        ("x", {"a": object()}, TypeError, "info must be JSON"),
        ("x", {("a", "b"): 1}, TypeError, "info must be JSON"),
        ("x", {"a": float("nan")}, ValueError, "info must be JSON"),
        ("x", {"a": float("inf")}, ValueError, "info must be JSON"),
    ],
)
def test_what_no_consumer_would_accept_is_refused_when_it_is_written(
    stream: Any, info: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(stream, info)


def test_an_info_that_contains_itself_is_refused_when_it_is_written() -> None:
    info: dict[str, Any] = {}
    info["itself"] = info
    with pytest.raises(ValueError, match="info must be JSON"):
        encode("x", info)


def test_what_is_written_may_be_as_large_as_what_is_read_and_no_larger() -> None:
    frame = len(encode("x", {"a": ""}))
    largest = encode("x", {"a": "b" * (MAX_BYTES - frame)})
    assert len(largest) == MAX_BYTES
    assert decode(entry(largest)).stream == "x"
    with pytest.raises(ValueError, match="write large data to the data stream itself"):
        encode("x", {"a": "b" * (MAX_BYTES - frame + 1)})


def test_info_may_be_any_mapping() -> None:
    assert decode(entry(encode("x", MappingProxyType({"a": 1})))).info == {"a": 1}


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "congo=t61rcWkgMzE,rojo@vendor=00f067aa0ba902b7"
CONTEXT = {"traceparent": PARENT, "tracestate": STATE}


def test_a_trace_context_stands_beside_what_every_version_reads() -> None:
    written = encode("call-17", {"lang": "de"}, CONTEXT)
    assert written == encode("call-17", {"lang": "de"})[:-1] + b"," + json.dumps(
        CONTEXT, separators=(",", ":")
    ).encode().removeprefix(b"{")
    # Readers of earlier versions and of the Go library look up these two keys of the object, and no others.
    document = json.loads(written)
    assert (document["DataStreamName"], document["Info"]) == ("call-17", {"lang": "de"})
    assert decode(entry(written)) == Announcement("call-17", {"lang": "de"})
    assert carrier_of(entry(written)) == CONTEXT
    assert carrier_of(entry(encode("call-17", {"traceparent": PARENT}))) == {}, "what the info says is the user's"


def test_no_announcement_is_refused_for_its_trace_context() -> None:
    info = {"text": "x" * (MAX_BYTES - len(encode("call-17", {"text": ""})))}
    assert encode("call-17", info, CONTEXT) == encode("call-17", info)
    assert encode("call-17", None, {}) == encode("call-17")


@pytest.mark.parametrize(
    "parent",
    [
        None,
        1,
        "",
        PARENT.upper(),
        PARENT + "-00",
        PARENT[:-1],
        PARENT + "\n",
        "ff" + PARENT[2:],
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_an_invalid_parent_is_dropped_with_its_state(parent: Any) -> None:
    assert trace_context({"traceparent": parent, "tracestate": STATE}) == {}


@pytest.mark.parametrize(
    "state", [None, 1, "", "no pair", "a=b,", "A=b", "a=b\n", "a=\u00e9", "a=" + "b" * MAX_TRACESTATE]
)
def test_an_invalid_state_is_dropped_alone(state: Any) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


@pytest.mark.parametrize("state", ["a=b", "a=b , c=d", "0v@sys=x y", "a="])
def test_valid_states_are_kept(state: str) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state})["tracestate"] == state


def test_nothing_else_is_let_through() -> None:
    assert trace_context({**CONTEXT, "baggage": "user=1"}) == CONTEXT


@pytest.mark.parametrize(
    "written",
    [
        b'{"DataStreamName":"a","traceparent"',
        b'["traceparent"]',
        b'{"DataStreamName":"a","traceparent":{}}',
        b'{"DataStreamName":"a","traceparent":"\xff"}',
        b'{"traceparent":' + b"[" * 100_000,
        b'"traceparent"' + b" " * MAX_BYTES,
    ],
)
def test_a_malformed_trace_context_is_none(written: bytes) -> None:
    assert carrier_of(entry(written)) == {}
    assert carrier_of([]) == {}
