"""A Redis over TLS, with a user and a password, as the page about limits shows it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from redis.asyncio import Redis
from support.certificates import Certificates, new_certificates
from support.pages import DOCS, blocks
from support.redis import OwnRedis, own_redis_server
from support.scripted_participant import scripted_participant
from support.server import Server, chain, eventually, refused, running_server
from support.tls_proxy import tls_proxy

from sagad.v1.admin_service_pb2 import ComponentHealth, GetHealthDetailsRequest
from sagad.v1.saga_pb2 import SAGA_STATE_SUCCEEDED
from sagad_server.storage.memory import MemoryStore

SHOWN = {
    block.options["file"]: block.text for block in blocks(DOCS / "how-to/limit-rates.md") if "file" in block.options
}
SECTION: dict[str, str] = yaml.safe_load(SHOWN["redis-tls.yaml"])["redis"]
PASSWORD = urlsplit(SECTION["url"]).password
SLOW = {"default": {"per_second": 0.01, "burst": 2}}
SECRET = "not-to-be-seen"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return new_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def redis() -> Iterator[OwnRedis]:
    with own_redis_server() as server:
        yield server


@pytest.fixture
async def user(redis: OwnRedis) -> None:
    """Who is on the page, with what it gives them. Nobody else gets in but by the connection that makes them."""
    async with Redis.from_url(redis.url) as client:
        await client.flushall()
        await client.execute_command(*SHOWN["redis-user"].split())


def section(port: int, **changes: str) -> dict[str, Any]:
    """The page's, but for where Redis is."""
    where = urlsplit(SECTION["url"])
    host, password = changes.pop("host", "127.0.0.1"), changes.pop("password", where.password)
    url = f"{where.scheme}://{where.username}:{password}@{host}:{port}{where.path}"
    return {"url": url, "timeout": "2s", **changes}


@asynccontextmanager
async def limited(redis: dict[str, Any]) -> AsyncIterator[Server]:
    async with (
        scripted_participant() as participant,
        running_server(MemoryStore(), participant, redis=redis, rate_limits={"definitions": SLOW}) as server,
    ):
        await server.create(chain("reserve"))
        yield server


async def health(server: Server) -> ComponentHealth:
    details = await server.admin.GetHealthDetails(GetHealthDetailsRequest())
    (redis,) = (each for each in details.components if each.name == "redis")
    return redis  # type: ignore[no-any-return]


async def test_limits_and_locks_work_over_tls_with_a_password_and_no_more_rights_than_the_page_gives(
    redis: OwnRedis, user: None, files: Certificates
) -> None:
    async with (
        tls_proxy(redis.port, files.cert, files.key) as port,
        limited(section(port, ca_file=str(files.ca))) as server,
    ):
        assert ((await health(server)).healthy, (await health(server)).message) == (True, "")
        for _ in range(SLOW["default"]["burst"]):
            assert (await server.start(wait=True)).state == SAGA_STATE_SUCCEEDED
        assert (await refused(server.start())).reason == "RATE_LIMITED"
        channel = server.app._guard._channel
        assert channel is not None
        await eventually(lambda: channel.listens)
        async with Redis.from_url(redis.url) as client, client.pubsub() as heard:
            await heard.subscribe("sagad:locks")
            channel.tell([("default", "order/1")])
            while (message := await heard.get_message(timeout=5)) is None or message["type"] != "message":
                pass
            assert message["data"] == b'[["default", "order/1"]]'


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"authority": "other_ca"}, "unable to get local issuer certificate"),
        ({"server": "client"}, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ({"password": SECRET}, "invalid username-password pair"),
    ],
    ids=lambda value: str(value),
)
async def test_a_redis_that_lets_nobody_in_is_away_and_says_why_without_the_secret(
    redis: OwnRedis,
    user: None,
    files: Certificates,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str],
    why: str,
) -> None:
    cert, key = (files.client_cert, files.client_key) if "server" in changes else (files.cert, files.key)
    ca_file = str(getattr(files, changes.get("authority", "ca")))
    password = changes.get("password", PASSWORD)
    async with (
        tls_proxy(redis.port, cert, key) as port,
        limited(section(port, ca_file=ca_file, password=password)) as server,
    ):
        for _ in range(3 * SLOW["default"]["burst"]):  # away, and the policy is open
            assert (await server.start(wait=True)).state == SAGA_STATE_SUCCEEDED
        await eventually(lambda: server.metrics.registry.get_sample_value("sagad_redis_away") == 1)
        component = await health(server)
        assert not component.healthy
        assert why in component.message
    out, err = capfd.readouterr()
    assert "Redis is away" in out
    assert why in out
    assert password not in component.message + out + err + caplog.text
