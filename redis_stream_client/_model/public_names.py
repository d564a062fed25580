"""Makes what the package exports say where users import it from.

A class or function knows the module that defines it, and tracebacks, logs and pickles show that module. Ours is a
private one, and may move. So the module that exports a name becomes the one that its object shows.
"""

import sys
from types import FunctionType


def claim_exports(module: str) -> None:
    """Set the ``__module__`` of every class and function that this module exports.

    What another public module has claimed before keeps its name, and so does what is no class and no function:
    aliases of types cannot be renamed.

    Args:
        module: name of a module of this package that has an ``__all__``.
    """
    package = module.partition(".")[0]
    exporting = sys.modules[module]
    for name in exporting.__all__:
        exported = getattr(exporting, name)
        if isinstance(exported, type | FunctionType) and exported.__module__.startswith(f"{package}."):
            exported.__module__ = module
