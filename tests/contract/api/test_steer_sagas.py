"""CompensateSaga, CompleteStep, RetrySaga, SkipStep, AbandonSaga."""

import asyncio
from typing import Any

import grpc
import pytest
from support.definitions import definition, pivot, retriable
from support.scripted_participant import failure, json_payload, pending, success
from support.server import Server, chain, refused

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad_server.domain.payloads import MAX_PAYLOAD_BYTES

TOO_LARGE = common_pb2.Payload(data=b"x" * (MAX_PAYLOAD_BYTES + 1))


@pytest.fixture(autouse=True)
async def _definitions(server: Server) -> None:
    await server.create(chain("reserve", "charge"))
    await server.create(definition(pivot("pay", maxRetries=0), retriable("ship"), definitionId="sale"))


async def parked(server: Server, **fields: Any) -> saga_pb2.Saga:
    """A saga whose compensation was refused."""
    server.participant.script("do_charge", failure("NO_MONEY"))
    server.participant.script("undo_reserve", failure("NO_WAY"))
    saga = await server.start(wait=True, **fields)
    assert saga.state == saga_pb2.SAGA_STATE_PARKED
    return saga


async def past_pivot(server: Server, **fields: Any) -> saga_pb2.Saga:
    """A saga whose step after the pivot was refused."""
    server.participant.script("do_ship", failure("NO_CARRIER"))
    saga = await server.start("sale", wait=True, **fields)
    assert saga.state == saga_pb2.SAGA_STATE_PARKED
    return saga


async def awaiting(server: Server) -> tuple[saga_pb2.Saga, str]:
    """A saga whose first step is pending, and the completion token."""
    server.participant.script("do_reserve", pending())
    saga = await server.start()
    call = await server.participant.called("do_reserve")
    while (await server.get(saga.saga_id)).revision < 2:  # noqa: ASYNC110 - it leaves memory then
        await asyncio.sleep(0.005)
    return saga, call.completion_token


def operator(saga: saga_pb2.Saga, **fields: Any) -> dict[str, Any]:
    return {"saga_id": saga.saga_id, "revision": saga.revision, "reason": "by the test", **fields}


def complete(saga: saga_pb2.Saga, token: str, outcome: Any = None, **fields: Any) -> pb.CompleteStepRequest:
    return pb.CompleteStepRequest(
        completion_token=token,
        **{"saga_id": saga.saga_id, "outcome": outcome or success(), "step_id": "reserve", **fields},
    )


async def test_a_parked_saga_says_why_since_when_and_what_helps(server: Server) -> None:
    saga = await parked(server)
    (parking,) = saga.parkings
    assert parking.reason == saga_pb2.PARKING_REASON_COMPENSATION_REFUSED
    assert parking.step_id == "reserve"
    assert parking.park_time == saga.update_time
    assert parking.resumes_as == saga_pb2.SAGA_STATE_COMPENSATING
    assert set(parking.allowed_calls) == {"RetrySaga", "SkipStep", "CompleteStep", "AbandonSaga"}
    assert saga.steps[0].failure.reason == "NO_WAY"
    assert saga.failure.reason == "NO_MONEY"


async def test_a_succeeded_saga_is_compensated_and_says_by_whom(server: Server) -> None:
    saga = await server.start(wait=True)
    request = pb.CompensateSagaRequest(saga_id=saga.saga_id, reason="a change of mind")
    turned = (await server.sagas.CompensateSaga(request)).saga
    assert turned.state == saga_pb2.SAGA_STATE_COMPENSATING
    assert (await server.settled(saga.saga_id)).state == saga_pb2.SAGA_STATE_COMPENSATED
    events = (await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id=saga.saga_id))).events
    (called,) = [event for event in events if event.cause == saga_pb2.EVENT_CAUSE_COMPENSATE_CALLED]
    assert called.reason == "a change of mind"
    assert called.actor.startswith("ipv4:127.0.0.1:")
    assert (await server.sagas.CompensateSaga(request)).saga.state == saga_pb2.SAGA_STATE_COMPENSATED


async def test_a_saga_past_its_pivot_is_not_compensated(server: Server) -> None:
    saga = await past_pivot(server)
    refusal = await refused(server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id=saga.saga_id)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAST_PIVOT")


