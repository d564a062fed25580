"""What several commands understand on the command line."""

from collections.abc import Sequence

from cyclopts import Parameter, Token

from redis_stream_client.cli.durations import parse_duration

SHORTEST = 0.1
"""Seconds between two looks."""


def to_seconds(kind: object, tokens: Sequence[Token]) -> float:
    """The seconds of a duration."""
    return parse_duration(tokens[0].value)


def to_interval(kind: object, tokens: Sequence[Token]) -> float:
    """The seconds of a duration that is not too short."""
    seconds = parse_duration(tokens[0].value)
    if seconds < SHORTEST:
        raise ValueError(f"{tokens[0].value!r} is less than 100ms")
    return seconds


def to_count(kind: object, tokens: Sequence[Token]) -> int:
    """A whole number that is not negative."""
    text = tokens[0].value
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def duration(text: str) -> Parameter:
    """How an option with a duration is read."""
    return Parameter(converter=to_seconds, metavar="DURATION", help=text)


def count(text: str) -> Parameter:
    """How an option with a whole number is read."""
    return Parameter(converter=to_count, metavar="N", help=text)


def flag(text: str) -> Parameter:
    """A switch that is off unless it is given."""
    return Parameter(show_default=False, help=text)
