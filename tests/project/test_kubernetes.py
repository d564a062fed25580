"""examples/kubernetes: the manifest is valid, its numbers fit each other, and the worker does what it says."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from redis_stream_client import LoadBalancerStream
from tests.harness.documents import ROOT
from tests.harness.ports import free_port
from tests.harness.probing import says
from tests.harness.programs import START, Program
from tests.harness.runs import Running, add, owners
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

FOLDER = ROOT / "examples/kubernetes"
MARGIN = 5.0
"""Seconds that a worker may take to leave after its drain: for handlers that do not stop, for its farewell to
Redis, and for the process to end."""

RELEASES = ["1.27", "1.31", "1.37"]
"""Of Kubernetes. The first one has all that the manifest uses, the last one is the newest whose schema we have."""

DEPLOYMENT, BUDGET = yaml.safe_load_all((FOLDER / "worker.yaml").read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]["spec"]
[WORKER] = POD["containers"]
PROBES = [WORKER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
ENVIRONMENT: dict[str, str] = {each["name"]: each["value"] for each in WORKER["env"] if "value" in each}
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def check(resource: Any, release: str) -> None:
    kubernetes_validate.validate(resource, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_the_manifest(release: str) -> None:
    for resource in (DEPLOYMENT, BUDGET):
        check(resource, release)


def spoiled(resource: Any, path: str, value: Any) -> Any:
    """A copy with another value at a path; one of "absent" is removed."""
    resource = copy.deepcopy(resource)
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    where = resource
    for step in way:
        where = where[step]
    if value == "absent":
        del where[last]
    else:
        where[last] = value
    return resource


@pytest.mark.parametrize(
    ("resource", "path", "value"),
    [
        (DEPLOYMENT, "spec.replicas", "three"),
        (DEPLOYMENT, "spec.selector", "absent"),
        (DEPLOYMENT, "spec.strategy.rollingUpdate.maxSurges", 1),
        (DEPLOYMENT, "spec.template.spec.terminationGracePeriod", 30),
        (DEPLOYMENT, "spec.template.spec.containers.0.livenessProbe.httpGet.port", "absent"),
        (DEPLOYMENT, "spec.template.spec.containers.0.livenessProbe.timeout", 3),
        (DEPLOYMENT, "spec.template.spec.containers.0.securityContext.readOnlyRootFileSystem", True),
        (DEPLOYMENT, "spec.template.spec.containers.0.env.0.valueFrom.secretRef", {}),
        (BUDGET, "spec.maxUnavailables", 1),
    ],
)
def test_the_check_finds_mistakes(resource: Any, path: str, value: Any) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        check(spoiled(resource, path, value), RELEASES[-1])


def test_the_labels_are_the_same_everywhere() -> None:
    labels = DEPLOYMENT["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"] == labels
    assert BUDGET["spec"]["selector"]["matchLabels"] == labels
    assert POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels


def test_a_drain_ends_before_the_pod_is_killed() -> None:
    hook = WORKER.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert POD["terminationGracePeriodSeconds"] >= hook + float(ENVIRONMENT["DRAIN_TIMEOUT"]) + MARGIN


def test_the_probes_ask_where_the_worker_answers() -> None:
    [port] = WORKER["ports"]
    assert str(port["containerPort"]) == ENVIRONMENT["HEALTH_PORT"]
    assert [probe["httpGet"] for probe in PROBES] == [
        {"path": path, "port": port["name"]} for path in ("/livez", "/livez", "/readyz")
    ]


def test_liveness_is_more_patient_than_a_lock() -> None:
    lock_ttl = 2.0  # the worker's, by default
    startup, liveness, _ = PROBES
    assert min(probe["timeoutSeconds"] for probe in PROBES) > lock_ttl
    for probe in (startup, liveness):
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 10 * lock_ttl


def test_it_is_as_harmless_as_it_can_be() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert WORKER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "cpu" not in WORKER["resources"]["limits"]
    secrets = [each["name"] for each in WORKER["env"] if "secretKeyRef" in each.get("valueFrom", {})]
    assert secrets == ["REDIS_URL"]


def test_the_readme_says_the_numbers_of_the_manifest() -> None:
    rolling = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]
    assert f"| `drain_timeout` | {ENVIRONMENT['DRAIN_TIMEOUT']} s |" in README
    assert f"| `terminationGracePeriodSeconds` | {POD['terminationGracePeriodSeconds']} s |" in README
    assert f"| `maxSurge`, `maxUnavailable` | {rolling['maxSurge']}, {rolling['maxUnavailable']} |" in README
    assert f"USER {POD['securityContext']['runAsUser']}\n" in README
    secret = WORKER["env"][0]["valueFrom"]["secretKeyRef"]
    assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in README
    assert POD["containers"][0]["command"] == ["python", "worker.py"]
    assert 'CMD ["python", "worker.py"]' in README


class Pod:
    """The worker as the manifest starts it, but for the port, which others may use."""

    def __init__(self, url: str, service: str) -> None:
        self.port = free_port()
        self._grace = POD["terminationGracePeriodSeconds"]
        environment = ENVIRONMENT | {"REDIS_URL": url, "SERVICE": service, "HEALTH_PORT": str(self.port)}
        self.program = Program("-W", "error", "examples/worker.py", **environment, POD_NAME="orders-worker-7b9f")

    async def says(self, probe: Any, status: int, text: str) -> None:
        """Wait for what a probe is told."""

        async def is_it() -> bool:
            try:
                return await says(self.port, probe["httpGet"]["path"]) == (status, text)
            except ConnectionRefusedError:
                return False  # it has not started yet

        await wait_until(is_it, f"{probe['httpGet']['path']} says {text}", START)

    async def terminate(self) -> None:
        """Stop it as the kubelet does: it must end in good order before it would be killed."""
        self.program.send(signal.SIGTERM)
        async with asyncio.timeout(self._grace):
            assert await self.program.exit_code() == 0


async def test_a_worker_from_its_start_to_its_end(server: Server, redis: Connection, service: str) -> None:
    startup, liveness, readiness = PROBES
    pod = Pod(server.url, service)
    stream = f"{service}-call"
    await LoadBalancerStream(redis, service).write(stream, {"text": "hello"})
    async with pod.program as worker:
        await pod.says(startup, 200, "live")
        await pod.says(readiness, 200, "ready")
        await worker.printed(f"{stream}: .*hello")
        [lock] = await redis.keys("*:lock:*")
        assert b":redis-consumer-orders-worker-7b9f-" in lock
        await pod.says(liveness, 200, "live")
        await pod.terminate()
    assert list((await owners(redis, service)).values()) == ["nobody"]


EXEC = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])  # type: ignore[index]


def passes(probe: str, file: Path) -> bool:
    command = [part.replace("/run/worker/health", str(file)) for part in EXEC[probe]["exec"]["command"]]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


async def test_the_probes_of_a_file(server: Server, redis: Connection, service: str, tmp_path: Path) -> None:
    for probe, body in EXEC.items():
        check(spoiled(DEPLOYMENT, f"spec.template.spec.containers.0.{probe}", body), RELEASES[-1])
    file = tmp_path / "health"
    assert not any(passes(probe, file) for probe in EXEC)
    release = asyncio.Event()

    async def handle(_: Any) -> None:
        await release.wait()

    async with Running(server.url, service, handle, health_file=file) as run:
        await add(redis, service, ["call-1"])
        await run.handles("call-1")
        await wait_until(file.exists, "it is ready")
        assert all(passes(probe, file) for probe in EXEC)
        run.client.drain()
        await wait_until(lambda: not passes("readinessProbe", file), "it is not ready any more")
        assert passes("livenessProbe", file)
        release.set()
        await run.task
    file.write_text("ready\n")
    os.utime(file, (time.time() - 60, time.time() - 60))
    assert not passes("livenessProbe", file)
    assert passes("startupProbe", file)
