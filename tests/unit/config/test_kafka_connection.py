"""TLS and SASL to Kafka, from the configuration."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import Certificates, new_certificates

from sagad_server.config import ConfigError
from sagad_server.config_sections import Kafka
from sagad_server.kafka_connection import kafka_connection


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return new_certificates(tmp_path_factory.mktemp("certificates"))


def connection(**keys: Any) -> dict[str, object]:
    return kafka_connection(Kafka(bootstrap_servers="kafka:9093", **keys))


def test_tls_and_a_password_are_independent_of_each_other(files: Certificates) -> None:
    sasl = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "sagad", "sasl_password": "secret"}
    tls = {"tls": True, "ca_file": files.ca}
    found = [connection(**keys)["security_protocol"] for keys in ({}, sasl, tls, sasl | tls)]
    assert found == ["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"]


def test_brokers_are_verified_by_certificate_and_name(files: Certificates) -> None:
    context = connection(tls=True, ca_file=files.ca)["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_file_that_is_no_authority_is_named(files: Certificates) -> None:
    with pytest.raises(ConfigError, match=r"kafka\.ca_file cannot be used: .*key\.pem"):
        connection(tls=True, ca_file=files.key)


def test_a_key_of_another_certificate_is_refused(files: Certificates) -> None:
    with pytest.raises(ConfigError, match=r"kafka\.cert_file and kafka\.key_file cannot be used: .*client\.pem"):
        connection(tls=True, ca_file=files.ca, cert_file=files.client_cert, key_file=files.key)


def test_an_encrypted_key_is_refused_and_no_terminal_is_asked(files: Certificates, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files.client_key.read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match="the key must not be encrypted"):
        connection(tls=True, ca_file=files.ca, cert_file=files.client_cert, key_file=encrypted)
