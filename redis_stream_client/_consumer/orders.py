"""The orders of operators, as this member knows them. Pure state."""

from redis_stream_client._concurrency.notifier import Notifier


class Orders:
    """What operators want of this member.

    Attributes:
        give: notified when an operator wants a stream to go elsewhere, with the id and the delivery count of its
            announcement. It is only a hint.
    """

    def __init__(self) -> None:
        self.give = Notifier[[str, int]]()
