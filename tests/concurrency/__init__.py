"""Tests of `_concurrency`."""
