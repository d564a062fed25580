"""Run a fleet under random faults, check what it wrote down, and report; exit status 1 if a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.binaries import SERVERS, chosen
from tests.chaos.checker import check
from tests.chaos.history import SUFFIX, read
from tests.chaos.report import report
from tests.chaos.run import Run


def main() -> int:
    """Run, check and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults happen; default: 1")
    parser.add_argument("--seed", type=int, help="determines the faults; default: a new one")
    parser.add_argument("--rate", type=float, default=1.1, help="faults a second; default: 1.1")
    parser.add_argument("--server", choices=sorted(SERVERS), help=f"default: {chosen()}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the histories there, and keep them")
    parser.add_argument("--check", type=Path, metavar="DIR", help="do not run, but check histories that were kept")
    given = parser.parse_args()
    started = time.monotonic()
    if given.check is not None:
        return _judge(given.check, started)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    directory = given.keep or Path(tempfile.mkdtemp(prefix="rsc-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.glob(f"*{SUFFIX}")):
        parser.error(f"{directory} has histories already")
    _say(f"chaos: {given.minutes:g} min, seed {seed}, {given.server or chosen()}, histories in {directory}")
    try:
        asyncio.run(Run(directory, given.minutes, seed, given.rate, given.server, _say).run())
    except BaseException:
        _say(f"the run broke off; its histories are in {directory}")
        raise
    status = _judge(directory, started)
    if status == 0 and given.keep is None:
        shutil.rmtree(directory)
    return status


def _judge(directory: Path, started: float) -> int:
    verdict = check(read(directory))
    report(verdict, time.monotonic() - started)
    if verdict.violations:
        _say(f"the histories are kept in {directory}; check them again with --check")
    return 1 if verdict.violations else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
