"""The test suite of redis_stream_client: see README.md beside this file."""
