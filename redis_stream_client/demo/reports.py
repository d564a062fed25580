"""What a worker tells the demo: one line of JSON each, on its standard output."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal["joined", "added", "claimed", "begun", "disowned", "refused", "done", "progress"]


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened to a worker. Fields that do not apply are empty.

    Attributes:
        kind: what happened. ``begun``: the first fenced write of a new owner was accepted; ``refused``: a write
            was not, since a newer owner has begun; ``progress``: only the count of entries is news.
        at: the worker's ``time.time()``.
        consumer: the worker's consumer id.
        lbs_id: the announcement of the stream concerned.
        stream: its name.
        fence: the lease's fence.
        deliveries: the part of the fence that counts the owners.
        number: ``begun``: of the last entry that an earlier owner processed; ``progress``: of entries processed
            by this worker.
    """

    kind: Kind
    at: float
    consumer: str
    lbs_id: str = ""
    stream: str = ""
    fence: str = ""
    deliveries: int = 0
    number: int = 0

    def encode(self) -> str:
        """As a line."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> "Report":
        """From a line. Raises ``TypeError`` or ``ValueError``."""
        return cls(**json.loads(line))
