"""The log of a consumer, for parts that tests make themselves."""

from redis_stream_client._model.logs import Log

SERVICE, CONSUMER = "tests", "redis-consumer-test-00000000"
LOG = Log(service=SERVICE, consumer=CONSUMER)
