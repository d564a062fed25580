"""Tests of `_redis`."""
