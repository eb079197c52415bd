"""A Kafka that wants a password or a certificate, and the ways in that the page about the mirror shows."""

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sagad_client.events import SagaEvents
from support.certificates import Certificates, new_certificates
from support.kafka import KafkaBroker, Security, kafka_broker
from support.pages import DOCS, blocks

PAGE = DOCS / "how-to" / "mirror.md"
USER, PASSWORD = "sagad", "choose-one"  # as the page has them


@dataclass(frozen=True)
class SecuredKafka:
    broker: KafkaBroker
    security: Security
    folder: Path
    """Has the certificates under the names that the page gives them."""

    @property
    def certificates(self) -> Certificates:
        return self.security.certificates

    def section(self, name: str) -> dict[str, Any]:
        """`kafka` of a configuration, as the page's example of this name has it, and where this broker is."""
        (text,) = (block.text for block in blocks(PAGE) if block.options.get("file") == f"{name}.yaml")
        section: dict[str, Any] = yaml.safe_load(text)["kafka"]
        files = {key: str(self.folder / value) for key, value in section.items() if key.endswith("_file")}
        return section | files | {"bootstrap_servers": self.servers(name)}

    def servers(self, name: str) -> str:
        port = self.security.mtls_port if name == "kafka-mtls" else self.security.sasl_port
        return f"127.0.0.1:{port}"

    def events(self, name: str, group_id: str, topic: str) -> SagaEvents:
        """A reader, connected as the page's Python is."""
        (text,) = (block.text for block in blocks(PAGE) if block.text.startswith("import ssl\n"))
        text, _, last = text.rpartition("\nevents = ")
        assert last.startswith("SagaEvents("), last
        shown: dict[str, Any] = {}
        with chdir(self.folder):
            exec(text, shown)
        connection = shown["by_certificate" if name == "kafka-mtls" else "by_password"]
        return SagaEvents(self.servers(name), group_id=group_id, topic=topic, idle_timeout_s=20, **connection)


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """A running one. Skips where there can be none."""
    certificates = new_certificates(folder)
    names = {"ca": "kafka-ca.pem", "client_cert": "kafka-client.pem", "client_key": "kafka-client-key.pem"}
    for field, name in names.items():
        os.link(getattr(certificates, field), folder / name)
    security = Security(certificates, USER, PASSWORD)
    with kafka_broker(security=security) as broker:
        yield SecuredKafka(broker, security, folder)
