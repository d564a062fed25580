"""``python -m redis_stream_client`` is the same as ``redis-stream-client``."""

import sys

from redis_stream_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
