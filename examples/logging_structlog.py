"""A worker whose log is JSON, one object a line, with the fields of every record, for machines that search them.

    REDIS_URL=redis://localhost SERVICE=orders python examples/logging_structlog.py

The library logs by `logging`, to the logger `redis_stream_client`, and adds fields: `consumer`, `stream`, `fence`
and so on. structlog's `ExtraAdder` takes them over, also those of other libraries. What the program itself logs
with structlog comes out the same way. `set_up()` is all that you need of this.
"""

import asyncio
import logging
import os
import sys
from typing import TextIO

import structlog

from redis_stream_client import Lease, RedisStreamClient

log = structlog.stdlib.get_logger("worker")

OF_EVERY_LINE: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def set_up(stream: TextIO) -> None:
    """Write every line to `stream` as JSON, whether it comes from structlog or from `logging`."""
    structlog.configure(
        processors=[*OF_EVERY_LINE, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*OF_EVERY_LINE, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def handle(lease: Lease) -> None:
    """Process one data stream. Everything logged on the way names it."""
    with structlog.contextvars.bound_contextvars(stream=lease.stream, fence=str(lease.fence)):
        async for entry in lease.entries():
            fields = entry.text()
            log.info("processed", entry=entry.id, **fields)
            if fields.get("type") == "end":
                return
            await lease.checkpoint(entry.id)


def main() -> None:
    """Work until a signal comes."""
    set_up(sys.stderr)
    url = os.environ.get("REDIS_URL", "redis://localhost")
    client = RedisStreamClient.from_url(url, os.environ.get("SERVICE", "orders"))
    asyncio.run(client.run(handle, handle_signals=True))


if __name__ == "__main__":
    main()
