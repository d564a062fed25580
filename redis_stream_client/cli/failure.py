"""Why a command cannot go on. The message is one line without secrets, which standard error gets."""


class Unusable(Exception):
    """What was asked for cannot be done: exit status 2."""


class NotThere(Exception):
    """What was asked for is not there, or has not come about: exit status 1."""
