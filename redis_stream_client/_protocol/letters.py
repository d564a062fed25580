"""What changes dead letters and the load balancer stream in one step. `Deliveries.bury` writes a letter."""

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._redis.pooled import Loan


async def put_back(loan: Loan, keys: Keys, letter_id: str) -> str | None:
    """Announce a letter's stream again and remove the letter. None: there is no such letter.

    A repeat after a lost reply finds no letter. Raises as `Loan.exchange`.
    """
    reply: bytes = await loan.run(scripts.load("put_back"), [keys.lbs, keys.dead], [letter_id])
    return None if reply == b"gone" else reply.decode()
