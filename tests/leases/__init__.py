"""Tests of `_leases`."""
