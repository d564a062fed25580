"""Putting back dead letters: one step changes the letters and the load balancer stream. `Deliveries.bury` writes
them."""

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._redis.pooled import Loan


async def put_back(loan: Loan, keys: Keys, letter_id: str) -> str | None:
    """Announce the stream of a letter again, and remove the letter. None: there is no such letter.

    A repeated call after a lost reply finds no letter. Raises what `Loan.exchange` raises.
    """
    reply: bytes = await loan.run(scripts.load("put_back"), [keys.lbs, keys.dead], [letter_id])
    return None if reply == b"gone" else reply.decode()
