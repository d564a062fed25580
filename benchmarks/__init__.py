"""Measurements: what the library costs and how fast it recovers. `python -m benchmarks --help`."""
