"""Putting back dead letters: one step changes the letters and the load balancer stream. `Deliveries.bury` writes
them."""

from redis.exceptions import ResponseError

from redis_stream_client._model.announcement import FIELD
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.pooled import Loan


async def put_back(loan: Loan, keys: Keys, letter_id: str) -> str | None:
    """Announce the stream of a letter again, and remove the letter. None: there is no such letter.

    A repeated call after a lost reply finds no letter. Raises what `Loan.exchange` raises.
    """
    script, args = scripts.load("put_back"), [letter_id, FIELD]
    reply: bytes
    try:
        reply = await loan.run(script, [keys.lbs, keys.dead, keys.announced], args)
    except ResponseError as refused:
        if not error_mapping.is_withheld(refused):
            raise
        reply = await loan.run(script, [keys.lbs, keys.dead], args)  # the rule of older versions names these two
    return None if reply == b"gone" else reply.decode()
