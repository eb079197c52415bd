"""A Kafka that wants a password or a certificate: who connects as the page about the mirror shows gets in, and who does
not is told why."""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from aiokafka.errors import KafkaConnectionError
from support.mirror import MirrorProcess, running_mirror, write_sagas
from support.processes import sagad_process
from support.projection import documents, projecting
from support.scripted_participant import scripted_participant
from support.secured_kafka import PASSWORD, SecuredKafka, secured_kafka
from support.server import PARTICIPANT, chain, running_server

from sagad.v1.admin_service_pb2 import GetHealthDetailsRequest
from sagad.v1.saga_pb2 import SAGA_STATE_SUCCEEDED, SagaEvent
from sagad_client.client import Client
from sagad_client.events import SagaEvents
from sagad_server.config import Config, load_config
from sagad_server.mirror_app import mirror_settings
from sagad_server.projection.topic import TopicMissing, TopicReader
from sagad_server.projection_app import projection_settings
from sagad_server.storage.mirror import LANES
from sagad_server.storage.postgres import PostgresStore

SECRET = "not-to-be-seen"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured-kafka")) as kafka:
        yield kafka


def configured(folder: Path, kafka: Mapping[str, Any], topic: str) -> Config:
    sections = {
        "postgres": {"dsn": "postgresql://unused@127.0.0.1:1/unused"},
        "kafka": dict(kafka),
        "mirror": {"topic": topic, "interval": "20ms"},
        "mongo": {"url": "mongodb://127.0.0.1:1"},
        "projection": {"group_id": topic},
    }
    file = folder / f"{topic}.yaml"
    file.write_text(yaml.safe_dump(sections))
    return load_config(file, {})


async def projected(config: Config, count: int) -> list[SagaEvent]:
    """What the projection reads, once the mirror has made the topic."""
    while True:
        found: list[SagaEvent] = []
        try:
            async with TopicReader(projection_settings(config)) as reader:
                while len(found) < count:
                    found += (await reader.read()).events
                return found
        except TopicMissing:
            await asyncio.sleep(0.05)


async def read(kafka: SecuredKafka, way: str, topic: str, count: int) -> list[SagaEvent]:
    async with kafka.events(way, uuid4().hex, topic) as events:
        return [await anext(events) for _ in range(count)]


def _mechanism(kafka: SecuredKafka, mechanism: str) -> dict[str, Any]:
    return kafka.section("kafka-scram") | {"sasl_mechanism": mechanism}


@pytest.mark.parametrize("mechanism", ["PLAIN", None])  # SCRAM: below
async def test_mirror_projection_and_reader_get_in_by_password_and_by_certificate(
    kafka: SecuredKafka, store: PostgresStore, tmp_path: Path, mechanism: str | None
) -> None:
    section = kafka.section("kafka-mtls") if mechanism is None else _mechanism(kafka, mechanism)
    topic = uuid4().hex
    config = configured(tmp_path, section, topic)
    await write_sagas(store, ["saga"], 3, {})
    async with running_mirror(mirror_settings(config), store):
        assert [event.revision for event in await projected(config, 3)] == [1, 2, 3]
        way = "kafka-mtls" if mechanism is None else "kafka-scram"
        assert [event.revision for event in await read(kafka, way, topic, 3)] == [1, 2, 3]


async def test_a_saga_comes_to_readers_and_to_the_model_over_a_secured_kafka(
    kafka: SecuredKafka, postgres_dsn: str, mongo_url: str, tmp_path: Path
) -> None:
    topic = uuid4().hex
    sections: dict[str, dict[str, object]] = {
        "kafka": kafka.section("kafka-scram"),
        "mirror": {"enabled": True, "topic": topic, "interval": "20ms"},
    }
    async with scripted_participant() as participant:
        definition = chain("reserve")
        participant.implement(actions={"do_reserve"}, compensations={"undo_reserve"})
        with sagad_process(tmp_path, postgres_dsn, {PARTICIPANT: participant.address}, wait=False, **sections) as sagad:
            project = projecting(tmp_path, kafka.section("kafka-scram"), topic, mongo_url, topic)
            await asyncio.to_thread(sagad.wait_until_serving)
            async with project as projection, Client(sagad.address) as client:
                await client.definitions.create(definition)
                saga = await client.wait((await client.start("order")).saga_id)
                await projection.until("sagad_projection_events_total", saga.revision)
                assert (await documents(mongo_url, topic))[saga.uid]["revision"] == saga.revision
                (*_, last) = await read(kafka, "kafka-mtls", topic, saga.revision)
                assert (last.saga_id, last.state) == (saga.saga_id, SAGA_STATE_SUCCEEDED)


@pytest.mark.parametrize("way", ["kafka-scram", "kafka-mtls"])
async def test_a_mirror_that_is_a_process_of_its_own_gets_in(
    kafka: SecuredKafka, store: PostgresStore, postgres_dsn: str, tmp_path: Path, way: str
) -> None:
    section, topic = kafka.section(way), uuid4().hex
    await write_sagas(store, ["saga"], 3, {})
    mirror = MirrorProcess(tmp_path, postgres_dsn, section, topic, "mirror")
    try:
        assert [event.revision for event in await projected(configured(tmp_path, section, topic), 3)] == [1, 2, 3]
        assert await asyncio.to_thread(mirror.terminate) == 0
    finally:
        mirror.kill()
    assert PASSWORD not in mirror.log()


