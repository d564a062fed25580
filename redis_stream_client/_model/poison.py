"""The error that no further attempt can mend."""


class PoisonError(Exception):
    """Raise it in a handler of `run()` to move the stream to the dead letters at once, whatever the policy for
    retries says.

    `Entry.decode` and `Lease.decode_info` raise it. The reason of the dead letter has its text and that of its
    ``__cause__``, so ``raise PoisonError("unknown tenant") from error`` tells all. You may derive classes of your
    own from it. Outside of `run()` it is an exception like any other.
    """
