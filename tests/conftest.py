"""Fixtures for all tests. Servers are started once, when the first test asks for them."""

import os

# Tests start processes while gRPC runs in this one; its fork handlers crash the child between fork and exec.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from collections.abc import Iterator

import hypothesis
import pytest
from support.kafka import kafka_server
from support.mongo import mongo_server
from support.postgres import database, embedded_postgres, postgres_server
from support.redis import OwnRedis, own_redis_server, redis_server

from sagad_server.embedded import EmbeddedPostgres
from sagad_server.grpc_stack import start_grpc

pytest_plugins = ["support.skips"]

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile("sagad", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("sagad")

start_grpc()


@pytest.fixture(scope="session")
def postgres_server_dsn() -> Iterator[str]:
    """A superuser's DSN of the server that all tests share: never stop it, never change its settings."""
    with postgres_server() as dsn:
        yield dsn


@pytest.fixture
def postgres_dsn(postgres_server_dsn: str) -> Iterator[str]:
    """The DSN of a fresh, empty database."""
    with database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server for this test alone, to be stopped, killed and started."""
    with embedded_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of the Redis that all tests share: use keys of your own, never empty it."""
    with redis_server() as url:
        yield url


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    """A Redis for this test alone, to be killed, emptied and started."""
    with own_redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """Of the Kafka that all tests share: use topics of your own."""
    with kafka_server() as servers:
        yield servers


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """Of the MongoDB that all tests share: use a database of your own."""
    with mongo_server() as url:
        yield url
