"""A sagad in this process: the whole app over a store, on a free port, with a scripted participant."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2_grpc import AdminServiceStub
from sagad.v1.definition_pb2 import Definition
from sagad.v1.definition_service_pb2 import CreateDefinitionRequest
from sagad.v1.definition_service_pb2_grpc import DefinitionServiceStub
from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2_grpc import SagaServiceStub
from sagad_server.app import App
from sagad_server.config import Config, load_config
from sagad_server.engine.engine import Engine
from sagad_server.metrics import Metrics
from sagad_server.storage.store import Store
from support import definitions as recipes
from support.scripted_participant import ScriptedParticipant, json_payload

PARTICIPANT = "inventory"
UNREACHABLE = "payment"
"""In the configuration, but nobody is at its address."""


@dataclass
class Server:
    """A running node, and stubs to call it by."""

    address: str
    channel: grpc.aio.Channel
    participant: ScriptedParticipant
    store: Store
    engine: Engine
    metrics: Metrics
    app: App
    sagas: Any = field(init=False)
    definitions: Any = field(init=False)
    admin: Any = field(init=False)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.sagas = SagaServiceStub(self.channel)
        self.definitions = DefinitionServiceStub(self.channel)
        self.admin = AdminServiceStub(self.channel)

    async def create(self, definition: Definition, namespace: str = "") -> None:
        """Stores a definition whose actions the participant then implements."""
        steps = definition.steps
        self.participant.implement(
            actions={*self.participant.actions, *(step.action for step in steps)},
            compensations={*self.participant.compensations, *(s.compensation for s in steps if s.compensation)},
        )
        await self.definitions.CreateDefinition(CreateDefinitionRequest(namespace=namespace, definition=definition))

    async def start(self, definition_id: str = "order", input: Any = None, **fields: Any) -> Saga:  # noqa: A002
        """Starts a saga, by default under an id of its own."""
        request = pb.StartSagaRequest(
            definition_id=definition_id,
            input=None if input is None else json_payload(input),
            **{"saga_id": f"saga-{next(self._ids)}", **fields},
        )
        return (await self.sagas.StartSaga(request)).saga  # type: ignore[no-any-return]

    async def get(self, saga_id: str, **fields: Any) -> Saga:
        return (await self.sagas.GetSaga(pb.GetSagaRequest(saga_id=saga_id, **fields))).saga  # type: ignore[no-any-return]

    async def settled(self, saga_id: str) -> Saga:
        """The saga when it has ended, or is parked."""
        repeat = self.sagas.WatchSaga(pb.WatchSagaRequest(saga_id=saga_id))
        async for message in repeat:
            state = (message.event if message.HasField("event") else message.snapshot).state
            if state not in (0, 1, 2):
                break
        repeat.cancel()
        return await self.get(saga_id)


def chain(*names: str, **fields: Any) -> Definition:
    """A definition of compensatable steps, `do_NAME` and `undo_NAME`, one after the other, that give up at once."""
    quick = {"maxRetries": 0, "retry": {"initialBackoff": "0.001s", "maxBackoff": "0.001s"}}
    return recipes.definition(*(recipes.step(name, **quick) for name in names), **fields)


class NoHttp:
    """In place of the HTTP server, whose thread takes half a second to stop."""

    port = 0

    def __init__(self, *args: object) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@asynccontextmanager
async def running_server(
    store: Store | None,
    participant: ScriptedParticipant,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    **sections: dict[str, Any],
) -> AsyncIterator[Server]:
    """A node over a store, which is opened and closed with it; None: PostgreSQL, as the sections say.

    `sections` are of the configuration, such as `limits={"max_watches": 1}`.
    """
    app = App(_config(participant, sections), store)
    with patch("sagad_server.app.HttpServer", NoHttp):
        await app.start()
    channel = _channel(app.address, credentials)
    try:
        yield Server(app.address, channel, participant, app.store, app.engine, app.metrics, app)
    finally:
        await channel.close()
        await app.stop()
        gc.unfreeze()  # the app freezes what is there at its start: here it is the garbage of tests


def _config(participant: ScriptedParticipant, sections: dict[str, dict[str, Any]]) -> Config:
    config: dict[str, Any] = {
        "grpc": {"address": "127.0.0.1:0"},
        "http": {"address": "127.0.0.1:0"},
        "postgres": {"dsn": "postgresql://nobody@127.0.0.1:1/nothing"},
        "service": {"labels": {"stage": "test"}, "drain_timeout": "0s"},
        "node": {"name": "test-node"},
        "participants": {PARTICIPANT: {"target": participant.address}, UNREACHABLE: {"target": "127.0.0.1:1"}},
    }
    for name, section in sections.items():
        config[name] = {**config.get(name, {}), **section}
    return load_config(None, {}, config)


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, credentials)


async def rest(stream: Any) -> list[Any]:
    """What a stream still brings, up to its end."""
    messages = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


@dataclass(frozen=True)
class Refused:
    """How a call was refused, as the client reads it."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]
    """By field path."""
    retry_after_s: float | None


async def refused(call: Any) -> Refused:
    """Expects the call to be refused by sagad, with all that its refusals have."""
    try:
        answer = await (rest(call) if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError(f"not refused, but answered: {answer}")


def read_refusal(error: grpc.aio.AioRpcError) -> Refused:
    trailers = dict(error.trailing_metadata() or ())
    raw = trailers.get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"{error.code()} without details: {error.details()}"
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert info.domain == "sagad"
    violations = {one.field: one.description for one in bad.field_violations}
    return Refused(error.code(), error.details() or "", info.reason, dict(info.metadata), violations, retry_after_s)


def as_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message)


async def eventually(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - nobody tells when gRPC has seen a client leave
        await asyncio.sleep(0.005)
