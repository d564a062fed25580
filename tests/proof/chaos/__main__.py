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
from typing import Any

from tests.harness.binaries import SERVERS, chosen
from tests.proof.chaos.checker import check
from tests.proof.chaos.fleet import PRESENCE
from tests.proof.chaos.history import SUFFIX, read
from tests.proof.chaos.report import report
from tests.proof.chaos.run import Run
from tests.proof.chaos.schedule import DEPLOYMENTS


def main() -> int:
    """Run, check and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults happen; default: 1")
    parser.add_argument("--seed", type=int, help="determines the faults; default: a new one")
    parser.add_argument("--rate", type=float, default=1.1, help="faults a second; default: 1.1")
    parser.add_argument("--server", choices=sorted(SERVERS), help=f"default: {chosen()}")
    parser.add_argument(
        "--deployment",
        choices=sorted(DEPLOYMENTS),
        help="default: one after the other, each for its share of the time",
    )
    parser.add_argument("--lock-ttl", type=float, default=1.0, help="of every member, in seconds; default: 1")
    parser.add_argument(
        "--presence", choices=PRESENCE, default="mixed", help="which members declare it; default: mixed"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the histories there, and keep them")
    parser.add_argument("--check", type=Path, metavar="DIR", help="do not run, but check histories that were kept")
    given = parser.parse_args()
    if given.check is not None:
        parts = sorted({path.parent for path in given.check.rglob(f"*{SUFFIX}")})
        return max(_judge(part, time.monotonic()) for part in parts)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    directory = given.keep or Path(tempfile.mkdtemp(prefix="rsc-chaos-"))
    if any(directory.rglob(f"*{SUFFIX}")):
        parser.error(f"{directory} has histories already")
    deployments = [given.deployment] if given.deployment else sorted(DEPLOYMENTS, reverse=True)
    minutes = given.minutes / len(deployments)
    fleet = {"lock_ttl": given.lock_ttl, "presence": given.presence}
    status = max(
        [_run(directory / name, minutes, seed, given.rate, given.server, name, fleet) for name in deployments]
    )
    if status == 0 and given.keep is None:
        shutil.rmtree(directory)
    return status


def _run(
    directory: Path,
    minutes: float,
    seed: int,
    rate: float,
    server: str | None,
    deployment: str,
    fleet: dict[str, Any],
) -> int:
    started = time.monotonic()
    directory.mkdir(parents=True)
    _say(
        f"chaos: {deployment}, {minutes:g} min, seed {seed}, {server or chosen()}, "
        f"lock_ttl {fleet['lock_ttl']:g}, presence {fleet['presence']}, histories in {directory}"
    )
    try:
        asyncio.run(Run(directory, minutes, seed, rate, server, deployment, _say, **fleet).run())
    except BaseException:
        _say(f"the run broke off; its histories are in {directory}")
        raise
    return _judge(directory, started)


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
