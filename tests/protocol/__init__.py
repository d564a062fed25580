"""Tests of `_protocol`."""
