"""Ten thousand bad requests: none is the server's fault, none shows its inside, none takes it down."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from random import Random

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.definitions import definition, pivot, retriable
from support.fuzz import Fuzz
from support.scripted_participant import failure, json_payload, pending, success
from support.server import Server, chain

from sagad.v1 import admin_service_pb2 as admin
from sagad.v1 import definition_service_pb2 as definitions
from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as sagas
from sagad_server.api.resume_token import resume_token
from sagad_server.storage.journal import Cursor

SAGA = {"saga_id": "s1"}
STUCK = {"saga_id": "stuck", "revision": 3, "reason": "by the fuzz", "step_id": "ship"}
NAME = {"definition_id": "order", "version": "1.0.0"}
FILTER = saga_pb2.SagaFilter(
    states=[3, 4],
    definition_id="order",
    version="1.0.0",
    labels={"a": "b"},
    create_time_min=Timestamp(seconds=1),
    end_time_max=Timestamp(seconds=2),
    parking_reasons=[2],
    categories=[2],
)
GOOD: list[Message] = [
    sagas.StartSagaRequest(
        definition_id="order",
        input=json_payload({"a": [1, "x", None, {"b": True}]}),
        labels={"a": "b"},
        metadata={"a": "b"},
        timeout=Duration(seconds=60),
    ),
    sagas.GetSagaRequest(**SAGA),
    sagas.ListSagasRequest(filter=FILTER, page_size=10),
    sagas.WatchSagaRequest(**SAGA, after_revision=2),
    sagas.WatchSagasRequest(filter=FILTER, resume_token=resume_token(Cursor(0, 0, "memory"))),
    sagas.CompensateSagaRequest(**SAGA, reason="by the fuzz"),
    sagas.CompleteStepRequest(saga_id="waiting", step_id="reserve", completion_token="x", outcome=success({"a": 1})),
    sagas.CompleteStepRequest(
        saga_id="waiting",
        step_id="reserve",
        completion_token="x",
        outcome=failure("NO", details=Struct(), retry_after=Duration(seconds=1)),
    ),
    sagas.RetrySagaRequest(**STUCK, input=json_payload(1)),
    sagas.SkipStepRequest(**STUCK, outcome=sagas.SKIP_OUTCOME_SUCCEEDED, output=json_payload("x")),
    sagas.AbandonSagaRequest(saga_id="s1", revision=4, reason="by the fuzz"),
    sagas.ListSagaEventsRequest(**SAGA, page_size=2),
    sagas.GetSagaStatsRequest(filter=FILTER),
    definitions.CreateDefinitionRequest(definition=chain("reserve", "charge", version="2.0.0"), validate_only=True),
    definitions.CreateDefinitionRequest(definition=definition(pivot("pay"), retriable("ship"), definitionId="sale")),
    definitions.GetDefinitionRequest(**NAME),
    definitions.ListDefinitionsRequest(definition_id="order", page_size=1),
    definitions.ActivateDefinitionRequest(**NAME),
    definitions.DeactivateDefinitionRequest(definition_id="sale", version="1.0.0"),
    definitions.DeleteDefinitionRequest(**NAME),
    definitions.GetDefinitionStatsRequest(**NAME),
    definitions.SimulateDefinitionRequest(**NAME, input=json_payload({"a": 1}), max_paths=10),
    definitions.SimulateDefinitionRequest(
        definition=chain("reserve", "charge"), outputs={"reserve": json_payload([1])}, max_paths=10
    ),
    admin.GetServerInfoRequest(),
    admin.GetServiceStatsRequest(),
    admin.PurgeSagasRequest(filter=FILTER, limit=1, dry_run=True),
    sagas.RepairSagasRequest(
        filter=FILTER, action=sagas.REPAIR_ACTION_RETRY, reason="by the fuzz", limit=1, dry_run=True
    ),
    admin.ListAuditEventsRequest(kinds=[1], actor="a", time_min=Timestamp(seconds=1), page_size=10),
]
PATHS = {
    method.input_type.full_name: (f"/{service.full_name}/{method.name}", method.server_streaming)
    for file in (sagas, definitions, admin)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
KNOWN = ("s1", "stuck", "waiting", "sale", "ship", "default")
TRACE = re.compile(r"Traceback|File \"|\.py\b|Error\(|object at 0x|asyncpg", re.IGNORECASE)
AT_ONCE = 25
STREAM_S = 0.2  # a watch of a saga that does not move says nothing
NONSENSE, SPOILED, MUTATED = 3000, 3500, 3000
EXAMPLES, PER_EXAMPLE = 50, 20

Request = tuple[str, bytes]
"""(full name of the message, its bytes)"""


@pytest.fixture(autouse=True)
async def _sagas(server: Server) -> None:
    """Sagas that have ended, are parked, and wait, for the requests to hit."""
    await server.create(chain("reserve", "charge"))
    await server.create(definition(pivot("pay"), retriable("ship"), definitionId="sale"))
    await server.start(saga_id="s1", wait=True)
    server.participant.script("do_ship", failure())
    await server.start("sale", saga_id="stuck", wait=True)
    server.participant.script("do_reserve", pending())
    await server.start(saga_id="waiting")


async def send(server: Server, request: Request) -> str:
    """The code of the answer, whose text is looked at."""
    name, data = request
    path, streaming = PATHS[name]
    try:
        if streaming:
            stream = server.channel.unary_stream(path)(data, timeout=STREAM_S)
            await stream.read()
            stream.cancel()
        else:
            await server.channel.unary_unary(path)(data, timeout=10)
    except grpc.aio.AioRpcError as error:
        code, text = error.code().name, error.details() or ""
    else:
        code, text = "OK", ""
    assert code not in {"INTERNAL", "UNKNOWN"}, f"{path} {code}: {text} {data!r}"
    assert streaming or code != "DEADLINE_EXCEEDED", f"{path} {code}: {data!r}"
    assert not TRACE.search(text), f"{path} {code}: {text} {data!r}"
    return code


async def send_all(server: Server, requests: Iterator[Request]) -> Counter[str]:
    """Sends them, many at once, and counts the codes."""
    codes: Counter[str] = Counter()

    async def work() -> None:
        for request in requests:
            codes[await send(server, request)] += 1

    with capture_logs() as logs:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []
    return codes


def nonsense(random: Random, count: int) -> Iterator[Request]:
    fuzz = Fuzz(random, KNOWN)
    for _ in range(count):
        descriptor = random.choice(GOOD).DESCRIPTOR
        yield descriptor.full_name, fuzz.message(descriptor).SerializeToString()


def spoiled(random: Random, count: int) -> Iterator[Request]:
    fuzz = Fuzz(random, KNOWN)
    for _ in range(count):
        good = random.choice(GOOD)
        if good.DESCRIPTOR.fields:
            yield good.DESCRIPTOR.full_name, fuzz.spoiled(good).SerializeToString()
        else:
            yield good.DESCRIPTOR.full_name, random.randbytes(8)


def mutated(random: Random, count: int) -> Iterator[Request]:
    fuzz = Fuzz(random)
    for _ in range(count):
        good = random.choice(GOOD)
        yield good.DESCRIPTOR.full_name, fuzz.mutated(good.SerializeToString())


async def check_alive(server: Server) -> None:
    """Sagas still run, and none was parked because sagad failed on it."""
    await server.create(chain("reserve", definitionId="alive"))
    assert (await server.start("alive", wait=True)).state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert server.metrics.registry.get_sample_value("sagad_incidents_total") == 0


async def test_messages_full_of_nonsense_are_refused_as_such(server: Server) -> None:
    codes = await send_all(server, nonsense(Random(1), NONSENSE))
    assert codes.total() == NONSENSE
    assert codes["INVALID_ARGUMENT"] > NONSENSE / 2
    await check_alive(server)


async def test_good_requests_with_one_bad_field_are_answered_for_what_they_are(server: Server) -> None:
    codes = await send_all(server, spoiled(Random(2), SPOILED))
    assert codes.total() == SPOILED
    assert min(codes["OK"], codes["INVALID_ARGUMENT"]) > SPOILED / 10
    await check_alive(server)


async def test_bytes_that_are_no_message_are_refused_as_such(server: Server) -> None:
    codes = await send_all(server, mutated(Random(3), MUTATED))
    assert codes.total() == MUTATED
    assert codes["INVALID_ARGUMENT"] > MUTATED / 3
    await check_alive(server)


@settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
async def test_what_hypothesis_makes_up_is_answered_for_what_it_is(server: Server, random: Random) -> None:
    await send_all(server, spoiled(random, PER_EXAMPLE))