async def test_a_pending_step_is_completed_once(server: Server) -> None:
    saga, token = await awaiting(server)
    request = complete(saga, token, success({"reservation": 7}))
    completed = (await server.sagas.CompleteStep(request)).saga
    assert completed.steps[0].state == saga_pb2.STEP_STATE_SUCCEEDED
    ended = await server.settled(saga.saga_id)
    assert ended.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert ended.steps[0].output == json_payload({"reservation": 7})
    assert (await server.sagas.CompleteStep(request)).saga.revision == ended.revision
    refusal = await refused(server.sagas.CompleteStep(complete(saga, token, failure())))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OUTCOME_CONFLICT")


async def test_a_pending_step_can_be_refused(server: Server) -> None:
    saga, token = await awaiting(server)
    await server.sagas.CompleteStep(complete(saga, token, failure("SOLD_OUT")))
    ended = await server.settled(saga.saga_id)
    assert (ended.state, ended.failure.reason) == (saga_pb2.SAGA_STATE_COMPENSATED, "SOLD_OUT")


@pytest.mark.parametrize("token", ["wrong", "ä" * 32, "A" * 32])
async def test_a_wrong_token_is_no_permission(server: Server, token: str) -> None:
    saga, _ = await awaiting(server)
    refusal = await refused(server.sagas.CompleteStep(complete(saga, token)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_COMPLETION_TOKEN")


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        (pending(), "outcome"),
        (common_pb2.StepOutcome(), "outcome"),
        (common_pb2.StepOutcome(success=common_pb2.StepSuccess(output=TOO_LARGE)), "outcome.success.output"),
        (success("\0"), "outcome.success.output.json"),
        (failure("R" * 64), "outcome.failure.reason"),
        (failure("\0"), "outcome.failure.reason"),
    ],
    ids=["pending", "unset", "too large", "NUL in output", "long reason", "NUL in reason"],
)
async def test_an_outcome_that_is_no_answer_is_invalid(
    server: Server, outcome: common_pb2.StepOutcome, field: str
) -> None:
    saga, token = await awaiting(server)
    refusal = await refused(server.sagas.CompleteStep(complete(saga, token, outcome)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in refusal.violations


async def test_a_step_that_does_not_exist_is_invalid_and_the_steps_are_named(server: Server) -> None:
    saga, token = await awaiting(server)
    refusal = await refused(server.sagas.CompleteStep(complete(saga, token, step_id="nothing")))
    assert refusal.violations == {"step_id": "'nothing' is no step of this saga; they are reserve, charge"}


async def test_a_parked_compensation_is_retried(server: Server) -> None:
    saga = await parked(server)
    await server.sagas.RetrySaga(pb.RetrySagaRequest(**operator(saga)))
    assert (await server.settled(saga.saga_id)).state == saga_pb2.SAGA_STATE_COMPENSATED


async def test_a_refused_step_is_retried_with_other_input(server: Server) -> None:
    saga = await past_pivot(server)
    request = pb.RetrySagaRequest(**operator(saga, step_id="ship", input=json_payload({"carrier": "b"})))
    retried = (await server.sagas.RetrySaga(request)).saga
    assert retried.steps[1].generation == 2
    await server.settled(saga.saga_id)
    assert server.participant.calls[-1].input == json_payload({"carrier": "b"})


async def test_a_parked_step_is_skipped_with_an_output(server: Server) -> None:
    saga = await past_pivot(server)
    request = pb.SkipStepRequest(**operator(saga, step_id="ship", output=json_payload({"by": "hand"})))
    skipped = (await server.sagas.SkipStep(request)).saga
    assert skipped.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert (await server.get(saga.saga_id)).steps[1].output == json_payload({"by": "hand"})


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (pb.SKIP_OUTCOME_SUCCEEDED, saga_pb2.SAGA_STATE_SUCCEEDED),
        (pb.SKIP_OUTCOME_NOT_EXECUTED, saga_pb2.SAGA_STATE_COMPENSATED),
    ],
)
async def test_an_unknown_pivot_is_settled_by_what_the_operator_knows(
    server: Server, outcome: pb.SkipOutcome.ValueType, state: saga_pb2.SagaState.ValueType
) -> None:
    server.participant.script("do_pay", grpc.StatusCode.UNAVAILABLE)
    saga = await server.start("sale", wait=True)
    assert saga.parkings[0].reason == saga_pb2.PARKING_REASON_PIVOT_OUTCOME_UNKNOWN
    undecided = await refused(server.sagas.SkipStep(pb.SkipStepRequest(**operator(saga, step_id="pay"))))
    assert set(undecided.violations) == {"outcome"}
    await server.sagas.SkipStep(pb.SkipStepRequest(**operator(saga, step_id="pay", outcome=outcome)))
    assert (await server.settled(saga.saga_id)).state == state


