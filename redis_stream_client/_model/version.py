"""The installed distribution's version."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("redis-stream-client")
except PackageNotFoundError:  # run from a tree that was never installed
    __version__ = "0+unknown"
