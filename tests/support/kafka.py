"""A real Kafka for the tests: one broker in KRaft mode, from jars that Maven brings, or the one of the environment."""

import base64
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.certificates import Certificates
from support.maven import JarsUnavailableError, fetched_jars
from support.postgres import new_folder
from support.processes import free_port

SERVER_VARIABLE = "SAGAD_TEST_KAFKA"
POM = Path(__file__).parent / "kafka_jars" / "pom.xml"
START_TIMEOUT_S = 90.0

_JAVA = ("java", "-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOG = "org.slf4j.simpleLogger.defaultLogLevel=warn\norg.slf4j.simpleLogger.showDateTime=true\n"
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{more_listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised_port}{more_listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
# A broker that was killed waits until its own old session is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
"""
_SECURED = """
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.mtls.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.sasl.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_{user}="{password}";
"""
_JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Security:
    """What a broker demands, beside the listener that demands nothing."""

    certificates: Certificates
    user: str
    password: str
    sasl_port: int = field(default_factory=free_port)
    """SASL over TLS: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512."""
    mtls_port: int = field(default_factory=free_port)
    """TLS with a client's certificate."""

    def listeners(self) -> str:
        return f",SASL://127.0.0.1:{self.sasl_port},MTLS://127.0.0.1:{self.mtls_port}"

    def properties(self, folder: Path) -> str:
        keystore = folder / "keystore.pem"
        keystore.write_bytes(self.certificates.key.read_bytes() + self.certificates.cert.read_bytes())
        files = {"keystore": keystore, "truststore": self.certificates.ca}
        return _SECURED.format(**files, jaas=_JAAS, user=self.user, password=self.password)

    def users(self) -> list[str]:
        """Options of the command that formats the storage."""
        who = f"[name={self.user},password={self.password}]"
        return [f"--add-scram=SCRAM-SHA-{bits}={who}" for bits in (256, 512)]


def kafka_jars() -> Path:
    """The folder with the jars, filled by Maven the first time. Raises JarsUnavailableError."""
    return fetched_jars(POM, "sagad-kafka", SERVER_VARIABLE)


class KafkaBroker:
    """A broker on a port that stays the same over its deaths, with its data."""

    def __init__(
        self, jars: Path, folder: Path, port: int = 0, advertised_port: int = 0, security: Security | None = None
    ) -> None:
        """`advertised_port`: of a proxy before it, where clients are to connect."""
        self.port = port or free_port()
        self._folder = folder
        self._words = [*_JAVA, "-cp", f"{folder}:{jars}/*"]
        self._child: subprocess.Popen[bytes] | None = None
        (folder / "simplelogger.properties").write_text(_LOG)
        self._properties = folder / "server.properties"
        ports = {"port": self.port, "controller_port": free_port(), "advertised_port": advertised_port or self.port}
        more = "" if security is None else security.listeners()
        text = _PROPERTIES.format(folder=folder, more_listeners=more, **ports)
        self._properties.write_text(text if security is None else text + security.properties(folder))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        storage = [
            *self._words,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            str(self._properties),
            *(() if security is None else security.users()),
        ]
        done = subprocess.run(storage, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it takes connections, which it does once it can work."""
        with (self._folder / "kafka.log").open("ab") as log:
            words = [*self._words, "kafka.Kafka", str(self._properties)]
            self._child = subprocess.Popen(words, stdout=log, stderr=log)
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._child.poll() is None, f"Kafka has ended:\n{self.log()[-3000:]}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < give_up_at, f"Kafka does not listen:\n{self.log()[-3000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def log(self) -> str:
        return (self._folder / "kafka.log").read_text(errors="replace")


@contextmanager
def kafka_broker(port: int = 0, advertised_port: int = 0, security: Security | None = None) -> Iterator[KafkaBroker]:
    """A running broker of one's own, that a test may kill and start. Skips where there can be none."""
    try:
        jars = kafka_jars()
    except JarsUnavailableError as error:
        pytest.skip(str(error))
    with new_folder() as folder:
        broker = KafkaBroker(jars, folder, port, advertised_port, security)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


@contextmanager
def kafka_server() -> Iterator[str]:
    """The bootstrap servers of a Kafka for all tests: that of the environment, else one of our own."""
    if servers := os.environ.get(SERVER_VARIABLE):
        yield servers
        return
    with kafka_broker() as broker:
        yield broker.bootstrap_servers
