"""What deploy/ says about metrics, held against the metrics that sagad has."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sagad_server.guard.metrics import LimitMetrics
from sagad_server.metrics import Metrics
from sagad_server.mirror.metrics import MirrorMetrics

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/sagad.json").read_text())
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
EXPRESSIONS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"]}


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_metric_of_a_panel_exists_and_is_documented(title: str) -> None:
    metrics = Metrics()
    MirrorMetrics(metrics.registry)
    LimitMetrics(metrics.registry)
    families = metrics.registry.collect()
    existing = {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}
    named = set(re.findall(r"sagad_\w+", " ".join(EXPRESSIONS[title])))
    assert named
    assert named - existing == set()
    documented = set(re.findall(r"`(sagad_\w+)`", (ROOT / "docs/reference/metrics.md").read_text()))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} - documented == set()


def test_prometheus_asks_the_service_and_port_of_the_compose_file() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    service, port = target.split(":")
    published = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][service]["ports"]
    assert any(line.endswith(f":{port}") for line in published)
