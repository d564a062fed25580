"""Tests of what stands around the package: README, examples, types, messages."""
