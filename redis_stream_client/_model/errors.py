"""The package's errors, arranged by whose fault it was.

redis-py's errors appear only as a ``__cause__``. Misuse is a ``TypeError``, ``ValueError`` or
``RuntimeError``.
"""

from typing import Any, ClassVar, Literal

from redis_stream_client._model.gaps import Gap

LossReason = Literal["expired", "claimed", "gone", "superseded", "closed", "done", "released", "dead"]
"""Why a lease is no longer owned.

- ``expired``: the consumer lock lapsed and could not be renewed in time;
- ``claimed``: a peer owns the stream now;
- ``gone``: the announcement was finished by a peer, trimmed or deleted;
- ``superseded``: the same stream was announced again, and the owner of the newer announcement has begun;
- ``closed``: the client left, and the peers may take the stream;
- ``done``, ``released``: the holder of the lease called ``done()`` or ``release()``, or `run()` did it for the
  holder;
- ``dead``: the stream went to the dead letters.
"""


class RedisStreamClientError(Exception):
    """Base of every error of this package.

    Attributes:
        stream: name of the data stream concerned, where known.
        lbs_id: id of its announcement, where known.
        owner: id of the consumer that owns the stream, where known.
        hint: what you can do about it, where you can do something.

    All of these errors can be copied and pickled.
    """

    _public: ClassVar["type[RedisStreamClientError] | None"] = None
    """The class that users know, where a class is private to this package."""

    def __init_subclass__(cls, *, shown_as: "type[RedisStreamClientError] | None" = None) -> None:
        """Define an error; users see, catch and pickle the public class that it is `shown_as`."""
        super().__init_subclass__()
        if shown_as is not None:
            cls._public = shown_as
            renamed: type = cls
            renamed.__name__, renamed.__qualname__ = shown_as.__name__, shown_as.__qualname__
            renamed.__module__ = __name__.partition(".")[0]  # the package, which exports the public one

    def __init__(
        self,
        message: str,
        *,
        stream: str | None = None,
        lbs_id: str | None = None,
        owner: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.stream = stream
        self.lbs_id = lbs_id
        self.owner = owner
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is not called: what it asks for by keyword is in the state. A pickle names no private module.
        kind = self._public or type(self)
        return kind.__new__, (kind, *self.args), self.__dict__.copy()


class NotOwner(RedisStreamClientError):
    """The lease was lost, and the call changed nothing.

    Attributes:
        reason: why it was lost.
        gone: true if the reply to an earlier ``done()`` of this lease was lost and the announcement is no longer
            there: somebody finished the stream, this client or a peer.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: LossReason,
        gone: bool = False,
        stream: str | None = None,
        lbs_id: str | None = None,
        owner: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, stream=stream, lbs_id=lbs_id, owner=owner, hint=hint)
        self.reason: LossReason = reason
        self.gone = gone


class AlreadyClaimed(RedisStreamClientError):
    """A peer claimed the stream first, or its owner is alive again; ``owner`` says who."""


class StreamGone(RedisStreamClientError):
    """The announcement was finished, trimmed or deleted: there is nothing left to own."""


class NotJoined(RedisStreamClientError):
    """This client does not hold its consumer lock: it has not joined yet, or is trying to get the lock back."""


class EntriesTrimmed(RedisStreamClientError):
    """Entries of the data stream were trimmed or deleted before they were read.

    Attributes:
        gap: where they are missing, and how many.
    """

    def __init__(self, message: str, *, gap: Gap, stream: str, lbs_id: str, hint: str) -> None:
        super().__init__(message, stream=stream, lbs_id=lbs_id, hint=hint)
        self.gap = gap


class RedisUnavailable(RedisStreamClientError):
    """Redis gave no answer by the deadline. The outcome is unknown, and you can safely repeat the call.

    Announcing with ``again=True`` is the exception: a repeated announcement may exist twice. The hint says what is
    known.

    Attributes:
        announced: set by `LoadBalancerStream.add_many`: for each stream, in the given order, the id of its
            announcement, or None if it is not known to be announced. Otherwise empty.
        written: set by `LoadBalancerStream.write` and `write_many`: for each entry, in the given order, its id, or
            None if it is not known to be written. Otherwise empty.
    """

    announced: tuple[str | None, ...] = ()
    written: tuple[str | None, ...] = ()


class RedisRejected(RedisStreamClientError):
    """Redis refuses the command, and will refuse it again: wrong password, missing permission, key of another
    type, old version. The client does not retry.

    Attributes:
        announced, written: see `RedisUnavailable`.
    """

    announced: tuple[str | None, ...] = ()
    written: tuple[str | None, ...] = ()


class UnknownConsumer(RedisStreamClientError):
    """There is no consumer of this id in the fleet; `owner` says which id."""


class NotInTime(RedisStreamClientError):
    """A member has not done in time what an operator has asked it for; the hint says what you can do."""


class ClientClosed(RedisStreamClientError):
    """The client is closed. If a failure closed it, the failure is the ``__cause__``."""


def no_answer(operation: str, *, stream: str, lbs_id: str) -> RedisUnavailable:
    """The error of an operation on a stream's announcement that Redis did not answer in time."""
    return RedisUnavailable(
        f"no answer to {operation!r} for {stream!r} within the lifetime of the consumer lock",
        hint="the outcome is unknown; repeating is safe",
        stream=stream,
        lbs_id=lbs_id,
    )
