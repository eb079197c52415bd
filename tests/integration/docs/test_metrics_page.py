"""The page on metrics has every metric of a running node, with its labels, and no other."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from support.pages import DOCS, blocks, table

from sagad_server.app import App
from sagad_server.config import load_config

PAGE = DOCS / "reference" / "metrics.md"
SUFFIX = {"counter": "_total", "histogram": "", "gauge": ""}


@pytest.fixture
async def app(postgres_dsn: str) -> AsyncIterator[App]:
    settings = {
        "postgres": {"dsn": postgres_dsn},
        "grpc": {"address": "127.0.0.1:0"},
        "http": {"address": "127.0.0.1:0"},
        "participants": {"nobody": {"target": "127.0.0.1:1"}},
    }
    app = App(load_config(None, {}, settings))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


def listed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The type and the labels that the page gives for each metric."""
    rows = table(PAGE, "All metrics")
    names = [name for name, *_ in rows]
    assert len(set(names)) == len(names)
    return {name.strip("`"): (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}


def existing(app: App) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The same of the running node."""
    found = {}
    for collector in app.metrics.registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase), collector
        (family,) = collector.describe()
        found[family.name + SUFFIX[family.type]] = family.type, tuple(collector._labelnames)
    return found


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


async def test_every_metric_of_a_running_node_is_on_the_page_with_its_labels_and_no_other(app: App) -> None:
    assert listed() == existing(app)


async def test_what_is_served_over_http_is_on_the_page(app: App) -> None:
    families = text_string_to_metric_families(await asyncio.to_thread(scrape, app.http_port))
    names = {family.name + SUFFIX[family.type] for family in families if not family.name.endswith("_created")}
    assert names == set(listed())


def test_every_metric_that_an_alert_asks_for_exists_with_its_labels() -> None:
    (rules,) = (yaml.safe_load(one.text) for one in blocks(DOCS / "how-to" / "operate.md") if "groups:" in one.text)
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(expressions) >= 5
    for expression in expressions:
        for name, labels in re.findall(r"(sagad_\w+)(?:\{([^}]*)\})?", expression):
            kind, known = listed()[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert kind == "histogram" or not name.endswith(("_bucket", "_sum", "_count"))
            assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= set(known), expression