def _wrong_password(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.section("kafka-scram") | {"sasl_password": SECRET}


def _wrong_plain_password(kafka: SecuredKafka) -> dict[str, Any]:
    return _mechanism(kafka, "PLAIN") | {"sasl_password": SECRET}


def _untrusted(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.section("kafka-scram") | {"ca_file": str(kafka.certificates.other_ca)}


def _no_certificate(kafka: SecuredKafka) -> dict[str, Any]:
    return {key: value for key, value in kafka.section("kafka-mtls").items() if key not in ("cert_file", "key_file")}


def _no_tls(kafka: SecuredKafka) -> dict[str, Any]:
    return {"bootstrap_servers": kafka.servers("kafka-mtls")}


def _tls_without_need(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.section("kafka-mtls") | {"bootstrap_servers": kafka.broker.bootstrap_servers}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (_wrong_password, "SaslAuthenticationFailed: Authentication failed"),
        (_wrong_plain_password, "SaslAuthenticationFailed: Authentication failed"),
        (_untrusted, "its certificate is refused: unable to get local issuer certificate (kafka.ca_file"),
        (_no_certificate, "it refuses the client's certificate, or wants one (kafka.cert_file)"),
        (_no_tls, "it closed the connection: kafka.tls"),
        (_tls_without_need, "kafka.tls"),
    ],
)
async def test_who_does_not_get_in_is_told_why_without_the_secret_and_sagas_go_on(
    kafka: SecuredKafka,
    postgres_dsn: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    wrong: Any,
    why: str,
) -> None:
    section = wrong(kafka)
    sections = {
        "postgres": {"dsn": postgres_dsn},
        "kafka": section,
        "mirror": {"enabled": True, "topic": uuid4().hex},
    }
    caplog.set_level(logging.INFO)
    async with (
        scripted_participant() as participant,
        running_server(None, participant, **sections) as server,
    ):
        await server.create(chain("reserve"))
        message = ""
        while "KafkaConnectionError" not in message:
            details = await server.admin.GetHealthDetails(GetHealthDetailsRequest())
            message = "".join(each.message for each in details.components if each.name == "mirror")
            await asyncio.sleep(0.02)
        assert (await server.start(wait=True)).state == SAGA_STATE_SUCCEEDED
    with pytest.raises(KafkaConnectionError) as refused:
        await projected(configured(tmp_path, section, uuid4().hex), 1)
    for text in (message, str(refused.value)):
        assert f"{section['bootstrap_servers']}: " in text
        assert why in text
    out, err = capfd.readouterr()
    assert why in out  # the log
    assert SECRET not in message + out + err + caplog.text + repr(refused.getrepr(showlocals=False))


async def test_a_mirror_that_is_a_process_of_its_own_and_does_not_get_in_says_why_and_goes_on_trying(
    kafka: SecuredKafka, store: PostgresStore, postgres_dsn: str, tmp_path: Path
) -> None:
    section = _wrong_password(kafka)
    mirror = MirrorProcess(tmp_path, postgres_dsn, section, uuid4().hex, "mirror")
    try:
        refused = re.compile(rf"{section['bootstrap_servers']}: .*SaslAuthenticationFailed: Authentication failed")
        while len(refused.findall(mirror.log())) <= LANES:  # each lane tells it once a try
            assert mirror.child.poll() is None, mirror.log()
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(mirror.terminate) == 0
    finally:
        mirror.kill()
    assert SECRET not in mirror.log()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (_wrong_password, "SaslAuthenticationFailed: Authentication failed"),
        (_untrusted, "its certificate is refused: unable to get local issuer certificate (the CA of ssl_context"),
        (_no_certificate, "it refuses the client's certificate, or wants one (load_cert_chain of ssl_context)"),
        (_no_tls, "it closed the connection: security_protocol"),
        (_tls_without_need, "security_protocol"),
    ],
)
async def test_a_reader_that_does_not_get_in_is_told_why_without_the_secret(
    kafka: SecuredKafka, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: Any, why: str
) -> None:
    caplog.set_level(logging.DEBUG)
    section, topic = wrong(kafka), uuid4().hex
    connection = mirror_settings(configured(tmp_path, section, topic)).connection
    with pytest.raises(KafkaConnectionError) as refused:
        async with SagaEvents(section["bootstrap_servers"], group_id=topic, topic=topic, **connection):
            pass
    assert f"{section['bootstrap_servers']}: " in str(refused.value)
    assert why in str(refused.value)
    assert SECRET not in caplog.text + repr(refused.getrepr(showlocals=False))


async def test_a_reader_that_names_no_mechanism_is_told_of_its_wrong_password(
    kafka: SecuredKafka, tmp_path: Path
) -> None:
    section, topic = _wrong_plain_password(kafka), uuid4().hex
    connection = dict(mirror_settings(configured(tmp_path, section, topic)).connection)
    assert connection.pop("sasl_mechanism") == "PLAIN"  # aiokafka's own default
    with pytest.raises(KafkaConnectionError, match="SaslAuthenticationFailed: Authentication failed"):
        async with SagaEvents(section["bootstrap_servers"], group_id=topic, topic=topic, **connection):
            pass
