"""Calls participants over gRPC: those of the configuration, and nobody else."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from sagad.v1.participant_service_pb2 import DescribeRequest, DescribeResponse, StepRequest
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub
from sagad_server.domain.inputs import NotSent, Outcome, failed_with_code
from sagad_server.engine.ports import Call, Observer
from sagad_server.engine.requests import clean, read_outcome

if TYPE_CHECKING:
    from sagad.v1.participant_service_pb2_grpc import ParticipantServiceAsyncStub

_STATUS_DETAILS = "grpc-status-details-bin"
_RETRY_INFO = error_details_pb2.RetryInfo.DESCRIPTOR
_MAX_RETRY_AFTER_MS = 30 * 86_400_000
_NOT_CONFIGURED_RETRY_MS = 30_000  # nothing changes before the next start, and each try is journaled
_DESCRIBE_TIMEOUT_S = 2.0
_CHANNEL_OPTIONS = (
    # A participant that comes back is found within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
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


@dataclass(slots=True)
class _Participant:
    config: ParticipantConfig
    channel: grpc.aio.Channel
    stub: "ParticipantServiceAsyncStub"
    in_flight: int = 0
    queue: deque[Call] = field(default_factory=deque)


class GrpcTransport:
    """Hands calls over, at most `max_in_flight` a participant at once; the rest wait their turn.

    A step's timeout runs from the hand-over.
    """

    def __init__(self, participants: Mapping[str, ParticipantConfig], observer: Observer) -> None:
        self._observer = observer
        self._participants = {name: _connect(config) for name, config in participants.items()}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    @property
    def configs(self) -> dict[str, ParticipantConfig]:
        return {name: participant.config for name, participant in self._participants.items()}

    def queued(self) -> dict[str, tuple[int, int]]:
        """(in flight, waiting) of each participant."""
        return {name: (one.in_flight, len(one.queue)) for name, one in self._participants.items()}

    def send(self, call: Call) -> None:
        participant = self._participants.get(call.participant)
        if self._draining:
            self._not_sent(call, "this node is shutting down")
        elif participant is None:
            message = f"participant {call.participant!r} is not in the configuration"
            self._not_sent(call, message, _NOT_CONFIGURED_RETRY_MS)
        elif participant.in_flight >= participant.config.max_in_flight:
            participant.queue.append(call)
        else:
            self._hand_over(participant, call)

    def _not_sent(self, call: Call, message: str, retry_after_ms: int = 0) -> None:
        self._loop.call_soon(call.on_outcome, call, NotSent(message, retry_after_ms))

    def _hand_over(self, participant: _Participant, call: Call) -> None:
        participant.in_flight += 1
        task = self._loop.create_task(self._run(participant, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, participant: _Participant, call: Call) -> None:
        began = time.monotonic()
        timeout_s = call.timeout_ms / 1000 if call.timeout_ms else participant.config.step_timeout_s
        seconds, rest = divmod(int(timeout_s * 1000), 1000)
        call.request.remaining_time.seconds = seconds
        call.request.remaining_time.nanos = rest * 1_000_000
        outcome: Outcome
        try:
            if isinstance(call.request, StepRequest):
                answer = await participant.stub.Step(call.request, timeout=timeout_s, metadata=call.metadata)
                outcome = read_outcome(answer.outcome)
            else:
                undone = await participant.stub.Compensate(call.request, timeout=timeout_s, metadata=call.metadata)
                outcome = read_outcome(undone.outcome)
        except grpc.aio.AioRpcError as error:
            outcome = failed_with_code(error.code().name, clean(error.details() or "", 1024), _retry_after_ms(error))
        except asyncio.CancelledError:  # the process stops: what was handed over stays ambiguous
            outcome = failed_with_code("CANCELLED", "sagad gave the call up")
        except Exception as error:  # noqa: BLE001 - a call must be answered, whatever the transport raises
            outcome = failed_with_code("UNKNOWN", f"the call failed within sagad: {type(error).__name__}")
        participant.in_flight -= 1
        self._observer.attempt_ended(call, outcome, time.monotonic() - began)
        if participant.queue and not self._draining:
            self._hand_over(participant, participant.queue.popleft())
        call.on_outcome(call, outcome)

    async def describe(self, name: str) -> DescribeResponse | str:
        """What a participant says it implements, or why it does not say."""
        participant = self._participants.get(name)
        if participant is None:
            return f"participant {name!r} is not in the configuration"
        try:
            return await participant.stub.Describe(DescribeRequest(), timeout=_DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {clean(error.details() or '', 200)}"

    async def drain(self) -> None:
        """Sends nothing more, and waits for what is under way, each call at most for its timeout."""
        self._draining = True
        for participant in self._participants.values():
            while participant.queue:
                self._not_sent(participant.queue.popleft(), "this node is shutting down")
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Gives up what is still under way."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for participant in self._participants.values():
            await participant.channel.close()


def _connect(config: ParticipantConfig) -> _Participant:
    if config.tls:
        credentials = grpc.ssl_channel_credentials(config.ca_pem)
        channel = grpc.aio.secure_channel(config.target, credentials, options=_CHANNEL_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(config.target, options=_CHANNEL_OPTIONS)
    return _Participant(config, channel, ParticipantServiceStub(channel))


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
                return min(max(0, int(infos[0].retry_delay.ToMilliseconds())), _MAX_RETRY_AFTER_MS)
    return 0
