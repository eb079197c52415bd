"""The connection to sagad: a channel, and calls that are repeated where that is safe."""

from __future__ import annotations

import asyncio
import enum
import random
from typing import TypeVar

import grpc
import grpc.aio

from sagad_client.backoff import Backoff
from sagad_client.errors import Internal, ResourceExhausted, SagadError, Unavailable, from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")

_CHANNEL_OPTIONS = [
    # A coordinator that was restarted is found again in a moment; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A server that vanished without a word is found out while a call waits for it. sagad takes pings every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A watch may be silent for days.
    ("grpc.http2.max_pings_without_data", 0),
    # A page of sagas with payloads is larger than gRPC's 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


_LONGEST_S = 365 * 86400.0  # what gRPC takes for a timeout without overflowing is not much longer


class Repeat(enum.Enum):
    """What repeating a call means, where its answer was lost."""

    SAFE = "safe"
    """Twice is as good as once: reads, and calls that are idempotent by their content."""
    GUARDED = "guarded"
    """A second time has no second effect, but is answered by an error (ABORTED: the revision has moved on)."""
    NEVER = "never"
    """Each time has an effect of its own."""


class Connection:
    """One gRPC channel. Opened and closed by the Client.

    Args:
        target: address of the server, `host:port` or any gRPC target.
        tls: True for TLS with the system's certificates, credentials for others, False for plaintext.
        timeout_s: bound of a call over all its attempts, in seconds, unless the call brings its own.
        backoff: how often, and when, a call is made again.
    """

    def __init__(self, target: str, *, tls: bool | grpc.ChannelCredentials, timeout_s: float, backoff: Backoff) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s is above 0, not {timeout_s}")
        self.target = target
        self.timeout_s = timeout_s
        self.backoff = backoff
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def channel(self) -> grpc.aio.Channel:
        """The open channel. Raises RuntimeError where it is not open."""
        if self._channel is None:
            raise RuntimeError("the client is not open: use it as `async with Client(...) as client:`")
        return self._channel

    def open(self) -> None:
        """Open the channel; must be called in the event loop that will use it. The server is not contacted yet."""
        if self._channel is not None or self._closed:
            raise RuntimeError("a client is opened once; make another one")
        if self._tls is False:
            self._channel = grpc.aio.insecure_channel(self.target, options=_CHANNEL_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials() if self._tls is True else self._tls
            self._channel = grpc.aio.secure_channel(self.target, credentials, options=_CHANNEL_OPTIONS)

    async def close(self) -> None:
        """Close the channel; calls under way end with CANCELLED."""
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        repeat: Repeat = Repeat.SAFE,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a unary call, and make it again where that is safe and may help, until `timeout_s` is over.

        Repeated are calls that ended UNAVAILABLE, or RESOURCE_EXHAUSTED with RetryInfo.

        Raises:
            SagadError: how the last attempt ended.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + (self.timeout_s if timeout_s is None else timeout_s)
        failures, unanswered = 0, False
        while True:
            try:
                return await method(request, timeout=min(max(deadline - now(), 0.0), _LONGEST_S))
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            failures += 1
            pause_s = self._pause_s(error, failures, repeat)
            if pause_s is None or now() + pause_s >= deadline:
                raise _in_doubt(error) if unanswered and repeat is Repeat.GUARDED else error
            unanswered |= isinstance(error, Unavailable)
            await asyncio.sleep(pause_s)

    def _pause_s(self, error: SagadError, failures: int, repeat: Repeat) -> float | None:
        if repeat is Repeat.NEVER or failures >= self.backoff.attempts or not may_pass(error):
            return None
        return self.backoff.pause_s(failures, error.retry_after_s, random.random)


def may_pass(error: SagadError) -> bool:
    """Whether the same call may succeed later: UNAVAILABLE, or RESOURCE_EXHAUSTED with RetryInfo."""
    if isinstance(error, ResourceExhausted):
        return error.retry_after_s is not None
    return isinstance(error, Unavailable)


def is_broken_stream(error: SagadError) -> bool:
    """Whether a stream that ended so may be opened again: as `may_pass`, or something between here and sagad broke it.

    sagad's own errors always have a reason.
    """
    broken = error.code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN} or isinstance(error, Internal)
    return may_pass(error) or (broken and not error.reason)


def _in_doubt(error: SagadError) -> SagadError:
    """Say in a guarded call's error that an earlier attempt, whose answer was lost, may be what it met."""
    if may_pass(error):
        return error
    message = (
        f"{error.message} (an earlier attempt of this very call got no answer, and may be what did it:"
        " look before you try again)"
    )
    return type(error)(
        message,
        code=error.code,
        reason=error.reason,
        violations=error.violations,
        retry_after_s=error.retry_after_s,
        metadata=error.metadata,
    )
