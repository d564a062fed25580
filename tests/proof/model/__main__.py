"""``python -m tests.proof.model``: a table of what was explored; ``--deep``: the large configurations, too."""

from __future__ import annotations

import argparse
import resource

from tests.proof.model.clients import Model
from tests.proof.model.configurations import DEEP, MUTANTS, QUICK
from tests.proof.model.explore import explore
from tests.proof.model.mutations import Mutation

MOST = 3_000_000  # states; some 1 GB

parser = argparse.ArgumentParser(
    "python -m tests.proof.model", description="Walk all interleavings of the protocol."
)
parser.add_argument("--deep", action="store_true", help="the large configurations: some seven minutes of one core")
parser.add_argument("--only", default="", metavar="WORDS", help="the configurations whose name holds these words")
parser.add_argument(
    "--mutant", choices=[mutation.name for mutation in Mutation], help="show how one known bug breaks a guarantee"
)
chosen = parser.parse_args()

if chosen.mutant:
    mutation = Mutation[chosen.mutant]
    print(f"When {mutation.value}:")
    print(explore(Model(MUTANTS[mutation][1], mutation)))
    raise SystemExit
print("| configuration | states | transitions | s | result |\n| --- | ---: | ---: | ---: | --- |")
for name, bounds in (DEEP if chosen.deep else QUICK).items():
    if chosen.only not in name:
        continue
    try:
        result = explore(Model(bounds), most=MOST)
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
