"""Tests of `_ownership`."""
