"""Fixtures of the tests of `telemetry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.telemetry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Give an observer whose metrics and spans are collected in memory."""
    with Collector() as collector:
        yield collector
