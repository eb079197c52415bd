"""The sections of the configuration. The text under a key is its line in docs/reference/configuration.md."""

import socket
from typing import Annotated, Literal, Self

import grpc
from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, model_validator

from sagad_server.config_values import Address, Dsn, Duration
from sagad_server.domain.payloads import MAX_PAYLOAD_BYTES

MIB = 1024 * 1024

Name = Annotated[str, Field(min_length=1, max_length=100)]


class Section(BaseModel):
    """Immutable; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Compression = Literal["none", "deflate", "gzip"]
COMPRESSIONS: dict[Compression, grpc.Compression] = {
    "none": grpc.Compression.NoCompression,
    "deflate": grpc.Compression.Deflate,
    "gzip": grpc.Compression.Gzip,
}


class Grpc(Section):
    address: Address = "127.0.0.1:7400"
    """Where the gRPC server listens."""
    reuse_port: bool = False
    """Whether other processes of this machine may listen there too, and get a share of the calls."""
    tls_cert_file: FilePath | None = None
    """PEM file with the server's certificate; needs the key."""
    tls_key_file: FilePath | None = None
    """PEM file with the server's key; needs the certificate."""
    max_message_bytes: Annotated[int, Field(ge=64 * 1024, le=64 * MIB)] = 4 * MIB
    """Size of the largest request that is accepted."""
    max_connection_age: Annotated[float, Duration("10s", "30d")] = 3600
    """Age at which a client's connection is asked to go, so that clients spread over the nodes anew."""
    max_connection_age_grace: Annotated[float, Duration("1s", "30d")] = 600
    """How long the calls and streams of such a connection may go on."""
    keepalive_time: Annotated[float, Duration("10s", "1d")] = 60
    """Silence of a connection after which the server pings the client."""
    keepalive_timeout: Annotated[float, Duration("1s", "1h")] = 20
    """How long the answer to a ping may take before the connection is closed."""
    compression: Compression = "none"
    """How answers are compressed for clients that take it: less traffic for more CPU."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file must be given together")
        return self


class Http(Section):
    address: Address = "127.0.0.1:7401"
    """Where metrics and health are served over HTTP."""


class Postgres(Section):
    dsn: Dsn
    """How to reach PostgreSQL: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`."""
    pool_min_size: Annotated[int, Field(ge=0, le=1000)] = 2
    """Connections that are kept open."""
    pool_max_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Connections at most, beside the writer's."""
    max_inactive_connection_lifetime: Annotated[float, Duration("1s", "1d")] = 300
    """Idle time after which a connection of the pool is closed."""
    connect_timeout: Annotated[float, Duration("100ms", "5m")] = 5
    """How long the opening of a connection may take."""
    command_timeout: Annotated[float, Duration("100ms", "1h")] = 10
    """How long a statement may take; for the writer see `writer_silence`."""
    writer_silence: Annotated[float, Duration("500ms", "10m")] = 5
    """Silence of the writer's connection after which it is closed and the outcome of its commit is looked up."""

    @model_validator(mode="after")
    def _pool_has_room(self) -> Self:
        if self.pool_min_size > self.pool_max_size:
            raise ValueError(f"pool_min_size ({self.pool_min_size}) is above pool_max_size ({self.pool_max_size})")
        return self


class Participant(Section):
    target: Annotated[str, Field(min_length=1, max_length=1000)]
    """Its gRPC address, such as `payment:7412`."""
    tls: bool = False
    """Whether it is called over TLS."""
    ca_file: FilePath | None = None
    """PEM file of the authorities that may vouch for its certificate; without it those of the system."""
    step_timeout: Annotated[float, Duration("10ms", "1h")] = 30
    """Timeout of an attempt, where the step gives none."""
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Calls to it at once; more wait their turn."""
    compression: Compression = "none"
    """How its calls are compressed: less traffic for more CPU."""
    keepalive_time: Annotated[float, Duration("10s", "1d")] = 360
    """Silence after which it is pinged. Most gRPC servers end a connection that is pinged more often than every 5m."""

    @model_validator(mode="after")
    def _ca_needs_tls(self) -> Self:
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file has no effect without tls: true")
        return self


class Service(Section):
    name: Name = "sagad"
    """Name that GetServerInfo gives."""
    labels: dict[str, str] = {}
    """Labels that GetServerInfo gives, such as environment and region."""
    cleanup_interval: Annotated[float, Duration("1s", "30d")] = 3600
    """How often ended sagas are looked for to be purged."""
    retention: Annotated[float, Duration("0s", "3650d")] = 30 * 86_400
    """How long the history of an ended saga is kept."""
    tombstone_retention: Annotated[float, Duration("0s", "3650d")] = 90 * 86_400
    """How long its id and its end are known thereafter, so that the id starts nothing anew."""
    drain_timeout: Annotated[float, Duration("0s", "1h")] = 25
    """How long calls under way may go on after SIGTERM. The next start goes on with the rest."""


class Node(Section):
    name: Annotated[Name, Field(default_factory=socket.gethostname)]
    """Name of this process among the nodes, by default that of the host. It stays the same over restarts."""
    advertised: Annotated[str, Field(max_length=1000)] = ""
    """Where other nodes reach this one, as HOST:PORT; by default peer_address, else grpc.address."""
    peer_address: Literal[""] | Address = ""
    """A second address to listen on, for other nodes; needed where many nodes share grpc.address."""
    lease: Annotated[float, Duration("1s", "5m")] = 8
    """How long other nodes wait for a sign of life before they take this one's sagas over."""


class Limits(Section):
    max_sagas_in_memory: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Sagas that this node drives at once; new ones are refused above nine tenths of it."""
    overload_after: Annotated[float, Duration("10ms", "1m")] = 0.25
    """From a start's coming until it is durable; once none was in time for as long, new sagas are refused."""
    max_watches: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Watch streams at once."""
    watch_buffer: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Events that a watch may lag behind before it reads them from the database."""
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 512
    """Transitions in one commit."""
    claim_batch: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Sagas that one statement takes over; twice as many that have slept are woken in a second."""
    max_payload_bytes: Annotated[int, Field(ge=0, le=MAX_PAYLOAD_BYTES)] = MAX_PAYLOAD_BYTES
    """Size of one payload of a request."""
    max_saga_payload_bytes: Annotated[int, Field(ge=0, le=MIB)] = MIB
    """Size of all payloads of a saga together."""
    max_labels: Annotated[int, Field(ge=0, le=32)] = 32
    """Labels of a saga."""


class Kafka(Section):
    bootstrap_servers: Annotated[str, Field(max_length=10_000)] = ""
    """Kafka's brokers as HOST:PORT, with commas between; some of them are enough."""
    tls: bool = False
    """Whether connections are encrypted, and the brokers' names are checked."""
    ca_file: FilePath | None = None
    """PEM file of the authorities that the brokers' certificates are checked against; none: those of the system."""
    cert_file: FilePath | None = None
    """PEM file of the client's certificate, and with `key_file` its key: mutual TLS."""
    key_file: FilePath | None = None
    """PEM file of the client's key."""
    sasl_mechanism: Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "none"
    """How sagad proves who it is. PLAIN without `tls` is refused: the password would be readable on its way."""
    sasl_username: Annotated[str, Field(max_length=1000)] = ""
    """User of SASL."""
    sasl_password: SecretStr = SecretStr("")
    """Password of SASL."""

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file need tls: true")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file need each other")
        given = {self.sasl_mechanism != "none", bool(self.sasl_username), bool(self.sasl_password.get_secret_value())}
        if len(given) > 1:
            raise ValueError("sasl_mechanism, sasl_username and sasl_password need each other")
        if self.sasl_mechanism == "PLAIN" and not self.tls:
            raise ValueError("sasl_mechanism PLAIN needs tls: true: it sends the password as it is")
        return self


class Mirror(Section):
    enabled: bool = False
    """Whether `sagad serve` relays the journal to Kafka; `sagad mirror` does so in any case."""
    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = "saga-events"
    """Topic of the events. A new name gets all that the journal has, from its beginning."""
    partitions: Annotated[int, Field(ge=1, le=64)] = 8
    """Partitions of the topic, a power of 2; another number than it has is refused."""
    replication_factor: Annotated[int, Field(ge=0, le=100)] = 0
    """Replicas of each, where it is made; 0: 3, or as many as there are brokers."""
    retention: Annotated[float, Duration("1m", "3650d")] = 7 * 86_400
    """How long Kafka keeps events, where the topic is made."""
    make_topics: bool = True
    """Whether topics that are missing are made."""
    format: Literal["protobuf", "json"] = "protobuf"
    """What a record's value is: a `sagad.v1.SagaEvent` as protobuf, or as ProtoJSON."""
    payloads: bool = False
    """Whether events have the inputs and outputs of steps."""
    interval: Annotated[float, Duration("10ms", "10s")] = 0.1
    """Time in which events gather for a transaction, while there is no backlog."""

    @model_validator(mode="after")
    def _partitions_divide_the_journal(self) -> Self:
        if self.partitions & (self.partitions - 1):
            raise ValueError(f"partitions ({self.partitions}) is none of 1, 2, 4, 8, 16, 32, 64")
        return self


class Range(Section):
    """The first key must not be above the second one."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        (lower, least), (upper, greatest) = list(self)
        if least > greatest:
            raise ValueError(f"{lower} ({least:g}) is above {upper} ({greatest:g})")
        return self


class ShortText(Range):
    min_length: Annotated[int, Field(ge=1, le=100)] = 2
    """Fewest characters."""
    max_length: Annotated[int, Field(ge=1, le=255)] = 100
    """Most characters."""


class LongText(Range):
    min_length: Annotated[int, Field(ge=0, le=500)] = 10
    """Fewest characters."""
    max_length: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Most characters."""


class Retries(Range):
    min: Annotated[int, Field(ge=0, le=100)] = 0
    """Fewest retries that a step may ask for."""
    max: Annotated[int, Field(ge=0, le=100)] = 10
    """Most retries that a step may ask for."""


class StepTimeout(Range):
    min: Annotated[float, Duration("1ms", "1h")] = 1
    """Shortest timeout that a step may ask for."""
    max: Annotated[float, Duration("1ms", "1d")] = 3600
    """Longest timeout that a step may ask for."""


class DefinitionRules(Section):
    id: ShortText = ShortText()
    name: ShortText = ShortText()
    description: LongText = LongText()


class StepRules(Section):
    id: ShortText = ShortText()
    name: ShortText = ShortText()
    description: LongText = LongText()
    action: ShortText = ShortText()
    compensation: ShortText = ShortText()
    max_retries: Retries = Retries()
    timeout: StepTimeout = StepTimeout()


class Validation(Section):
    max_definitions: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Definitions that may be stored; each version counts."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Steps of all stored definitions together."""
    max_steps_per_definition: Annotated[int, Field(ge=1, le=100)] = 100
    """Steps of one definition."""
    definition: DefinitionRules = DefinitionRules()
    step: StepRules = StepRules()


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""
