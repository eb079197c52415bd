"""What deploy/ says about metrics, held against the metrics that sagad has."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from sagad_server.guard.metrics import LimitMetrics
from sagad_server.metrics import Metrics
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.projection.metrics import ProjectionMetrics

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/sagad.json").read_text())
WITH_METRICS = ("serve", "mirror", "project")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
EXPRESSIONS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"]}


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_metric_of_a_panel_exists_and_is_documented(title: str) -> None:
    metrics = Metrics()
    MirrorMetrics(metrics.registry)
    LimitMetrics(metrics.registry)
    ProjectionMetrics(metrics.registry)
    families = metrics.registry.collect()
    existing = {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}
    named = set(re.findall(r"sagad_\w+", " ".join(EXPRESSIONS[title])))
    assert named
    assert named - existing == set()
    documented = set(re.findall(r"`(sagad_\w+)`", (ROOT / "docs/reference/metrics.md").read_text()))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} - documented == set()


def test_every_metric_of_the_projection_is_in_a_panel() -> None:
    registry = CollectorRegistry()
    ProjectionMetrics(registry)
    shown = " ".join(expression for panel in EXPRESSIONS.values() for expression in panel)
    assert [family.name for family in registry.collect() if family.name not in shown] == []


def test_prometheus_asks_every_service_of_the_compose_file_that_has_metrics() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    asked = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    # The image says where these listen.
    (port,) = re.findall(r"SAGAD_HTTP__ADDRESS=0\.0\.0\.0:(\d+)", (ROOT / "Dockerfile").read_text())
    ours = {name for name, service in services.items() if service.get("command", [""])[0] in WITH_METRICS}
    assert asked == {f"{name}:{port}" for name in ours}
    assert len(ours) == len(WITH_METRICS)
