"""A process with many clients, as many members of a fleet: `python -m tests.harness.crowd <setup as JSON>`.

It takes the setup of `worker.py`; the option `clients` says how many. It reports `joined` for each of them, and
does nothing with what they are given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from redis_stream_client import RedisStreamClient
from tests.harness.loops import loop_factory


async def main() -> None:
    """Join, and live until killed."""
    setup = json.loads(sys.argv[1])
    options = setup["options"]
    count = options.pop("clients")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            client = RedisStreamClient.from_url(setup["url"], setup["service"], **options)
            await stack.enter_async_context(client)
            print(
                json.dumps({"event": "joined", "time": time.time(), "client": client.id, "detail": ""}), flush=True
            )
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