async def test_a_parked_saga_is_abandoned(server: Server) -> None:
    saga = await parked(server)
    calls = len(server.participant.calls)
    ended = (await server.sagas.AbandonSaga(pb.AbandonSagaRequest(**operator(saga)))).saga
    assert ended.state == saga_pb2.SAGA_STATE_ABANDONED
    assert not ended.parkings
    assert len(server.participant.calls) == calls


async def test_an_operator_with_an_old_revision_is_aborted_and_told_the_present_one(server: Server) -> None:
    saga = await parked(server)
    old = operator(saga, revision=saga.revision - 1)
    for call in (
        server.sagas.RetrySaga(pb.RetrySagaRequest(**old)),
        server.sagas.SkipStep(pb.SkipStepRequest(**old, step_id="reserve")),
        server.sagas.AbandonSaga(pb.AbandonSagaRequest(**old)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "REVISION_CONFLICT")
        assert refusal.metadata == {"revision": str(saga.revision)}


async def test_a_saga_that_is_not_parked_is_not_for_operators(server: Server) -> None:
    saga = await server.start(wait=True)
    for call in (
        server.sagas.RetrySaga(pb.RetrySagaRequest(**operator(saga))),
        server.sagas.SkipStep(pb.SkipStepRequest(**operator(saga, step_id="reserve"))),
        server.sagas.AbandonSaga(pb.AbandonSagaRequest(**operator(saga))),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PARKED")


async def test_every_fault_of_an_operators_request_is_named_at_once(server: Server) -> None:
    wrong = {"saga_id": "no spaces", "namespace": "NO", "revision": 0, "reason": ""}
    common = {"saga_id", "namespace", "revision", "reason"}
    for call, fields in (
        (server.sagas.RetrySaga(pb.RetrySagaRequest(**wrong, step_id="?", input=TOO_LARGE)), {"step_id", "input"}),
        (server.sagas.RetrySaga(pb.RetrySagaRequest(**wrong, input=success().success.output)), {"input"}),
        (
            server.sagas.SkipStep(pb.SkipStepRequest(**wrong, outcome=9, output=TOO_LARGE)),  # type: ignore[arg-type]
            {"step_id", "outcome", "output"},
        ),
        (server.sagas.AbandonSaga(pb.AbandonSagaRequest(**wrong)), set()),
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == common | fields


async def test_a_reason_that_is_too_long_is_invalid(server: Server) -> None:
    refusal = await refused(server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="s1", reason="r" * 501)))
    assert set(refusal.violations) == {"reason"}


async def test_an_unknown_saga_is_not_found_and_a_purged_one_is_over(server: Server) -> None:
    saga = await server.start(wait=True)
    await server.admin.PurgeSagas(PurgeSagasRequest())
    for saga_id, code, reason in (
        ("nothing", grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND"),
        (saga.saga_id, grpc.StatusCode.FAILED_PRECONDITION, "PURGED"),
    ):
        named = operator(saga, saga_id=saga_id)
        for call in (
            server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id=saga_id)),
            server.sagas.CompleteStep(complete(saga, "token", saga_id=saga_id)),
            server.sagas.RetrySaga(pb.RetrySagaRequest(**named)),
            server.sagas.SkipStep(pb.SkipStepRequest(**named, step_id="reserve")),
            server.sagas.AbandonSaga(pb.AbandonSagaRequest(**named)),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (code, reason)


async def test_a_node_that_stops_asks_to_try_again(server: Server) -> None:
    saga = await parked(server)
    server.engine.draining = True
    for call in (server.start(), server.sagas.RetrySaga(pb.RetrySagaRequest(**operator(saga)))):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.retry_after_s == 1
    server.engine.draining = False  # or its end would count as begun, and nothing would be closed


async def test_without_a_database_that_takes_writes_it_asks_to_try_again(server: Server) -> None:
    server.engine.writer.healthy = False
    refusal = await refused(server.start())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refusal.retry_after_s == 1
