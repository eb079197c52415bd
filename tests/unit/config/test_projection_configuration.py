"""What `sagad project` needs to be told, and what it tells nobody."""

import pytest
import yaml
from prometheus_client import CollectorRegistry

from sagad_server.config import Config, ConfigError, load_config
from sagad_server.projection.metrics import ProjectionMetrics
from sagad_server.projection_app import new_projector, projection_settings

SECRET = "correct-horse"
URL = f"mongodb://sagad:{SECRET}@db.example.com/?replicaSet=rs0"


def load(**mongo: str) -> Config:
    tree = {"kafka": {"bootstrap_servers": "kafka:9092"}, "mongo": mongo}
    return load_config(None, {}, tree, needs_postgres=False)


def test_it_needs_no_postgresql_and_says_at_once_all_that_it_does_need() -> None:
    with pytest.raises(ConfigError) as refused:
        projection_settings(load_config(None, {}, needs_postgres=False))
    assert [fault.split(":")[0] for fault in refused.value.faults] == ["kafka.bootstrap_servers", "mongo.url"]
    assert projection_settings(load(url=URL)).mongo_url == URL


def test_the_url_of_mongodb_is_shown_nowhere() -> None:
    config = load(url=URL)
    shown = [yaml.safe_dump(config.masked()), repr(config), repr(projection_settings(config))]
    for url in (f"postgresql://sagad:{SECRET}@db", SECRET):
        with pytest.raises(ConfigError, match=r"mongo\.url") as refused:
            load(url=url)
        shown.append(str(refused.value))
    assert [text for text in shown if SECRET in text] == []


async def test_a_url_that_pymongo_refuses_is_a_fault_of_its_key_and_is_not_shown() -> None:
    settings = projection_settings(load(url=f"mongodb://sagad:{SECRET}:@db.example.com:port"))
    with pytest.raises(ConfigError, match=r"mongo\.url: pymongo does not take it") as refused:
        new_projector(settings, ProjectionMetrics(CollectorRegistry()))
    assert SECRET not in str(refused.value)
