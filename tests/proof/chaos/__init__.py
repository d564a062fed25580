"""The chaos run: a real fleet, random faults of every kind, and a checker that reads what all of them wrote down.

`python -m tests.proof.chaos --minutes 1 --seed 7` runs it; `--help` names the other options.
"""
