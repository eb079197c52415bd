"""The page on reports shows documents and alerts as they are."""

import json
import re

import yaml
from prometheus_client import CollectorRegistry
from support.pages import DOCS, blocks

from sagad_server.projection import document
from sagad_server.projection.metrics import ProjectionMetrics

PAGE = DOCS / "how-to" / "report.md"
PARTS = {
    "labels": document.LabelDocument,
    "steps": document.StepDocument,
    "failures": document.StepFailuresDocument,
    "failure": document.FailureDocument,
}


def test_the_document_that_is_shown_has_all_fields_in_their_order_and_no_others() -> None:
    (shown,) = (json.loads(block.text) for block in blocks(PAGE) if block.language == "json")
    assert list(shown) == list(document.SagaDocument.__annotations__)
    for name, part in PARTS.items():
        (value,) = shown[name] if isinstance(shown[name], list) else [shown[name]]
        assert list(value) == list(part.__annotations__), name
    assert shown["rounded_duration_ms"] == document.rounded(shown["duration_ms"])


def test_every_metric_of_an_alert_exists() -> None:
    registry = CollectorRegistry()
    ProjectionMetrics(registry)
    existing = {sample for family in registry.collect() for sample in (family.name, f"{family.name}_total")}
    (rules,) = (yaml.safe_load(block.text) for block in blocks(PAGE) if "groups:" in block.text)
    for rule in rules["groups"][0]["rules"]:
        assert set(re.findall(r"sagad_\w+", rule["expr"])) <= existing
