"""Tests of `_run`."""
