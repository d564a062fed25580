"""Tests of `_consumer`."""
