"""TLS and SASL of the connections to Kafka."""

import ssl

from sagad_server.config import ConfigError
from sagad_server.config_sections import Kafka


def kafka_connection(kafka: Kafka) -> dict[str, object]:
    """TLS and SASL as aiokafka takes them. Raises ConfigError where a file cannot be read."""
    sasl = kafka.sasl_mechanism != "none"
    protocol = ("SASL_" if sasl else "") + ("SSL" if kafka.tls else "PLAINTEXT")
    options: dict[str, object] = {"security_protocol": protocol}
    if kafka.tls:
        options["ssl_context"] = _tls(kafka)
    if sasl:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value()
    return options


def _tls(kafka: Kafka) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=kafka.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError([f"kafka.ca_file cannot be used: {kafka.ca_file}: {error}"]) from error
    if kafka.cert_file is not None:
        try:
            # Without a password, the library would ask the terminal for that of an encrypted key.
            context.load_cert_chain(kafka.cert_file, kafka.key_file, password="")
        except OSError as error:
            files = f"{kafka.cert_file}, {kafka.key_file}"
            text = f"kafka.cert_file and kafka.key_file cannot be used: {files}: {error}; the key must not be encrypted"
            raise ConfigError([text]) from error
    return context
