"""Why a command cannot go on."""


class Unusable(Exception):
    """What was asked for cannot be done: the message says why, in one line and without secrets."""
