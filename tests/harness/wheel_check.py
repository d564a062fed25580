"""Check the installed wheel: `python -I tests/harness/wheel_check.py FILE...`, away from the source tree.

The files, relative to the package, are those that are not Python and must ship all the same.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import redis_stream_client


def main() -> None:
    """Exit with a message when the package is not the installed one, or a file is missing."""
    package = Path(redis_stream_client.__file__).parent
    if Path(sys.prefix) not in package.parents:
        sys.exit(f"{package} is not an installed wheel")
    missing = [name for name in sys.argv[1:] if not (package / name).is_file()]
    if missing:
        sys.exit(f"not in the wheel: {', '.join(missing)}")
    version = importlib.metadata.version("redis-stream-client")
    print(f"redis-stream-client {version} ships all {len(sys.argv) - 1} files that are not Python")


if __name__ == "__main__":
    main()
