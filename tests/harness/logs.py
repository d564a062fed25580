"""The log of a consumer, for parts that tests make themselves."""

from redis_stream_client._model.logs import Log
from redis_stream_client._redis.outage import OutageLog, Outages
from redis_stream_client._redis.wordings import REDIS

SERVICE, CONSUMER = "tests", "redis-consumer-test-00000000"


class EveryLine(Log):
    """Writes each line, however many there are: all tests of a process share this log."""

    def _admit(self, level: int, message: str) -> bool:
        return True


LOG = EveryLine(service=SERVICE, consumer=CONSUMER)


def outage() -> OutageLog:
    """The log of something that may fail."""
    return Outages(LOG).watch(REDIS, lambda: {"address": "somewhere:1"})
