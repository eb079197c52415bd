"""The way to one participant: its address, its gRPC channel, and how a failed RPC is read."""

from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from sagad_server.domain.inputs import Failed, failed_with_code
from sagad_server.engine.requests import MAX_MESSAGE_LENGTH, clean

MAX_RETRY_AFTER_MS = 30 * 86_400_000
_STATUS_DETAILS = "grpc-status-details-bin"
_RETRY_INFO = error_details_pb2.RetryInfo.DESCRIPTOR
_CHANNEL_OPTIONS = (
    # A participant that comes back is found within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A session may be silent for as long as no saga needs it.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 1024 * 1024),
)


@dataclass(slots=True, frozen=True)
class ParticipantConfig:
    """How to reach a participant."""

    target: str
    step_timeout_s: float
    max_in_flight: int
    tls: bool = False
    ca_pem: bytes | None = None
    keepalive_time_s: float = 360.0
    compression: grpc.Compression = grpc.Compression.NoCompression


def connect(config: ParticipantConfig) -> grpc.aio.Channel:
    """A channel that connects when it is used."""
    options = [*_CHANNEL_OPTIONS, ("grpc.keepalive_time_ms", round(config.keepalive_time_s * 1000))]
    if config.tls:
        credentials = grpc.ssl_channel_credentials(config.ca_pem)
        return grpc.aio.secure_channel(config.target, credentials, options, config.compression)
    return grpc.aio.insecure_channel(config.target, options, config.compression)


def failed_rpc(error: grpc.aio.AioRpcError) -> Failed:
    """The outcome of a call whose RPC, or stream, ended with this error."""
    return failed_with_code(error.code().name, clean(error.details() or "", MAX_MESSAGE_LENGTH), _retry_after_ms(error))


def _retry_after_ms(error: grpc.aio.AioRpcError) -> int:
    """The pause that the participant asked for by google.rpc.RetryInfo; 0 if none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_DETAILS and isinstance(value, bytes):
            try:
                details = status_pb2.Status.FromString(value).details
                infos = [error_details_pb2.RetryInfo.FromString(one.value) for one in details if one.Is(_RETRY_INFO)]
            except DecodeError:
                return 0
            if infos:
                return min(max(0, int(infos[0].retry_delay.ToMilliseconds())), MAX_RETRY_AFTER_MS)
    return 0
