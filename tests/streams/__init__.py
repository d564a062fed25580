"""Tests of `_streams`."""
