"""The type of redis-py clients in tests."""

from __future__ import annotations

from typing import Any, TypeAlias

Connection: TypeAlias = Any
"""A redis-py client. Its own annotations allow for text and bytes, old reply shapes and new ones, at every
command; a test knows which it gets, and its assertions check it better than casts would."""
