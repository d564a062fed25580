"""What type checkers must understand of the public interface: mypy and pyright read this, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never, assert_type

import msgspec
import pydantic

from redis_stream_client import (
    Entry,
    Event,
    EventIterator,
    ExpiredStream,
    Fence,
    Lease,
    LoadBalancerStream,
    LossReason,
    RedisStreamClient,
    Statistics,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamWanted,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis


def events_are_a_closed_union(event: Event) -> None:
    match event:
        case StreamAdded(lease):
            assert_type(lease, Lease)
        case StreamExpired(stream):
            assert_type(stream, ExpiredStream)
            assert_type(stream.previous_owner, str | None)
        case StreamDisowned(lease, reason):
            assert_type(lease, Lease)
            assert_type(reason, LossReason)
        case StreamWanted(lease):
            assert_type(lease, Lease)
        case _:
            assert_never(event)


class Word(msgspec.Struct):
    """Decoded by msgspec."""

    said: str


class Call(pydantic.BaseModel):
    """Decoded by pydantic."""

    caller: str


@dataclass
class Tone:
    """Decoded by nothing but Python."""

    hertz: str


def payloads_are_typed_by_their_decoders(lease: Lease, entry: Entry) -> None:
    assert_type(lease.decode_info(pydantic.TypeAdapter(Call).validate_python), Call)
    assert_type(lease.decode_info(lambda info: msgspec.convert(info, Word)), Word)
    assert_type(lease.decode_info(Call.model_validate), Call)
    assert_type(entry.decode(pydantic.TypeAdapter(Call).validate_python), Call)
    assert_type(entry.decode(pydantic.TypeAdapter(Call).validate_json, "json"), Call)
    assert_type(entry.decode(lambda fields: msgspec.convert(fields, Word, strict=False)), Word)
    assert_type(entry.decode(msgspec.json.Decoder(Word).decode, "json"), Word)
    assert_type(entry.decode(lambda fields: Tone(**fields)), Tone)
    assert_type(entry.decode(lambda word: int(word), field="n"), int)


async def results_have_their_types(redis: Redis, stream: ExpiredStream) -> None:
    client = RedisStreamClient.from_url("redis://localhost", "orders", lock_ttl=1.0, max_streams=None)
    async with client as entered:
        assert_type(entered, RedisStreamClient)
    assert_type(client.events(), EventIterator)
    assert_type(await anext(client.events()), Event)
    lease = await client.claim(stream)
    assert_type(lease, Lease)
    assert_type(lease.info, Mapping[str, Any] | None)
    assert_type(lease.fence < lease.fence, bool)
    assert_type(lease.fence, Fence)
    assert_type(await lease.lost(), LossReason)
    assert_type(client.leases, Mapping[str, Lease])
    assert_type(client.statistics(), Statistics)
    assert_type(await LoadBalancerStream(redis, "orders").add("call-17", {"caller": "Ada"}), str)
    assert_type(await LoadBalancerStream(redis, "orders").add_many(["call-18", ("call-19", None)]), list[str])
