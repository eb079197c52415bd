"""The page on metrics has those of `sagad project`, with their labels, and no others."""

import re

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from support.pages import DOCS, table

from sagad_server.projection.metrics import ProjectionMetrics

SUFFIX = {"counter": "_total", "gauge": ""}


def test_every_metric_of_the_projection_is_on_the_page_with_its_labels_and_no_other() -> None:
    registry = CollectorRegistry()
    metrics = ProjectionMetrics(registry)
    existing = {}
    for collector in vars(metrics).values():
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        existing[family.name + SUFFIX[family.type]] = family.type, tuple(collector._labelnames)
    rows = table(DOCS / "reference" / "metrics.md", "Metrics of sagad project")
    listed = {name.strip("`"): (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert listed == existing
