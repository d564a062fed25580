"""What becomes of a data stream when it is done, and when it is forgotten."""

from typing import Literal, get_args

OnDone = Literal["keep", "trim", "delete"]
"""What becomes of a data stream when it is done: nothing, it is trimmed to its checkpoint, or it is deleted."""

OnForgotten = Literal["from_start", "from_now"]
"""Where a stream starts that slept for so long that its progress record has expired: at its start, or with the
entry that woke it."""


def check_on_forgotten(on_forgotten: OnForgotten) -> OnForgotten:
    """Check a parameter of the client. A ``ValueError`` names it."""
    if on_forgotten not in get_args(OnForgotten):
        raise ValueError(f"on_forgotten must be one of {', '.join(get_args(OnForgotten))}, not {on_forgotten!r}")
    return on_forgotten


def check(on_done: OnDone, *, trim: bool) -> None:
    """Check two parameters of `run()`. A ``TypeError`` or ``ValueError`` names the parameter."""
    if on_done not in get_args(OnDone):
        raise ValueError(f"on_done must be one of {', '.join(get_args(OnDone))}, not {on_done!r}")
    if not isinstance(trim, bool):
        raise TypeError(f"trim must be a bool, not {type(trim).__name__}")
    if trim and on_done == "keep":
        raise ValueError("trim=True, to trim a stream while it is read, needs on_done='trim' or 'delete'")
