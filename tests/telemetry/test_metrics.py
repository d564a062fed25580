"""The table of metrics, the dashboard and the alerts, held to what Prometheus gets from a real scrape."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from redis_stream_client import (
    Burial,
    Checkpoint,
    ClaimLost,
    Ending,
    Entry,
    Failure,
    Fence,
    Fleet,
    Gain,
    HandlerEnd,
    HandlerStart,
    Lapse,
    Loss,
    Membership,
    Sending,
)
from redis_stream_client._model.statistics import NOTHING
from redis_stream_client.telemetry import ATTRIBUTES, METRICS, OpenTelemetry
from redis_stream_client.telemetry.metrics import SERVICE, Metric
from tests.harness.documents import ROOT
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric as Family

    from tests.harness.connection import Connection

EXAMPLES = ROOT / "examples" / "observability"
OF_THE_EXPORTER = {"le", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
FENCE = Fence(1, 0, 1)


class Exposition:
    """A process whose metrics can be scraped."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._provider = MeterProvider([PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(meter_provider=self._provider)
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._provider.shutdown()

    async def scrape(self) -> dict[str, Family]:
        """What Prometheus gets, by the names that queries use for it."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self._server.server_port}/metrics")
        families = text_string_to_metric_families(answer.text)
        return {sample.name: family for family in families for sample in family.samples}


@pytest.fixture
def exposition() -> Iterator[Exposition]:
    exposition = Exposition()
    yield exposition
    exposition.close()


def everything_happens(telemetry: OpenTelemetry) -> None:
    """Whatever an observer can be told, once."""
    said = replace(NOTHING, last_beat_age=0.1)
    telemetry.joined(Membership("a", "orders", lambda: said))
    gain = Gain("a", "call-17", "1-0", FENCE, "claimed", "b", 0.2)
    telemetry.gained(gain)
    telemetry.claim_lost(ClaimLost("a", "call-18", "2-0", "b"))
    telemetry.lost(Loss("a", "call-17", "1-0", FENCE, "claimed", "b"))
    telemetry.ended(Ending("a", "call-17", "1-0", FENCE, "done"))
    telemetry.lapsed(Lapse("a", "silent"))
    start = HandlerStart("a", "call-17", "1-0", FENCE, None, 1, gain, 0.1)
    with telemetry.handling(start):
        telemetry.received("a", "call-17", [Entry("1-0", {b"text": b"hello"})])
        telemetry.asked("a", "call-17")
    telemetry.checkpoint(Checkpoint("a", "call-17", "1-0", FENCE, "1-0", 1, 0.1))
    telemetry.failed(Failure("a", "call-17", "1-0", FENCE, stalled=False, error="LookupError", failures=1))
    telemetry.buried(Burial("a", "call-17", "1-0", "failures", "LookupError"))
    telemetry.handler_ended(HandlerEnd(start, "dead", 1.0, None))
    with pytest.raises(LookupError), telemetry.sending(Sending("orders", "add", "orders-input", 1)):
        raise LookupError


async def scraped(exposition: Exposition, redis: Connection, service: str) -> dict[str, Family]:
    """A scrape after everything has happened."""
    everything_happens(exposition.telemetry)
    async with meanwhile(exposition.telemetry.watch(Fleet(redis, service), every=60.0, lag=True)):

        async def complete() -> dict[str, Family] | None:
            found = await exposition.scrape()
            return found if "redis_stream_client_fleet_lag_seconds" in found else None

        found: dict[str, Family] = await wait_until(complete, "the fleet was looked at")
    return found


def exposed(metric: Metric) -> set[str]:
    """The names that queries use for it."""
    kind = {"up-down counter": "gauge"}.get(metric.kind, metric.kind)
    return {metric.prometheus.removesuffix("_total") + suffix for suffix in SUFFIXES[kind]}


def labels(family: Family) -> set[str]:
    return {name for sample in family.samples for name in sample.labels}


async def test_the_table_says_what_a_scrape_shows(exposition: Exposition, redis: Connection, service: str) -> None:
    found = await scraped(exposition, redis, service)
    ours = {name for name in found if name.startswith(("redis_stream_client_", "messaging_"))}
    assert ours == {name for metric in METRICS for name in exposed(metric)}
    for metric in METRICS:
        for name in exposed(metric):
            said = {attribute.replace(".", "_") for attribute in (SERVICE, *metric.attributes)}
            shown = labels(found[name]) - OF_THE_EXPORTER
            assert shown <= said, name
            assert said - shown <= {"error_type"}, name
            assert metric.meaning.rstrip(".") in found[name].documentation
        assert metric.kind.replace("up-down counter", "gauge") == found[next(iter(exposed(metric)))].type
        if metric.kind == "histogram":
            samples = found[f"{metric.prometheus}_bucket"].samples
            bounds = {float(sample.labels["le"]) for sample in samples if "le" in sample.labels}
            assert bounds == {*(metric.boundaries or ()), float("inf")}, metric.name


def dashboard() -> Any:
    return json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))


def queries() -> list[str]:
    """Every query of the dashboard and of the alerts, without what they say to people."""
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    variables = [variable["query"]["query"] for variable in dashboard()["templating"]["list"][1:]]
    alerts = (EXAMPLES / "alerts.yml").read_text(encoding="utf-8")
    rules = re.findall(r"^ +expr: (\|\n(?:(?: {10}.*)?\n)+|.*)", alerts, re.MULTILINE)
    assert len(rules) == alerts.count("- alert:")
    return [*variables, *(target["expr"] for panel in panels for target in panel["targets"]), *rules]


async def test_the_dashboard_and_the_alerts_ask_for_what_is_there(
    exposition: Exposition, redis: Connection, service: str
) -> None:
    found = await scraped(exposition, redis, service)
    known = found.keys() | {label for family in found.values() for label in labels(family)}
    used = {
        name for query in queries() for name in re.findall(r"\b(?:redis_stream_client|messaging|error)_\w+", query)
    }
    assert used - known == set()
    metrics = used & found.keys()
    shown = {metric.name for metric in METRICS if metrics & exposed(metric)}
    assert {metric.name for metric in METRICS} - shown == set(), "each metric is in the dashboard or in an alert"


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_each_alert_says_what_is_wrong() -> None:
    alerts = (EXAMPLES / "alerts.yml").read_text(encoding="utf-8").split("- alert: ")[1:]
    for alert in alerts:
        assert "summary:" in alert, alert
        assert re.search(r"severity: (warning|critical) ", alert), alert


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
@pytest.mark.parametrize(
    "command", [["rules", "alerts.yml"], ["config", "prometheus.yml"]], ids=["rules", "config"]
)
def test_prometheus_understands_them(command: list[str]) -> None:
    result = subprocess.run(
        ["promtool", "check", *command], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_understands_the_queries_of_the_dashboard(tmp_path: Any) -> None:
    def plain(query: str) -> str:
        return query.replace("$__rate_interval", "5m").replace("$service", "orders")

    rules = [
        {"record": f"panel:{number}", "expr": plain(query)}
        for number, query in enumerate(queries())
        if not query.startswith(("label_values", "|"))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    result = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_table_is_complete_in_itself() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    used = {attribute for metric in METRICS for attribute in (SERVICE, *metric.attributes)}
    assert used == ATTRIBUTES.keys()
    for metric in METRICS:
        assert metric.meaning.endswith("."), metric.name
        assert (metric.boundaries is not None) == (metric.kind == "histogram")
        assert list(metric.boundaries or ()) == sorted(metric.boundaries or ())


def test_no_metric_tells_streams_entries_or_consumers_apart() -> None:
    for name in ATTRIBUTES:
        assert not re.search(r"stream$|\.id$|consumer$|message", name), name
