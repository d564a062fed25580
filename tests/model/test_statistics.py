"""What a client counts: each count is documented, and shown."""

from __future__ import annotations

import re
from dataclasses import fields

from redis_stream_client import Statistics
from redis_stream_client._model.statistics import Counters

SHOWN = {field.name for field in fields(Statistics)}


def test_each_count_begins_at_nothing_and_is_shown_by_its_name() -> None:
    counters = {field.name: field.default for field in fields(Counters)}
    assert set(counters.values()) == {0}
    assert counters.keys() <= SHOWN


def test_what_is_shown_is_said_in_the_documentation_and_nothing_else() -> None:
    attributes = (Statistics.__doc__ or "").partition("Attributes:")[2]
    named = re.findall(r"^ {8}(\w[\w, ]*):", attributes, re.MULTILINE)
    assert {name for names in named for name in names.split(", ")} == SHOWN
