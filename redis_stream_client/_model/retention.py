"""What becomes of a data stream when it is done."""

from typing import Literal, get_args

OnDone = Literal["keep", "trim", "delete"]
"""What becomes of a data stream when it is done: nothing, it is trimmed to its checkpoint, or it is deleted."""


def check(on_done: OnDone, *, trim: bool) -> None:
    """Check two parameters of `run()`. A ``TypeError`` or ``ValueError`` names the parameter."""
    if on_done not in get_args(OnDone):
        raise ValueError(f"on_done must be one of {', '.join(get_args(OnDone))}, not {on_done!r}")
    if not isinstance(trim, bool):
        raise TypeError(f"trim must be a bool, not {type(trim).__name__}")
    if trim and on_done == "keep":
        raise ValueError("trim=True, to trim a stream while it is read, needs on_done='trim' or 'delete'")
