"""``python -m tests.proof.model``: a table of what was explored; ``--deep``: the large configurations, too."""

from __future__ import annotations

import argparse
import resource
from typing import TYPE_CHECKING, Any

from tests.proof.model import configurations, sleep_configurations
from tests.proof.model.clients import Model
from tests.proof.model.explore import explore
from tests.proof.model.mutations import Mutation
from tests.proof.model.sleep_slips import Slip
from tests.proof.model.sleeping import Sleeping

if TYPE_CHECKING:
    from tests.proof.model.explore import Explorable

MOST = 3_000_000  # states; some 1 GB

parser = argparse.ArgumentParser(
    "python -m tests.proof.model", description="Walk all interleavings of the protocol."
)
parser.add_argument("--deep", action="store_true", help="the large configurations: some ten minutes of one core")
parser.add_argument("--only", default="", metavar="WORDS", help="the configurations whose name holds these words")
parser.add_argument(
    "--mutant",
    choices=[mutation.name for mutation in (*Mutation, *Slip)],
    help="show how one known bug breaks a guarantee",
)
chosen = parser.parse_args()


def mutant(name: str) -> tuple[str, Explorable[Any]]:
    """What a known bug is, and the model that has it."""
    if name in Mutation.__members__:
        mutation = Mutation[name]
        return mutation.value, Model(configurations.MUTANTS[mutation][1], mutation)
    slip = Slip[name]
    bounds = sleep_configurations.HARMLESS.get(slip) or sleep_configurations.SLIPS[slip][1]
    return slip.value, Sleeping(bounds, slip)


if chosen.mutant:
    what, model = mutant(chosen.mutant)
    print(f"When {what}:")
    print(explore(model))
    raise SystemExit
of_leases = configurations.DEEP if chosen.deep else configurations.QUICK
of_sleep = sleep_configurations.DEEP if chosen.deep else sleep_configurations.QUICK
models: dict[str, Explorable[Any]] = {name: Model(bounds) for name, bounds in of_leases.items()}
models |= {f"sleep: {name}": Sleeping(bounds) for name, bounds in of_sleep.items()}
print("| configuration | states | transitions | s | result |\n| --- | ---: | ---: | ---: | --- |")
for name, model in models.items():
    if chosen.only not in name:
        continue
    try:
        result = explore(model, most=MOST)
    except MemoryError:
        print(f"| {name} | > {MOST:,} | | | not finished |", flush=True)
        continue
    outcome = "no violation" if not result.violation else f"**{result.violation[0]} is broken**"
    print(
        f"| {name} | {result.states:,} | {result.transitions:,} | {result.seconds:.1f} | {outcome} |", flush=True
    )
    if result.violation:
        print(result)
print(f"\n{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at the most")
